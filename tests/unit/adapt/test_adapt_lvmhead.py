"""LVM's metadata written for a smaller physical volume: what changes, what stays, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.adapt.lvmhead import new_head, write_config
from recovery.capture.lvm import read_groups, read_pv
from recovery.capture.lvmtext import parse_config
from recovery.capture.ranges import Extent
from recovery.errors import IntegrityError
from recovery.layout import LvmSegment, VolumePlacement
from tests.unit.capture.test_capture_lvm import MIB, UUID, pv_image

TEXT = (
    f"""
vg {{ id = "VgVgVg-0000-0000-0000-0000-0000-000000" seqno = 7 format = "lvm2" status = ["RESIZEABLE", "READ", "WRITE"]
flags = [] extent_size = 2048 max_lv = 0 tags = ["a b", "c\\"d"]
physical_volumes {{ pv0 {{ id = "{UUID}" device = "/dev/sda2" dev_size = 24576 pe_start = 2048 pe_count = 11 }} }}
logical_volumes {{
 root {{ id = "R" status = ["READ", "WRITE", "VISIBLE"] creation_time = 17 segment_count = 2
  segment1 {{ start_extent = 0 extent_count = 2 type = "striped" stripe_count = 1 stripes = ["pv0", 6] }}
  segment2 {{ start_extent = 2 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv0", 0] }} }}
 data {{ id = "D" status = ["READ", "VISIBLE"] segment_count = 1
  segment1 {{ start_extent = 0 extent_count = 4 type = "striped" stripe_count = 1 stripes = ["pv0", 1] }} }}
}} }}
# Generated
""".encode()
    + b"\0"
)
ROOT = VolumePlacement(
    name="root", group="vg", old=(LvmSegment(offset=7 * MIB, size=2 * MIB), LvmSegment(offset=MIB, size=MIB)),
    old_size=3 * MIB, start=MIB, size=3 * MIB,
)  # fmt: skip
DATA = VolumePlacement(
    name="data", group="vg", old=(LvmSegment(offset=2 * MIB, size=4 * MIB),), old_size=4 * MIB, start=4 * MIB,
    size=2 * MIB,
)  # fmt: skip


def captured(folder: Path, start: int = 512) -> bytes:
    image = pv_image(folder / "pv", TEXT, start=start)
    data = bytearray(image.read_bytes())
    from recovery.capture.lvm import lvm_crc

    data[512 + 16 : 512 + 20] = lvm_crc(bytes(data[512 + 20 : 1024])).to_bytes(4, "little")
    return bytes(data[:MIB])


@pytest.mark.parametrize("start", [512, 7900])  # also a text that goes around the end of the ring
def test_places_and_sizes_change_and_all_else_stays(tmp_path: Path, start: int) -> None:
    head = new_head(captured(tmp_path, start), 6 * MIB + 512, (ROOT, DATA))
    assert len(head) == MIB and head[512:520] == b"LABELONE"
    (tmp_path / "new").write_bytes(head.ljust(6 * MIB + 512, b"\0"))
    pv = read_pv((Extent(tmp_path / "new", 0, 6 * MIB + 512),))
    assert pv is not None and pv.uuid == UUID
    ((group,), mapped) = read_groups([pv])
    assert (group.size, group.free) == (5 * MIB, 0)
    assert {lv.volume.name: [(e.offset, e.length) for e in lv.extents] for lv in mapped} == {
        "root": [(MIB, 3 * MIB)], "data": [(4 * MIB, 2 * MIB)],
    }  # fmt: skip
    old, new = parse_config(TEXT.decode().rstrip("\0"))["vg"], parse_config(pv.metadata)["vg"]
    assert new["seqno"] == 8 and new["tags"] == ["a b", 'c"d'] and new["flags"] == []
    assert new["logical_volumes"]["root"]["creation_time"] == 17
    assert new["logical_volumes"]["data"]["status"] == ["READ", "VISIBLE"]
    assert new["physical_volumes"]["pv0"]["dev_size"] == 6 * 2048 + 1
    assert {k for k in old if k not in ("seqno", "physical_volumes", "logical_volumes") and old[k] != new[k]} == set()


def test_what_is_not_as_the_point_says_is_refused(tmp_path: Path) -> None:
    good = captured(tmp_path)
    moved = VolumePlacement(
        name="data", group="vg", old=(LvmSegment(offset=3 * MIB, size=4 * MIB),), old_size=4 * MIB, start=0, size=1
    )
    cases = (
        (bytes(MIB), (ROOT, DATA), "no label"),
        (good[:700] + b"x" + good[701:], (ROOT, DATA), "label has a wrong checksum"),
        (good[:4096] + b"x" + good[4097:], (ROOT, DATA), "header of its metadata"),
        (good[:4700] + b"x" + good[4701:], (ROOT, DATA), "metadata has a wrong checksum"),
        (good, (ROOT,), "not those of the recovery point"),
        (good, (ROOT, moved), "data does not lie where"),
        (good[:8192], (ROOT, DATA), "behind its volumes"),
    )
    for old, volumes, why in cases:
        with pytest.raises(IntegrityError, match=why):
            new_head(old, 6 * MIB, volumes)


def test_the_language_is_read_back() -> None:
    section = {"a": 1, "b": 'x "y" \\z', "c": [], "d": {"e": ["f", 2], "g": {}}}
    assert parse_config(write_config(section)) == section
