"""A whole restore through a serial line by somebody who types, and no secret of it in any log afterwards.

The line is a terminal of its own, of unknown size (0x0) as a serial line is, with a VT220 at its other end; the
engine, the server and the disk (a loop device) are real.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.commands import run
from tests.support.fault_world import HOST, SIZE, FaultWorld, make_fault_world
from tests.support.repositories import PASSPHRASE
from tests.support.server import PASSWORD
from tests.support.windows import Console, Service

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices"),
]

ENTER, DOWN, LEFT, SHIFT_TAB = b"\r", b"\x1b[B", b"\x1b[D", b"\x1b[Z"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FaultWorld]:
    made = make_fault_world(tmp_path, tls=True)
    made.rig.session("restore")  # makes the user
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    """A disk of the right size, blank."""
    image = tmp_path / "target.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    device = run(["losetup", "--find", "--show", image]).stdout.strip()
    yield device
    run(["losetup", "-d", device])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path, "--loops")
    yield made
    made.close()


def test_a_restore_by_a_serial_line(world: FaultWorld, service: Service, target: str, tmp_path: Path) -> None:
    line = Console(service.socket, tmp_path, term="vt220", rows=0, columns=0)
    line.wait_for("> Restore a host")
    assert line.size() == (24, 80)
    line.send(DOWN + ENTER)  # some disks: nothing is chosen beforehand, and what has no system need not start
    if "Rekindle · Network" in line.wait_for("Rekindle · (Network|Repository)"):  # nothing of it is needed on loopback
        line.wait_for(r"\[ Continue \]|\[>Continue<\]")
        line.send(SHIFT_TAB * 2 if "[>Apply<]" in line.text else ENTER)
    line.wait_for("> Server")
    line.send(world.rig.url.encode() + ENTER)
    line.wait_for("NOT TRUSTED")
    line.wait_for("> User")
    line.send(b"restore" + ENTER + PASSWORD.encode() + ENTER + ENTER + PASSPHRASE.encode() + ENTER)
    line.wait_for("Is this your server?")
    line.send(b"\x1b[C" + ENTER)  # it is: compared with what the server said
    line.wait_for(f"> {HOST}")
    line.send(ENTER)
    line.wait_for("Rekindle · Point")
    line.wait_for("Consistency")
    line.send(ENTER)
    line.wait_for("Rekindle · Target disks")
    line.wait_for("Disks of this machine for disk1")
    line.wait_for("not restored")
    disks = [disk.path for disk in service.client().machine().disks]
    line.send(ENTER)
    line.wait_for("Suggested: It is the smallest")  # the list below has the focus
    line.send(b"\x1b[H" + DOWN * disks.index(target) + ENTER)
    line.wait_for(r"\[>Continue<\]")
    line.send(ENTER)
    line.wait_for("The restore is possible")
    line.wait_for(r"\[>Continue<\]")
    line.send(ENTER)
    line.wait_for("Rekindle · Confirm")
    line.wait_for("Type its size in bytes")
    line.send(str(SIZE).encode() + ENTER)
    line.wait_for(r"\[>Back<\]")
    line.send(LEFT)
    line.wait_for(r"\[>Restore now<\]")
    line.send(ENTER)
    line.wait_for("The restore is complete", 120)
    drawn = line.drawn
    line.kill()
    assert Path(target).read_bytes() == world.data
    assert not re.search(rb"\x1b\[\?(1049|2026|1000|1003|2004)|\x1b\[[<>]", drawn), "a request a VT220 does not know"
    service.close()
    nothing_secret(tmp_path, drawn, PASSWORD, PASSPHRASE)


def nothing_secret(folder: Path, drawn: bytes, *secrets: str) -> None:
    """In no file that engine, server or console wrote (but for the repository's own), nor on the line."""
    logs = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".img"]
    logs = [path for path in logs if folder / "repository" not in path.parents]
    logs += list((folder / "repository/.server").rglob("*.log"))
    assert any(path.stat().st_size for path in logs), "there is no log"
    for secret in secrets:
        assert secret.encode() not in drawn
        for path in logs:
            assert secret.encode() not in path.read_bytes(), path
