"""What every tracker keeps of each disk besides its changes: doubts, and the counters that it compares. Pure but for
the look at sysfs in ``witness``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from recovery.capture.tracking import witness
from recovery.capture.tracking.model import Doubt, TrackedDisk
from recovery.capture.tracking.witness import Totals

#: Times to look, and seconds between, until two looks agree that nothing is being written.
_LOOKS = 30
_PAUSE = 0.0005


@dataclass(frozen=True)
class Seen:
    """What one observer saw of a disk, as ``Totals``, and how many events of any disk it missed for a known and
    harmless reason (another observer saw them)."""

    totals: Totals
    misses: int = 0


def difference(kernel: Totals, observers: list[Seen]) -> str:
    """Why the observers together did not see all that the kernel counted; empty when they did. All figures are
    growths since the same moment.

    An observer that missed nothing must agree exactly. When each of them missed something, none can: then what
    each lacks must be explained by what it is known to have missed.
    """
    sure = [seen for seen in observers if seen.misses == 0]
    if sure:
        best = max(sure, key=lambda seen: seen.totals.written + seen.totals.discarded).totals
        if (best.written, best.discarded) == (kernel.written, kernel.discarded):
            return ""
        return (
            f"{best.written} sectors written and {best.discarded} discarded were seen, "
            f"the kernel counted {kernel.written} and {kernel.discarded}"
        )
    for seen in observers:
        lacking = kernel.requests - seen.totals.requests
        if lacking > seen.misses:
            return f"{lacking} requests were not seen, of which only {seen.misses} are explained"
        if seen.totals.written > kernel.written or seen.totals.discarded > kernel.discarded:
            return "more was seen than the kernel counted"
    return ""


class Ledger:
    """One disk's doubt and the base of its counters. ``look`` gives what the tracker's observers saw so far."""

    def __init__(self, disk: TrackedDisk, look: Callable[[], list[Seen]]) -> None:
        self.disk = disk
        self._look = look
        self._base: tuple[Totals, list[Seen]] | None = None
        self._doubt: Doubt | None = Doubt(cause="new", text=f"'{disk.path}' was not tracked until now")

    def set_doubt(self, doubt: Doubt) -> None:
        """The first doubt stays."""
        self._doubt = self._doubt or doubt

    def doubt(self) -> Doubt | None:
        """The doubt, after a look at the device."""
        if self._doubt is None:
            self._doubt = witness.changed_device(self.disk) or witness.untrackable(self.disk)
        return self._doubt

    def renew(self) -> None:
        """Forget the doubt; the counters count from now."""
        self._doubt = None
        self._base = self._sample()

    def check(self) -> bool:
        """Compare; see ``Tracker.check``. The disk's next comparison counts from this one."""
        now = self._sample()
        if now is None:
            return False
        base, self._base = self._base, now
        if base is None:
            # At renew() it was written without a pause. What was seen since then cannot be proven; from now on it can.
            self.set_doubt(Doubt(cause="counters", text=f"the counters of '{self.disk.path}' had no common start"))
            return True
        grown = [
            Seen(_minus(new.totals, old.totals), new.misses - old.misses)
            for new, old in zip(now[1], base[1], strict=True)
        ]
        if why := difference(_minus(now[0], base[0]), grown):
            self.set_doubt(Doubt(cause="counters", text=f"writes to '{self.disk.path}' were missed: {why}"))
        return True

    def _sample(self) -> tuple[Totals, list[Seen]] | None:
        """The kernel's counters and ours of the same moment: one around which nothing completed.

        Twice with a pause, because a completion is seen a little before it is counted.
        """
        last: tuple[Totals, list[Seen]] | None = None
        for _ in range(_LOOKS):
            sample = witness.totals(self.disk), self._look()
            if sample == last:
                return sample
            last = sample
            time.sleep(_PAUSE)
        return None


def _minus(new: Totals, old: Totals) -> Totals:
    return Totals(new.requests - old.requests, new.written - old.written, new.discarded - old.discarded)
