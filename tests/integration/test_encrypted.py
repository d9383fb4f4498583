"""An encrypted host, with the real cryptsetup: what a point knows of it, and that its passphrase is tried on what the
repository holds before anything is written. No device-mapper needed: nothing is opened."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from recovery.capture.pipeline import capture
from recovery.capture.request import CaptureRequest
from recovery.cli.main import main
from recovery.engine.engine import Engine
from recovery.errors import PlanRefusedError
from recovery.events import ignore
from recovery.format.point import Point
from recovery.plan.model import Choices, RestorePlan
from recovery.repository.location import open_index
from recovery.repository.store import open_local
from recovery.restore.peek import read_captured
from recovery.units import MIB
from tests.support.repositories import PASSPHRASE, new_repository, reopen

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]

SECRET = "opens it, with a blank "
HOST = "vault"
START, SIZE = 8 * MIB, 40 * MIB


def sh(*words: object, input: bytes | None = None) -> str:
    done = subprocess.run([str(word) for word in words], input=input, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
    return done.stdout.decode()


@dataclass(frozen=True)
class Vault:
    image: Path
    location: Path
    point: Point


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    """A disk with a LUKS2 partition of which nothing else is known, captured."""
    folder = tmp_path_factory.mktemp("vault")
    image, inner = folder / "disk.img", folder / "luks.img"
    for path, size in ((image, 64 * MIB), (inner, SIZE)):
        path.touch()
        os.truncate(path, size)
    # Argon2 as it is, but cheap: the test is not about how long it takes.
    sh("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf-memory", "32768",
       "--pbkdf-force-iterations", "4", "--key-file=-", inner, input=SECRET.encode())  # fmt: skip
    script = f"label: gpt\nstart={MIB // 512}, size={MIB // 512}, type=L\nstart={START // 512}, size={SIZE // 512}\n"
    sh("sfdisk", "-q", "--force", image, input=script.encode())
    sh("dd", f"if={inner}", f"of={image}", "bs=1M", f"seek={START // MIB}", "conv=notrunc", "status=none")
    repository = new_repository(folder / "repository")
    request = CaptureRequest(host=HOST, disks=(image,), firmware="bios")
    point = capture(repository, open_index(repository), request, ignore, threading.Event())
    return Vault(image, folder / "repository", point)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    """A blank disk of the same size."""
    image = tmp_path / "target.img"
    image.touch()
    os.truncate(image, 64 * MIB)
    device = sh("losetup", "--find", "--show", image).strip()
    yield device
    sh("losetup", "--detach", device)


@pytest.fixture
def engine(vault: Vault, tmp_path: Path) -> Iterator[Engine]:
    made = Engine(log_directory=tmp_path / "log", look_inside=False, loops=True)
    made.adopt(reopen(open_local(vault.location)))
    yield made
    made.close()


def plan(engine: Engine, vault: Vault, target: str, *, adapt: bool = True) -> RestorePlan:
    return engine.plan(Choices(host=HOST, point=vault.point.id, targets={"disk1": target}, adapt=adapt))


def found(plan: RestorePlan) -> dict[str, str]:
    return {problem.code: problem.severity for problem in plan.problems if problem.code.startswith("luks")}


def test_a_point_tells_where_and_how_it_is_encrypted(vault: Vault) -> None:
    (volume,) = vault.point.body.luks_volumes
    assert (volume.on, volume.disk, volume.offset) == ("disk1:2", "disk1", START)
    assert (volume.version, volume.slots, volume.memory, volume.header) == (2, 1, 32 * MIB, 16 * MIB)
    assert vault.point.body.system.root == ""


def test_captured_bytes_can_be_read_without_restoring(vault: Vault) -> None:
    repository = reopen(open_local(vault.location))
    data = vault.image.read_bytes()
    for offset, length in ((START, 4096), (START - 5, 3 * MIB + 11), (0, 512), (63 * MIB, 2 * MIB), (64 * MIB, 1)):
        assert read_captured(repository, vault.point, "disk1", offset, length) == data[offset : offset + length]


def test_the_passphrase_is_tried_before_the_first_write(engine: Engine, vault: Vault, target: str) -> None:
    assert found(plan(engine, vault, target)) == {"luks-secret-missing": "error"}
    assert found(plan(engine, vault, target, adapt=False)) == {"luks-not-adapted": "warning"}

    assert engine.luks_secret("wrong one") == 1
    refused = plan(engine, vault, target)
    assert found(refused) == {"luks-secret-wrong": "error"}
    assert not refused.allowed

    assert engine.luks_secret(SECRET) == 2  # the wrong one is tried too, and does no harm
    allowed = plan(engine, vault, target)
    assert found(allowed) == {}
    assert allowed.choices.luks_secret
    assert SECRET.encode() not in json.dumps([str(problem) for problem in allowed.problems]).encode()
    assert SECRET not in repr(allowed)
    assert SECRET.strip() not in "\n".join(engine.log(5000))

    assert engine.luks_secret("") == 0
    assert found(plan(engine, vault, target)) == {"luks-secret-missing": "error"}
    assert not any(Path(target).read_bytes()[: 4 * MIB])


def test_a_plan_made_before_the_passphrase_came_is_not_run(engine: Engine, vault: Vault, target: str) -> None:
    engine.luks_secret(SECRET)
    made = plan(engine, vault, target)
    engine.luks_secret("another")
    with pytest.raises(PlanRefusedError, match="not the plan"):
        engine.start(made.id, {a.target.id: a.target.confirmation for a in made.assignments})


def test_disks_that_are_here_are_tried_as_they_are(engine: Engine, vault: Vault, tmp_path: Path) -> None:
    image = tmp_path / "here.img"
    image.write_bytes(vault.image.read_bytes()[START : START + SIZE])
    device = sh("losetup", "--find", "--show", image).strip()
    try:
        assert found(engine.plan_repair((device,))) == {"luks-secret-missing": "warning"}
        engine.luks_secret("wrong one")
        assert found(engine.plan_repair((device,))) == {"luks-secret-wrong": "error"}
        engine.luks_secret(SECRET)
        assert found(engine.plan_repair((device,))) == {}
    finally:
        sh("losetup", "--detach", device)


def test_the_command_line_takes_it_from_a_file(
    vault: Vault, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, luks = tmp_path / "secret", tmp_path / "luks"
    secret.write_text(PASSPHRASE + "\n")
    luks.write_text("wrong one\n")
    words = ["plan", str(vault.location), "--secret-file", str(secret), "--host", HOST, "--target", f"disk1={target}"]
    words += ["--adapt", "--loops", "--json"]

    def said(*more: str) -> tuple[object, dict[str, str]]:
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        made = msgspec.json.decode(capsys.readouterr().out.splitlines()[0], type=RestorePlan)
        return ended.value.code, found(made)

    assert said() == (11, {"luks-secret-missing": "error"})
    assert said("--luks-secret-file", str(luks)) == (11, {"luks-secret-wrong": "error"})
    luks.write_text(SECRET + "\n")
    assert said("--luks-secret-file", str(luks)) == (0, {})
