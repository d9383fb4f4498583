"""A clock that is ten years off, both ways: a real process under libfaketime, a server whose clock is right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_world import HOST, FaultWorld, make_fault_world
from tests.support.processes import environment
from tests.support.repositories import PASSPHRASE
from tests.support.server import PASSWORD

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not _LIBRARIES, reason="needs Debian's faketime"),
]

WAYS = pytest.mark.parametrize(("offset", "way"), [("-10y", "behind"), ("+10y", "ahead of")])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultWorld]:
    made = make_fault_world(tmp_path_factory.mktemp("clock"), tls=True)
    made.rig.session("restore")  # makes the user
    yield made
    made.close()


def restore(world: FaultWorld, folder: Path, offset: str, ca: str) -> subprocess.CompletedProcess[str]:
    """``rekindle restore`` in a process whose clock is ``offset`` off; ``ca``: what it trusts."""
    for name, secret in (("secret", PASSPHRASE), ("password", PASSWORD)):
        (folder / name).write_text(secret)
    arguments = [
        sys.executable, "-m", "recovery.cli.main", "restore", world.rig.url, "--host", HOST,
        "--target", f"disk1={folder / 'out.img'}", "--json", "--verify", "--user", "restore", "--ca", ca,
        "--password-file", str(folder / "password"), "--secret-file", str(folder / "secret"),
    ]  # fmt: skip
    faked = {"LD_PRELOAD": str(_LIBRARIES[0]), "FAKETIME": offset}
    env = environment(folder) | faked
    return subprocess.run(arguments, env=env, capture_output=True, text=True, cwd=folder, timeout=120)


@WAYS
def test_with_a_pinned_fingerprint_the_clock_does_not_matter_and_is_told(
    world: FaultWorld, tmp_path: Path, offset: str, way: str
) -> None:
    done = restore(world, tmp_path, offset, world.rig.trust.fingerprint)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.img").read_bytes() == world.data
    assert f"The clock of this machine is 10.0 years {way} the server's." in done.stderr
    report = json.loads(next(line for line in done.stdout.splitlines() if '"type":"report"' in line))
    assert report["report"]["disks"][0]["root_matched"]
    # It ran under the wrong clock, and still says how long it took.
    years = (report["report"]["finished"] - (tmp_path / "out.img").stat().st_mtime) / 31_556_952
    assert abs(abs(years) - 10) < 0.1
    assert 0 <= report["report"]["finished"] - report["report"]["started"] < 120


@WAYS
def test_with_a_ca_it_is_said_how_wrong_the_clock_is_and_how_to_set_it(
    world: FaultWorld, tmp_path: Path, offset: str, way: str
) -> None:
    certificate = world.rig.server.certificate
    assert certificate is not None
    # The server's certificates begin in 2015: a clock that is behind must be further behind to find them invalid.
    offset, years = ("-15y", "15.0") if way == "behind" else (offset, "10.0")
    done = restore(world, tmp_path, offset, str(certificate.ca_path))
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"{years} years {way} the server's" in done.stderr
    assert "date -u -s '20" in done.stderr and "--ca" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.img").exists()


def test_with_a_ca_ten_years_behind_is_no_matter(world: FaultWorld, tmp_path: Path) -> None:
    """The server issues its certificates from long ago for this."""
    certificate = world.rig.server.certificate
    assert certificate is not None
    done = restore(world, tmp_path, "-10y", str(certificate.ca_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.img").read_bytes() == world.data


@WAYS
def test_another_certificate_is_refused_whatever_the_time(
    world: FaultWorld, tmp_path: Path, offset: str, way: str
) -> None:
    """That time is not looked at must not mean that nothing is."""
    done = restore(world, tmp_path, offset, "ab" * 32)
    assert done.returncode == 4
    assert "is not the one expected" in done.stderr
    assert not (tmp_path / "out.img").exists()
