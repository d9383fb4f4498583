"""The parts of the bench's row about continuous capture that take seconds, on little data. Their figures say nothing
here; what holds at any size is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recovery.capture.tracking.choose import open_tracker
from recovery.capture.tracking.witness import tracked_disk
from recovery.units import MIB
from tests.bench.bench import Bench
from tests.bench.live_memory import memory
from tests.bench.live_scale import TINY
from tests.bench.live_stored import CHUNKS, IDEAL, KEYFRAME, OURS, stored
from tests.bench.tracked import loop_disk
from tests.bench.vast import SIZES

pytestmark = pytest.mark.root


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    if os.geteuid() != 0:
        pytest.skip("loop devices and freezing need root")
    with loop_disk(tmp_path / "probe", 64 * MIB) as disk:
        told: list[str] = []
        tracker = open_tracker([tracked_disk("disk1", Path(disk.device))], told.append, ("ebpf",))
        if tracker is None:
            pytest.skip(f"changed blocks cannot be tracked by eBPF here: {told}")
        tracker.close()
    return Bench(tmp_path / "data", samples=1, say=lambda text: None, live=TINY)


@pytest.mark.slow
def test_stored_bytes_stand_beside_the_least_that_they_could_be(bench: Bench, tmp_path: Path) -> None:
    found, goals, text = stored(bench, tmp_path)
    by_name = {one.name: one for one in found}
    assert [len(by_name[name].samples) for name in (OURS, IDEAL, CHUNKS, KEYFRAME)] == [2, 2, 2, 1]
    for ours, ideal, chunks in zip(*(by_name[name].samples for name in (OURS, IDEAL, CHUNKS)), strict=True):
        assert 0 < ideal.figures["stored"] <= ours.figures["stored"]
        assert ideal.figures["changed"] <= chunks.figures["changed"]
    assert [goal.what for goal in goals if goal.measured is None] == []
    assert "2 minutes" in text


def test_twenty_tebibytes_are_tracked_and_every_write_is_seen(bench: Bench, tmp_path: Path) -> None:
    (measured,), (goal,) = memory(bench, tmp_path)
    figures = measured.samples[0].figures
    # Two maps of one bit a block.
    assert figures["maps_of_the_kernel"] >= 2 * sum(SIZES.values()) / figures["block_size"] / 8
    assert figures["tracker_memory"] > figures["maps_of_the_kernel"] and goal.met
    assert 0.9 * TINY.memory_writes < figures["changed_ranges"] <= TINY.memory_writes
