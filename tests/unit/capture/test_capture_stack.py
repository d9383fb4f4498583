"""md members and LUKS headers as a capture reads them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from recovery.capture.luks import read_volume
from recovery.capture.md import assemble, parse_superblock, read_member, volume_name
from recovery.capture.ranges import Extent
from recovery.capture.volumes import Volume, find_volume
from recovery.errors import IntegrityError
from recovery.layout import MdArray

SECTOR = 512
DATA = 2048


def superblock(
    *, uuid: bytes = bytes(range(16)), name: str = "host:root", level: int = 1, size: int = 4096, devices: int = 2,
    events: int = 7, role: int = 0, features: int = 0,
) -> bytes:  # fmt: skip
    block = bytearray(512)
    struct.pack_into("<IIII", block, 0, 0xA92B4EFC, 1, features, 0)
    block[16:32] = uuid
    block[32:64] = name.encode().ljust(32, b"\0")
    struct.pack_into("<iIQII", block, 72, level, 0, size, 0, devices)
    struct.pack_into("<QQ", block, 128, DATA, size)
    struct.pack_into("<I", block, 160, role if role < 8 else 0)
    struct.pack_into("<Q", block, 200, events)
    for number in range(8):
        struct.pack_into("<H", block, 256 + 2 * number, number if number < devices else 0xFFFF)
    if role >= 8:
        struct.pack_into("<H", block, 256, role)
    return bytes(block)


def member_file(path: Path, **facts: Any) -> tuple[Extent, ...]:
    path.write_bytes(bytes(4096) + superblock(**facts))
    with path.open("r+b") as file:
        file.truncate((DATA + 4096) * SECTOR)
    return (Extent(path, 0, (DATA + 4096) * SECTOR),)


def test_a_mirror_is_read_on_the_leg_that_is_in_step(tmp_path: Path) -> None:
    found = [
        read_member(f"disk{n}:2", member_file(tmp_path / f"leg{n}", role=n - 1, events=events))
        for n, events in ((1, 9), (2, 40))
    ]
    (array,) = assemble([member for member in found if member])
    assert array.array.members == ("disk2:2",)
    assert (array.array.volume, array.array.level, array.array.devices) == ("md/root", "raid1", 2)
    assert array.extents == (Extent(tmp_path / "leg2", DATA * SECTOR, 4096 * SECTOR),)


def test_legs_that_differ_by_the_last_superblock_write_are_both_in_step(tmp_path: Path) -> None:
    found = [read_member(f"disk{n}:2", member_file(tmp_path / f"leg{n}", role=n - 1, events=40 + n)) for n in (1, 2)]
    (array,) = assemble([member for member in found if member])
    assert array.array.members == ("disk1:2", "disk2:2")


@pytest.mark.parametrize(
    "facts", [{"role": 0xFFFF}, {"role": 0xFFFE}, {"features": 2}], ids=["spare", "faulty", "rebuilt"]
)
def test_a_leg_that_holds_only_a_part_is_not_looked_into(tmp_path: Path, facts: dict[str, int]) -> None:
    member = read_member("disk1:2", member_file(tmp_path / "leg", **facts))
    assert member is not None
    assert not member.in_step
    (array,) = assemble([member])
    assert (array.array.members, array.extents) == ((), ())


def test_stripes_and_short_members_are_not_looked_into(tmp_path: Path) -> None:
    striped = read_member("disk1:2", member_file(tmp_path / "a", level=0))
    where = member_file(tmp_path / "b")
    short = read_member("disk1:2", (Extent(where[0].path, 0, where[0].length - SECTOR),))
    assert striped is not None
    assert short is not None
    assert assemble([striped])[0].extents == ()
    assert assemble([short])[0].extents == ()
    assert parse_superblock(superblock()[:200]) is None


def test_names_of_arrays() -> None:
    root = MdArray(uuid="0a1b2c3d:1:2:3", level="raid1", name="host:root")
    same = MdArray(uuid="ffffffff:1:2:3", level="raid1", name="other:root")
    assert volume_name(root, [root]) == "md/root"
    assert volume_name(root, [root, same]) == "md/0a1b2c3d"
    assert volume_name(MdArray(uuid="0a1b2c3d:1", level="raid1"), []) == "md/0a1b2c3d"
    volume = Volume("md/root", 1, ())
    for spec in ("/dev/md/root", "/dev/md/host:root"):
        assert find_volume(spec, [volume]) == volume
    assert find_volume("/dev/md0", [Volume("md/0", 1, ())]) is not None
    assert find_volume("/dev/md1", [volume]) is None


def luks2(document: object, *, size: int = 16384) -> bytes:
    head = bytearray(4096)
    head[:6] = b"LUKS\xba\xbe"
    struct.pack_into(">HQ", head, 6, 2, size)
    head[168:208] = b"b5414a77-6ae6-4e16-8451-ebd9c6b6255a".ljust(40, b"\0")
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return bytes(head) + text.ljust(size - 4096, b"\0")


def on(path: Path, data: bytes) -> tuple[Extent, ...]:
    path.write_bytes(data)
    return (Extent(path, 0, len(data)),)


DOCUMENT = {
    "keyslots": {
        "0": {"type": "luks2", "kdf": {"type": "argon2id", "memory": 1048576}},
        "1": {"type": "luks2", "kdf": {"type": "pbkdf2"}},
    },
    "tokens": {"0": {"type": "systemd-tpm2"}, "1": {"type": "systemd-tpm2"}},
    "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "encryption": "aes-xts-plain64"}},
}


def test_a_luks2_header(tmp_path: Path) -> None:
    volume = read_volume("disk1:3", on(tmp_path / "x", luks2(DOCUMENT)), "disk1", 5)
    assert volume is not None
    assert (volume.version, volume.uuid) == (2, "b5414a77-6ae6-4e16-8451-ebd9c6b6255a")
    assert (volume.disk, volume.offset, volume.header) == ("disk1", 5, 16777216)
    assert (volume.cipher, volume.slots, volume.memory) == ("aes-xts-plain64", 2, 1 << 30)
    assert volume.tokens == ("systemd-tpm2",)


@pytest.mark.parametrize("document", [b"no json", {}, [], {**DOCUMENT, "segments": {"0": {}}}])
def test_a_broken_luks2_header_is_one_error(tmp_path: Path, document: object) -> None:
    with pytest.raises(IntegrityError, match="disk1:3 cannot be read"):
        read_volume("disk1:3", on(tmp_path / "x", luks2(document)), "disk1", 0)


def test_headers_that_make_no_sense(tmp_path: Path) -> None:
    good = luks2(DOCUMENT)
    huge = good[:8] + struct.pack(">Q", 1 << 40) + good[16:]
    with pytest.raises(IntegrityError, match="makes no sense"):
        read_volume("disk1:3", on(tmp_path / "x", huge), "disk1", 0)
    with pytest.raises(IntegrityError, match="version 3"):
        read_volume("disk1:3", on(tmp_path / "x", good[:6] + b"\0\3" + good[8:]), "disk1", 0)
    assert read_volume("disk1:3", on(tmp_path / "x", bytes(8192)), "disk1", 0) is None
    assert read_volume("disk1:3", on(tmp_path / "x", good[:1000]), "disk1", 0) is None


def test_a_luks1_header(tmp_path: Path) -> None:
    head = bytearray(4096)
    head[:8] = b"LUKS\xba\xbe\0\1"
    head[8:11], head[40:51] = b"aes", b"xts-plain64"
    struct.pack_into(">I", head, 104, 4096)
    head[168:172] = b"uuid"
    struct.pack_into(">I", head, 208, 0x00AC71F3)
    struct.pack_into(">I", head, 256, 0x0000DEAD)
    volume = read_volume("vg/x", on(tmp_path / "x", bytes(head)), "", 0)
    assert volume is not None
    assert (volume.version, volume.cipher, volume.slots, volume.header) == (1, "aes-xts-plain64", 1, 4096 * 512)
