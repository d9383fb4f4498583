"""How much of everything the row ``capture-live`` takes."""

from __future__ import annotations

from dataclasses import dataclass

from recovery.units import MIB


@dataclass(frozen=True)
class LiveScale:
    """``pairs`` of runs of fio of ``seconds`` each, with a point every ``interval`` seconds in one of three, a run as
    long; ``windows`` of one minute (``window`` seconds, and so often a point) for CPU-seconds; an hour of ``minutes``
    for stored bytes; ``freezes`` of each filesystem; ``points`` that must be prefixes."""

    pairs: int = 7
    seconds: float = 15.0
    interval: float = 60.0
    window: float = 60.0
    windows: int = 2
    minutes: int = 60
    freezes: int = 100
    points: int = 200
    table: int = 256 * MIB
    fio_file: int = 256 * MIB
    memory_writes: int = 4000


#: Whether the row works at all; seconds. Its figures say nothing.
TINY = LiveScale(
    pairs=1, seconds=1.0, interval=1.0, window=2.0, windows=1, minutes=2, freezes=3, points=3, table=16 * MIB,
    fio_file=32 * MIB, memory_writes=50,
)  # fmt: skip
