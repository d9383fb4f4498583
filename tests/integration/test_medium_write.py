"""A medium on a real (loop) drive: written, read back, checked; and drives that must not be written are refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.cli.main import main
from recovery.commands import run
from recovery.events import Event, Progress
from recovery.medium.manifest import POINTER_OFFSET, POINTER_SIZE, Region, cut, encode, encode_pointer
from recovery.medium.write import write_medium
from recovery.units import MIB
from tests.support.disks import until_free

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root"),
]
SIZE = 9 * MIB + 2048
DRIVE = 16 * MIB


def make_image(path: Path, size: int = SIZE) -> Path:
    """Bytes with a manifest at 64 KiB, as a medium has."""
    data = bytearray(hashlib.shake_128(b"medium").digest(size))
    place = (65536, 8192)
    known = [(131072, 4 * MIB, "/rekindle/base.squashfs")]
    regions = [
        Region(offset, length, hashlib.sha256(data[offset : offset + length]).hexdigest(), name)
        for offset, length, name in cut(known, [place, (POINTER_OFFSET, POINTER_SIZE)], size)
    ]
    manifest = encode(regions).ljust(place[1], b"\n")
    data[place[0] : sum(place)] = manifest
    data[POINTER_OFFSET : POINTER_OFFSET + POINTER_SIZE] = encode_pointer(*place, manifest)
    path.write_bytes(data)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "medium.iso")


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[str]:
    """A loop device that was full of something else."""
    backing = tmp_path / "drive.img"
    backing.write_bytes(b"\xaa" * DRIVE)
    device = run(["losetup", "--find", "--show", backing]).stdout.strip()
    yield device
    run(["umount", device], check=False)
    run(["losetup", "--detach", device])


def rekindle(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["iso", *map(str, words)])
    return int(ended.value.code or 0)


def write(image: Path, drive: str, *more: str) -> int:
    size = str(DRIVE)
    return rekindle("write", image, drive, "--loops", "--serial", size, "--confirm", size, *more)


def test_a_medium_is_written_and_is_whole(image: Path, drive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(image, drive) == 0
    assert "every byte read back" in capsys.readouterr().out
    held = Path(drive).read_bytes()
    assert held[:SIZE] == image.read_bytes()
    assert held[-MIB:] == bytes(MIB), "no partition table of before is left at the end"
    assert rekindle("verify", drive) == 0
    assert "is whole" in capsys.readouterr().out


def test_damage_on_a_drive_is_named(image: Path, drive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(image, drive) == 0
    with Path(drive).open("r+b") as file:
        file.seek(200_000)
        file.write(b"damage")
    run(["blockdev", "--flushbufs", drive])
    capsys.readouterr()
    assert rekindle("verify", drive) == 5
    said = capsys.readouterr()
    assert said.out == ("/rekindle/base.squashfs: bytes 131072 to 4325375 of the image are not what was written\n")
    assert "1 place." in said.err
    assert rekindle("verify", drive, "--json") == 5
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(last["damages"]) == 1


def test_a_damaged_or_foreign_image_is_not_written(
    image: Path, drive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = image.read_bytes()
    for at in (5 * MIB, 66_000, POINTER_OFFSET + 25):
        image.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert write(image, drive) in (3, 5), at
    image.write_bytes(good[: 5 * MIB])
    assert write(image, drive) == 5
    assert "the image ends before them" in capsys.readouterr().err
    image.write_bytes(good)
    image.with_name(image.name + ".sha256").write_text("0" * 64 + "  medium.iso\n")
    assert write(image, drive) == 5
    assert "not the image that medium.iso.sha256 was made for" in capsys.readouterr().err
    (tmp_path / "other.iso").write_bytes(bytes(SIZE))
    assert rekindle("verify", tmp_path / "other.iso") == 3
    assert rekindle("verify", tmp_path / "missing.iso") == 3
    assert rekindle("verify", tmp_path) == 2
    assert "is a directory" in capsys.readouterr().err
    assert Path(drive).read_bytes() == b"\xaa" * DRIVE, "nothing was written"


def test_a_drive_that_is_not_removable_must_be_meant(
    image: Path, drive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rekindle("write", image, drive, "--loops", "--confirm", str(DRIVE)) == 9
    said = capsys.readouterr().err
    assert "is not a removable drive" in said
    assert f"--serial {DRIVE}" in said
    assert rekindle("write", image, drive, "--confirm", str(DRIVE)) == 3, "without --loops it is no drive at all"
    assert Path(drive).read_bytes() == b"\xaa" * DRIVE


def test_without_the_right_word_nothing_is_written(
    image: Path, drive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("write", image, drive, "--loops", "--serial", str(DRIVE))
    assert rekindle(*words) == 9
    assert "no terminal to ask on" in capsys.readouterr().err
    assert rekindle(*words, "--confirm", "yes") == 9
    assert Path(drive).read_bytes() == b"\xaa" * DRIVE


def test_a_mounted_drive_is_refused(
    image: Path, drive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["mkfs.ext4", "-q", "-F", drive])
    folder = tmp_path / "mounted"
    folder.mkdir()
    run(["mount", "-o", "ro,noload", drive, folder])
    before = Path(drive).read_bytes()
    assert write(image, drive) == 9
    assert f"is mounted at {folder}" in capsys.readouterr().err
    run(["umount", folder])
    assert Path(drive).read_bytes() == before
    until_free(drive)
    assert write(image, drive) == 0, "and when it is free, what is lost is said"
    assert "will be lost" in capsys.readouterr().err


def test_a_drive_that_is_too_small_is_refused(drive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = make_image(tmp_path / "large.iso", DRIVE + 2048)
    assert write(large, drive) == 9
    assert "too small" in capsys.readouterr().err


def test_a_medium_that_was_stopped_does_not_start(image: Path, drive: str, tmp_path: Path) -> None:
    seen: list[Event] = []
    done = 0

    def stop() -> bool:
        return done >= 2

    def hear(event: Event) -> None:
        nonlocal done
        seen.append(event)
        done += isinstance(event, Progress)

    from recovery.errors import CancelledError

    with pytest.raises(CancelledError, match="does not start"):
        write_medium(image, drive, hear, stop)
    held = Path(drive).read_bytes()
    assert held[:MIB] == bytes(MIB), "neither boot sector nor volume descriptor"
    assert held[MIB : 9 * MIB] == image.read_bytes()[MIB : 9 * MIB]


def test_a_stick_that_forgets_is_told(image: Path, drive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from recovery.errors import IntegrityError
    from recovery.restore.target import Target

    real = Target.write

    def forget(self: Target, offset: int, data: memoryview) -> None:
        if offset != 5 * MIB:  # as sticks do that pretend to be larger than they are
            real(self, offset, data)

    monkeypatch.setattr(Target, "write", forget)
    with pytest.raises(IntegrityError, match=f"at byte {5 * MIB}"):
        write_medium(image, drive, lambda event: None)
