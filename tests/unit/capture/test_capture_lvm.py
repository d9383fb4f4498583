"""LVM metadata: the language, the PV label and ring, and where an LV's bytes lie."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.lvm import PhysicalVolume, lvm_crc, read_groups, read_pv
from recovery.capture.lvmtext import LvmSyntaxError, parse_config
from recovery.capture.ranges import Extent, cut, read_extents, total
from recovery.capture.thin import ThinPlace
from recovery.errors import IntegrityError

MIB = 1024 * 1024
UUID = "AbcdeF-0123-4567-89ab-cdef-ghij-KLMNOP"

_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_+.-]{0,12}", fullmatch=True)
_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
_scalars = st.integers(-(2**63), 2**63) | _texts
_sections = st.recursive(
    st.dictionaries(_names, _scalars | st.lists(_scalars, max_size=4), max_size=4),
    lambda inner: st.dictionaries(_names, inner | _scalars, max_size=4),
    max_leaves=8,
)


def write_config(section: dict[str, Any]) -> str:
    def scalar(value: str | int) -> str:
        return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = []
    for name, value in section.items():
        if isinstance(value, dict):
            lines.append(f'{name} {{ # a comment with }} and "\n{write_config(value)}\n}}')
        elif isinstance(value, list):
            lines.append(f"{name} = [{', '.join(scalar(item) for item in value)}]")
        else:
            lines.append(f"{name}={scalar(value)}\t# more")
    return "\n".join(lines)


@given(_sections)
def test_the_language_round_trips(section: dict[str, Any]) -> None:
    assert parse_config(write_config(section)) == section


@pytest.mark.parametrize("text", ["a {", "a }", "a =", "a", "= 1", 'a = "x', "a = [1", "a = }", "} a = 1"])
def test_what_is_no_metadata_is_refused(text: str) -> None:
    with pytest.raises(LvmSyntaxError):
        parse_config(text)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), min_size=1, max_size=6),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_cutting_extents_takes_the_same_bytes_as_cutting_the_whole(
    pieces: list[tuple[int, int]], offset: int, length: int
) -> None:
    extents = [Extent(Path("x"), start, size) for start, size in pieces]
    flat = [extent.offset + n for extent in extents for n in range(extent.length)]
    taken = [piece.offset + n for piece in cut(extents, offset, length) for n in range(piece.length)]
    assert taken == flat[offset : offset + length]


def pv_image(path: Path, text: bytes, *, start: int, area: int = 8192, sector: int = 1) -> Path:
    """A PV with one metadata area of ``area`` bytes at 4096, whose text begins at ``start`` and may wrap around."""
    ring = bytearray(area)
    locn = struct.pack("<QQII", start, len(text), lvm_crc(text), 0) + bytes(24)
    header = b" LVM2 x[5A%r0N*>" + struct.pack("<IQQ", 1, 4096, area) + locn
    header = header.ljust(508, b"\0")
    ring[:512] = struct.pack("<I", lvm_crc(header)) + header
    for position, byte in enumerate(text):
        ring[512 + (start - 512 + position) % (area - 512)] = byte
    label = b"LABELONE" + struct.pack("<QII", sector, 0, 32) + b"LVM2 001"
    label += UUID.replace("-", "").encode() + struct.pack("<Q", 12 * MIB)
    label += struct.pack("<QQQQ", MIB, 0, 0, 0) + struct.pack("<QQQQ", 4096, area, 0, 0)
    data = bytearray(12 * MIB)
    data[sector * 512 : sector * 512 + len(label)] = label
    data[4096 : 4096 + area] = ring
    path.write_bytes(data)
    return path


def vg_text(volumes: str = "", *, seqno: int = 1, pv: str = UUID, extents: int = 60, unit: int = MIB) -> str:
    return (
        f'vg {{ id = "vg-id"\nseqno = {seqno}\nextent_size = {unit // 512}\n'
        f'physical_volumes {{ pv0 {{ id = "{pv}"\npe_start = {unit // 512}\npe_count = {extents} }} }}\n'
        f"logical_volumes {{ {volumes} }} }}\n"
    )


def lv_text(name: str, segments: list[tuple[int, int, int]], kind: str = "striped", status: str = "VISIBLE") -> str:
    parts = "".join(
        f'segment{number} {{ start_extent = {at}\nextent_count = {count}\ntype = "{kind}"\n'
        f'stripe_count = 1\nstripes = ["pv0", {first}] }}\n'
        for number, (at, count, first) in enumerate(segments, 1)
    )
    return f'{name} {{ id = "lv"\nstatus = ["READ", "{status}"]\n{parts} }}\n'


@pytest.mark.parametrize("start", [512, 5000, 8000, 8190])
def test_metadata_is_read_wherever_the_ring_begins(tmp_path: Path, start: int) -> None:
    text = vg_text(lv_text("root", [(0, 3, 5)])).encode()
    path = pv_image(tmp_path / "pv", text, start=start)
    pv = read_pv([Extent(path, 0, 12 * MIB)])
    assert pv is not None
    assert (pv.uuid, pv.metadata) == (UUID, text.decode())
    groups, mapped = read_groups([pv])
    assert mapped[0].extents == (Extent(path, 6 * MIB, 3 * MIB),)
    assert (groups[0].size, groups[0].free) == (60 * MIB, 57 * MIB)


def test_a_flipped_bit_in_the_metadata_is_noticed(tmp_path: Path) -> None:
    path = pv_image(tmp_path / "pv", vg_text().encode(), start=512)
    with path.open("r+b") as file:
        file.seek(4096 + 512 + 20)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(IntegrityError, match="wrong checksum"):
        read_pv([Extent(path, 0, 12 * MIB)])


def test_no_label_is_no_pv(tmp_path: Path) -> None:
    path = tmp_path / "blank"
    path.write_bytes(bytes(MIB))
    assert read_pv([Extent(path, 0, MIB)]) is None


@settings(deadline=None)
@given(st.data())
def test_an_lv_reads_as_its_segments_one_after_another(data: st.DataObject) -> None:
    """Whatever the order of segments on the PV, and however the PV itself is cut into pieces of files."""
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    places = data.draw(st.permutations(range(len(counts))))
    firsts = dict(zip(places, [sum(counts[p] for p in places[:n]) for n in range(len(places))], strict=True))
    segments, at = [], 0
    for number, count in enumerate(counts):
        segments.append((at, count, firsts[number]))
        at += count
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        content = b"".join(bytes([n % 251]) * 512 for n in range(8 * 30))
        path.write_bytes(content)
        middle = data.draw(st.integers(1, 40)) * 512
        where = (Extent(path, 512, middle), Extent(path, 512 + middle, len(content) - 512 - middle))
        pv = PhysicalVolume(UUID, where, vg_text(lv_text("lv", segments), extents=at, unit=4096))
        _, mapped = read_groups([pv])
        begin = 512 + 4096
        expected = b"".join(
            content[begin + first * 4096 : begin + (first + count) * 4096] for _, count, first in segments
        )
        assert total(mapped[0].extents) == mapped[0].volume.size
        assert read_extents(mapped[0].extents, 0, mapped[0].volume.size) == expected


def test_the_newest_metadata_wins_and_hidden_lvs_are_left_out() -> None:
    where = (Extent(Path("a"), 0, 100 * MIB),)
    old = PhysicalVolume(UUID, where, vg_text(lv_text("old", [(0, 1, 0)]), seqno=3))
    new = PhysicalVolume(
        "other", where, vg_text(lv_text("new", [(0, 1, 0)]) + lv_text("hidden", [(0, 1, 1)], status="READ"), seqno=4)
    )
    groups, mapped = read_groups([old, new])
    assert [lv.name for lv in mapped] == ["vg/new"]
    assert len(groups) == 1


def test_an_lv_that_cannot_be_read_has_no_extents() -> None:
    where = (Extent(Path("a"), 0, 10 * MIB),)
    text = vg_text(
        lv_text("thin", [(0, 4, 0)], kind="thin") + lv_text("cut", [(0, 4, 8)]) + lv_text("whole", [(0, 4, 0)])
    )
    _, mapped = read_groups([PhysicalVolume(UUID, where, text)])
    assert {lv.volume.name: (lv.volume.segment, bool(lv.extents)) for lv in mapped} == {
        "thin": ("thin", False),
        "cut": ("linear", False),
        "whole": ("linear", True),
    }
    _, elsewhere = read_groups([PhysicalVolume("another", where, text)])
    assert not any(lv.extents for lv in elsewhere)


def test_nonsense_that_passes_its_checksum_is_an_integrity_error() -> None:
    where = (Extent(Path("a"), 0, MIB),)
    with pytest.raises(IntegrityError):
        read_groups([PhysicalVolume(UUID, where, "vg { physical_volumes { } }")])
    with pytest.raises(IntegrityError):
        read_groups([PhysicalVolume(UUID, where, "vg {")])


def test_a_vg_on_two_disks_is_read_from_both_and_missed_when_one_is_absent() -> None:
    other = "Second-0123-4567-89ab-cdef-ghij-KLMNOP"
    text = vg_text(lv_text("lv", [(0, 2, 1), (2, 3, 4)])).replace(
        "pv0 { id", f'pv1 {{ id = "{other}"\npe_start = 4096\npe_count = 60 }} pv0 {{ id', 1
    )
    # The second segment lies on the second disk.
    text = text.replace('["pv0", 4]', '["pv1", 4]')
    first = PhysicalVolume(UUID, (Extent(Path("a"), 0, 90 * MIB),), text)
    second = PhysicalVolume(other, (Extent(Path("b"), 512, 90 * MIB),), text)
    groups, mapped = read_groups([first, second])
    assert mapped[0].extents == (
        Extent(Path("a"), 2 * MIB, 2 * MIB),
        Extent(Path("b"), 512 + 6 * MIB, 3 * MIB),
    )
    assert groups[0].pv_uuids == (other, UUID)
    assert groups[0].size == 120 * MIB
    _, alone = read_groups([first])
    assert alone[0].extents == ()


def thin_group(more: str = "") -> str:
    parts = [lv_text("pool_tmeta", [(0, 1, 0)], status="WRITE"), lv_text("pool_tdata", [(0, 8, 1)], status="WRITE")]
    pool = 'type = "thin-pool"\nmetadata = "pool_tmeta"\npool = "pool_tdata"\ntransaction_id = 5'
    thin = f'type = "thin"\nthin_pool = "pool"\ndevice_id = 1{more}'
    parts += [f'{name} {{ id = "lv"\nstatus = ["READ", "{status}"]\n'
              f"segment1 {{ start_extent = 0\nextent_count = 8\n{words} }} }}\n"
              for name, words, status in (("pool", pool, "VISIBLE"), ("web", thin, "VISIBLE"))]  # fmt: skip
    return vg_text("".join(parts))


def test_a_thin_volume_says_where_its_pool_lies(tmp_path: Path) -> None:
    path = pv_image(tmp_path / "pv", thin_group().encode(), start=512)
    pv = read_pv([Extent(path, 0, 12 * MIB)])
    assert pv is not None
    (web,) = [each for each in read_groups([pv])[1] if each.volume.name == "web"]
    assert web.thin == ThinPlace((Extent(path, MIB, MIB),), (Extent(path, 2 * MIB, 8 * MIB),), 1, 5)


def test_what_a_snapshot_is_merged_into_is_not_read(tmp_path: Path) -> None:
    """From its next start on it has the snapshot's content, not that of its own number; the snapshot is hidden."""
    snapshot = ('old { id = "s"\nstatus = ["READ", "WRITE"]\nsegment1 { start_extent = 0\nextent_count = 8\n'
                'type = "thin"\nthin_pool = "pool"\ndevice_id = 2\nmerge = "web" } }\n')  # fmt: skip
    text = thin_group().replace("logical_volumes { ", "logical_volumes { " + snapshot)
    path = pv_image(tmp_path / "pv", text.encode(), start=512)
    pv = read_pv([Extent(path, 0, 12 * MIB)])
    assert pv is not None
    (web,) = [each for each in read_groups([pv])[1] if each.volume.name == "web"]
    assert web.thin is None
    # Nor is one that has its unwritten chunks from elsewhere.
    path = pv_image(tmp_path / "pv2", thin_group('\nexternal_origin = "base"').encode(), start=512)
    pv = read_pv([Extent(path, 0, 12 * MIB)])
    assert pv is not None
    assert all(each.thin is None for each in read_groups([pv])[1])
