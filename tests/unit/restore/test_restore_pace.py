"""How many reads at once: each kind of source gets what it wants, also when its rate trembles."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from recovery.errors import CancelledError
from recovery.restore.disk import reader_limit
from recovery.restore.pace import Gate, Pace, Tuner

MIB, GIB = 2**20, 2**30
#: What the decoders take at most, MB/s.
DEMAND = 500.0


def usb_disk(readers: int) -> float:
    """One sequential reader; each more costs seeks (USB disks were measured at a quarter with ten)."""
    return 150 * 0.85 ** (readers - 1)


def far_store(readers: int) -> float:
    return 70.0 * readers


def link(readers: int) -> float:
    return min(118.0, 60.0 * readers)


def mirror(readers: int) -> float:
    """Two disks, and a third reader disturbs."""
    return {1: 150.0, 2: 290.0}.get(readers, 290 * 0.9 ** (readers - 2))


def broken_by_many(readers: int) -> float:
    """More than six make it collapse."""
    return 70.0 * readers if readers <= 6 else 100.0


def run(
    source: Callable[[int], float],
    first: int,
    *,
    most: int = 12,
    periods: int = 240,
    noise: float = 0.0,
    seed: int = 1,
) -> tuple[list[int], float]:
    """The levels, and the mean rate after the first ten seconds as a share of the best there is."""
    rng, tuner = random.Random(seed), Tuner(first, most)  # noqa: S311
    levels, rates = [tuner.level], []
    for _ in range(periods):
        rate = min(DEMAND, source(tuner.level))
        rates.append(rate)
        levels.append(tuner.step(rate * rng.uniform(1 - noise, 1 + noise), rate < DEMAND))
    best = max(min(DEMAND, source(level)) for level in range(1, most + 1))
    return levels, sum(rates[40:]) / len(rates[40:]) / best


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("first", [1, 3, 8])
@pytest.mark.parametrize("source", [usb_disk, far_store, link, mirror, broken_by_many])
def test_every_source_gets_what_it_wants(source: Callable[[int], float], first: int, noise: float) -> None:
    for seed in range(5):
        levels, share = run(source, first, noise=noise, seed=seed)
        assert all(1 <= level <= 12 for level in levels)
        assert share >= 0.93, (levels, share)


def test_a_far_store_is_at_full_speed_within_three_seconds() -> None:
    levels, _ = run(far_store, 3)
    assert max(levels[:6]) >= 8


def test_a_usb_disk_keeps_its_one_reader() -> None:
    levels, _ = run(usb_disk, 1, periods=600)
    assert sum(level > 1 for level in levels) <= 10


def test_one_that_feeds_the_decoders_is_left_alone() -> None:
    levels, _ = run(lambda readers: 2000.0, 3)
    assert set(levels) == {3}


def test_a_source_that_becomes_better_or_worse_is_noticed() -> None:
    tuner = Tuner(1, 12)
    for _ in range(300):
        tuner.step(usb_disk(tuner.level), True)
    for _ in range(300):
        tuner.step(far_store(tuner.level), far_store(tuner.level) < DEMAND)
    assert far_store(tuner.level) >= 0.9 * DEMAND


def test_silence_is_no_reason_for_more() -> None:
    tuner = Tuner(3, 12)
    assert {tuner.step(0.0, True) for _ in range(100)} == {3}


def test_memory_limits_the_readers() -> None:
    assert reader_limit(4, 8 * GIB) == 12
    assert reader_limit(2, 512 * MIB) == 2
    assert reader_limit(2, 64 * MIB) == 1


def test_a_gate_lets_so_many_through_and_its_limit_can_grow() -> None:
    stop, most, inside, lock = threading.Event(), [0], [0], threading.Lock()
    gate = Gate(2, stop)

    def go() -> None:
        for _ in range(20):
            with gate.passed():
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.002)
                with lock:
                    inside[0] -= 1

    def all_of_them() -> int:
        most[0] = 0
        threads = [threading.Thread(target=go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return most[0]

    assert all_of_them() == 2
    assert gate.busy() >= 8 * 20 * 0.002
    gate.limit = 5
    assert all_of_them() == 5


def test_waiting_at_a_gate_ends_with_the_restore() -> None:
    stop = threading.Event()
    gate = Gate(0, stop)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(CancelledError), gate.passed():
        pass
    assert stop.is_set()


def test_a_number_of_workers_that_was_given_stays() -> None:
    pace = Pace(3, 3, threading.Event())
    for _ in range(1000):
        pace.arrived(10**9)
    assert (pace.threads, pace.reading.limit, pace.decoding.limit) == (3, 3, 3)


def test_reads_that_end_change_the_number_of_readers() -> None:
    """A far store in real time: every read takes its time, whoever waits."""
    pace = Pace(2, 2, threading.Event(), most=8)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with pace.reading.passed():
                time.sleep(0.05)
            pace.arrived(MIB)

    threads = [threading.Thread(target=read) for _ in range(10)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while pace.reading.limit < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert pace.reading.limit == 8
    assert pace.threads == 10
