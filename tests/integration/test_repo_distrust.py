"""A pack that was damaged on its disk: captures build on it until a check marks it, and are whole again then."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.capture.esp import list_esp
from recovery.capture.parent import tell_of_clock
from recovery.capture.ranges import Extent
from recovery.cli.main import main
from recovery.commands import run
from recovery.errors import IntegrityError
from recovery.events import Event, Message
from recovery.format.point import PointSummary
from recovery.repository.check import check
from recovery.repository.distrust import distrusted
from recovery.repository.index import SqliteIndex
from recovery.repository.store import open_local
from recovery.units import MIB
from tests.support.captures import noise, packs, read_back, take
from tests.support.repositories import PASSPHRASE, new_repository


def rekindle(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_after_a_marked_pack_the_next_capture_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = new_repository(tmp_path / "r")
    disk, secret = noise(tmp_path / "disk.img", 5 * MIB), tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    words = ("repo", "check", tmp_path / "r", "--read-data", "--secret-file", secret)
    first = take(repository, disk)
    pack = tmp_path / "r" / packs(repository)[0]
    data = bytearray(pack.read_bytes())
    data[2 * MIB] ^= 1
    pack.write_bytes(data)

    # Nothing tells that the pack is damaged yet: the next point refers to it.
    second = take(repository, disk)
    assert rekindle(*words) == 5
    said = capsys.readouterr()
    assert second.id[:12] in said.out
    assert "--distrust" in said.err
    assert distrusted(repository.store) == set()

    assert rekindle(*words, "--distrust") == 5
    assert "capture the hosts again" in capsys.readouterr().err
    assert {pack.hex() for pack in distrusted(repository.store)} == {pack.name}
    # Also an index that knew the pack before, as a server's, forgets its chunks.
    index = SqliteIndex(":memory:")
    index.add_pack(pack.name, [])
    index.refresh(repository.store)
    assert index.counts() == (0, 0)

    third = take(repository, disk)
    with pytest.raises(IntegrityError):
        read_back(repository, second)
    assert read_back(repository, third) == disk.read_bytes()
    # What is good in the marked pack is still there for the points that need it, and no new one is hurt.
    hurt = {user.split()[1] for damage in check(repository, read_data=True).damages for user in damage.hurts}
    assert hurt == {first.id[:12], second.id[:12]}


def test_a_repository_is_not_made_with_a_poor_passphrase_nor_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("short\n")
    assert rekindle("repo", "init", tmp_path / "r", "--passphrase-file", secret) == 2
    assert "too short" in capsys.readouterr().err
    secret.write_text(PASSPHRASE + "\n")
    assert rekindle("repo", "init", tmp_path / "r", "--passphrase-file", secret) == 0
    # Nobody else on the machine can try passphrases against it.
    assert not any(path.stat().st_mode & 0o007 for path in (tmp_path / "r").rglob("*") if path.is_file())
    # Said before anybody is asked for a passphrase.
    assert rekindle("repo", "init", tmp_path / "r", "--passphrase-file", tmp_path / "missing") == 2
    assert "already" in capsys.readouterr().err


def test_a_damaged_repository_file_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_repository(tmp_path / "r")
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    (tmp_path / "r/repo.json").write_bytes(b"")
    assert rekindle("points", tmp_path / "r", "--secret-file", secret) == 5
    assert "another copy" in capsys.readouterr().err


def test_an_empty_esp_has_no_files(tmp_path: Path) -> None:
    volume = tmp_path / "esp.img"
    volume.write_bytes(bytes(4 * MIB))
    run(["mkfs.vfat", volume])
    assert list_esp(Extent(volume, 0, 4 * MIB)) == []


def test_a_clock_that_is_behind_the_newest_point_is_said() -> None:
    said: list[Event] = []
    newest = PointSummary(id="ab" * 32, host="hv1", created=1_900_000_000.0)
    tell_of_clock(newest, newest.created - 10, said.append)
    tell_of_clock(None, 0, said.append)
    assert not said
    tell_of_clock(newest, newest.created - 86400 * 365, said.append)
    (message,) = said
    assert isinstance(message, Message)
    assert message.level == "warning"
    assert "2030-03-17" in message.text


def test_the_store_is_what_it_was(tmp_path: Path) -> None:
    """The mark is no object that a server would list or serve."""
    repository = new_repository(tmp_path / "r")
    from recovery.repository.distrust import distrust

    distrust(repository.store, ["ab" * 32])
    assert distrust(repository.store, ["ab" * 32]) == 0
    assert distrusted(open_local(tmp_path / "r")) == {bytes.fromhex("ab" * 32)}
    assert check(repository, read_data=True).ok
