"""Disks as pictures, and the rate graph: what is drawn is right, and readable without colour."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.layout import Content, Partition, PartitionTable
from recovery.machine.model import load_machine
from recovery.tui.glyphs import DRAWABLE
from recovery.tui.graph import bars, rates
from recovery.tui.picture import Segment, after_on, draw, labelled, legend, now_on, segments, widths
from recovery.units import GIB, MIB
from tests.unit.tui.fake_world import BLANK, MACHINE, USED, make_point

MACHINES = sorted((Path(__file__).parents[2] / "machines").glob("*.json"))


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [60, 76, 156])
def test_every_disk_of_every_recorded_machine(path: Path, width: int) -> None:
    machine = load_machine(path)
    for disk in machine.disks:
        lines = labelled("Now", now_on(disk, machine), width)
        assert {len(line) for line in lines[:3]} == {width}
        assert set("".join(lines)) <= DRAWABLE
        # Each partition is named: in its box, or in the line below.
        for part in (p for p in disk.table.partitions if p.type not in ("5", "f", "05", "0f")):
            assert f"{part.number}" in lines[0] + "".join(lines[3:]), (disk.path, part)


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=60), st.integers(20, 200))
def test_boxes_fill_the_width_exactly(sizes: list[int], width: int) -> None:
    found = [Segment(size, "ext4 'a'", str(number)) for number, size in enumerate(sizes, 1)]
    lines = draw(found, width)
    assert [len(line) for line in lines] == [width] * 3
    assert lines[0][0] + lines[0][-1] + lines[2][0] + lines[2][-1] == "┌┐└┘"
    assert lines[0].count("┬") == lines[1].count("│") - 2 == lines[2].count("┴")
    legend(found, width)


def test_widths_are_proportional_and_nothing_vanishes() -> None:
    assert sum(widths([1, 10**12], 60)) == 60
    assert min(widths([1, 10**12], 60)) >= 4
    small, large = widths([25 * GIB, 75 * GIB], 100)
    assert abs(large / small - 3) < 0.4


def test_what_does_not_fit_in_its_box_is_told_below() -> None:
    found = now_on(USED, MACHINE)
    assert [part.name for part in found] == ["FAT", "ext4 'archive'", "free"]
    assert legend(found, 70) == "1 FAT 512 MiB"
    assert "1 FAT 512 MiB" in "\n".join(labelled("Now", found, 76))


def test_after_the_restore_the_last_partition_grows_or_the_rest_is_free() -> None:
    point = make_point(4)
    source = point.body.disks[0]
    grown = after_on(source, point, BLANK, grow=True)
    assert [part.name for part in grown] == ["EFI", "ext4 'root'", "LVM vg0"]
    assert grown[-1].remark == "grows"
    assert sum(part.size for part in grown) + MIB == BLANK.size
    left = after_on(source, point, BLANK, grow=False)
    assert [part.name for part in left][-2:] == ["LVM vg0", "free"]
    assert left[-2].size == source.table.partitions[-1].size


def test_gaps_extended_partitions_and_blank_disks() -> None:
    table = PartitionTable(
        kind="mbr",
        partitions=(
            Partition(number=1, start=MIB, size=GIB, type="83", content=Content(kind="xfs")),
            Partition(number=2, start=4 * GIB, size=4 * GIB, type="5"),
            Partition(number=5, start=4 * GIB + MIB, size=3 * GIB, type="83"),
        ),
    )
    found = segments(table, Content(), 8 * GIB)
    assert [(part.number, part.name) for part in found] == [
        ("1", "xfs"), ("", "free"), ("5", "not recognised"), ("", "free"),
    ]  # fmt: skip
    assert [part.name for part in segments(PartitionTable(), Content(), GIB)] == ["blank"]
    assert [part.name for part in segments(PartitionTable(), Content(kind="ext4"), GIB)] == ["ext4"]


def test_the_rate_graph_is_even_where_the_rate_is() -> None:
    history = [(float(second), second * 100.0) for second in range(61)]
    found = rates(history, 30)
    assert len(found) == 30
    assert all(abs(rate - 100) < 1e-6 for rate in found)
    assert bars(found, 2) == ["█" * 30, "█" * 30]
    assert rates(history[:1], 30) == []
    assert len(rates(history[:4], 30)) == 3


def test_a_pause_is_seen_and_the_top_is_the_highest_rate() -> None:
    history = [(0.0, 0.0), (10.0, 1000.0), (20.0, 1000.0), (30.0, 1500.0)]
    found = rates(history, 30)
    assert [round(rate) for rate in found] == [100] * 10 + [0] * 10 + [50] * 10
    top, bottom = bars(found, 2)
    assert top == "█" * 10 + " " * 20
    assert bottom == "█" * 10 + " " * 10 + "█" * 10
    assert bars([1.0, 1000.0], 1) == ["▁█"]  # what is not nothing is seen


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e12)), max_size=50), st.integers(0, 100), st.integers(1, 4))
def test_any_history_can_be_drawn(history: list[tuple[float, float]], columns: int, rows: int) -> None:
    found = rates(sorted(history), columns)
    assert len(found) <= columns
    lines = bars(found, rows)
    assert [len(line) for line in lines] == [len(found)] * rows
    assert set("".join(lines)) <= DRAWABLE
