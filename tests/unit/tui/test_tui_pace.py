"""The console follows a run without taking the processor from it."""

from __future__ import annotations

from recovery.tui.pace import LONGEST, SHARE, Pace


class Machine:
    """A wall clock, and a processor on which a frame costs ``frame`` seconds."""

    def __init__(self, frame: float) -> None:
        self.now, self.used, self.frame = 100.0, 5.0, frame

    def frames(self, seconds: float, tick: float = 0.25) -> int:
        """How many frames are drawn in that time, asked every ``tick`` seconds."""
        pace, drawn = Pace(lambda: self.now, lambda: self.used), 0
        end = self.now + seconds
        while self.now < end:
            if pace.due():
                pace.drawing()
                drawn += 1
                self.used += self.frame
                self.now += self.frame
                pace.drawn()
            self.now += tick
        return drawn


def test_a_quick_machine_draws_at_every_tick() -> None:
    assert Machine(frame=0.01).frames(60) > 220


def test_a_slow_one_draws_as_often_as_its_share_allows() -> None:
    machine = Machine(frame=0.5)
    assert 8 <= machine.frames(60) <= 60 * SHARE / 0.5 + 1


def test_nobody_waits_longer_than_the_limit() -> None:
    assert Machine(frame=5.0).frames(60) >= 60 / (LONGEST + 5) - 1
