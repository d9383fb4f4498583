"""``rekindle restore --verify --also --skip-damaged`` as it is typed: what is refused, said, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.cli.main import main
from recovery.units import MIB
from tests.support.copies import CHUNK, Copies
from tests.support.repositories import PASSPHRASE, new_repository

pytestmark = pytest.mark.faults

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


@pytest.fixture
def restore(copies: Copies, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command; returns exit code, stdout, stderr."""
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")

    def call(*options: str, command: str = "restore") -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([command, str(copies.folder / "one"), "--host", "hv1", "--target", f"disk1={tmp_path / 'out.img'}",
                  "--secret-file", str(secret), *options])  # fmt: skip
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err if "--json" in options else " ".join(said.err.split())

    return call


def test_the_plan_sees_all_copies_and_the_restore_is_whole(copies: Copies, restore: Call, tmp_path: Path) -> None:
    copies.pack("one", 8).unlink()
    copies.flip("one", 2)
    copies.cut("two", 30)
    code, out, _ = restore()
    assert (code, "pack-missing" in out, "--also" in out) == (11, True, True)
    assert not (tmp_path / "out.img").exists()
    code, out, err = restore("--also", str(copies.folder / "two"), command="plan")
    assert (code, "pack-missing" in out) == (0, False), err
    assert not (tmp_path / "out.img").exists()
    code, out, err = restore("--also", str(copies.folder / "two"), "--verify")
    assert code == 0, err
    assert (tmp_path / "out.img").read_bytes() == copies.data
    assert f"its Merkle root is the signed one: {copies.point.disk('disk1').root}" in out
    assert "was taken from" in err and "Asking another copy" in err


def test_lost_chunks_are_listed_and_the_exit_code_is_5(copies: Copies, restore: Call, tmp_path: Path) -> None:
    for name in ("one", "two"):
        copies.flip(name, 2)
        copies.pack(name, 15).unlink()
    also = ("--also", str(copies.folder / "two"))
    code, out, _ = restore(*also)
    assert (code, "pack-missing" in out) == (11, True)
    code, out, err = restore(*also, "--skip-damaged", "--verify")
    assert code == 5
    assert (tmp_path / "out.img").read_bytes() == copies.wipe(2, *range(15, 20))
    assert f"lost: byte {2 * CHUNK}: {CHUNK} bytes, outside of any partition" in out
    assert f"lost: byte {15 * CHUNK}: {5 * CHUNK} bytes" in out
    assert f"{6 * CHUNK} bytes of disk1" in err and "no copy of the repository" in err
    assert "warning: 1.50 MiB of disk1" in out


def test_json_states_the_root_and_what_was_lost(copies: Copies, restore: Call, tmp_path: Path) -> None:
    code, out, _ = restore("--verify", "--json")
    report = json.loads(out.splitlines()[-1])["report"]
    (disk,) = report["disks"]
    assert (code, disk["root"], disk["root_matched"]) == (0, copies.point.disk("disk1").root, True)
    assert disk["verified_bytes"] == disk["logical"] == len(copies.data)
    notes = [event.get("note", "") for event in map(json.loads, out.splitlines())]
    assert any("reading back" in note for note in notes)
    (tmp_path / "out.img").unlink()
    copies.flip("one", 33)
    code, out, err = restore("--skip-damaged", "--json")
    (disk,) = json.loads(out.splitlines()[-1])["report"]["disks"]
    assert disk["damaged"] == [{"offset": 33 * CHUNK, "length": CHUNK, "partition": 0, "content": ""}]
    assert (code, disk["root_matched"], json.loads(err.splitlines()[-1])["kind"]) == (5, False, "IntegrityError")


def test_a_first_copy_that_cannot_be_opened_is_left_out(copies: Copies, restore: Call, tmp_path: Path) -> None:
    file = copies.folder / "one" / "repo.json"
    file.write_bytes(file.read_bytes()[: MIB // 8192])
    code, _, err = restore("--also", str(copies.folder / "two"))
    assert code == 0, err
    assert f"{copies.folder / 'one'} is left out" in err
    assert (tmp_path / "out.img").read_bytes() == copies.data


def test_what_is_no_copy_is_refused(copies: Copies, restore: Call, tmp_path: Path) -> None:
    new_repository(copies.folder / "other")
    code, _, err = restore("--also", str(copies.folder / "other"))
    assert (code, "not a copy" in err) == (2, True)
    code, _, err = restore("--also", str(copies.folder / "nowhere"))
    assert code == 3
    assert not (tmp_path / "out.img").exists()
