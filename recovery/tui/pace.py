"""How often a screen that follows a run is drawn: the console must not take the processor from the restore."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Of one core, what drawing may take. Two consoles (screen and serial line) often show the same run.
SHARE = 0.08
#: Seconds after which a screen is drawn whatever that takes: nobody shall wonder whether it stands still.
LONGEST = 10.0


class Pace:
    """A frame is due when the processor time since the last one, its painting included, is ``SHARE`` of the time that
    went by; so where a frame costs 10 ms it is drawn at every call of a quarter of a second, and on a processor that
    needs half a second for it (an emulated one, an old BMC's serial line) every six seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.process_time
    ) -> None:
        """``clock`` and ``processor`` give seconds: of the wall, and of this process on any core."""
        self._clock, self._processor = clock, processor
        self._drawn: tuple[float, float] | None = None

    def due(self) -> bool:
        """Whether to draw now."""
        if self._drawn is None:
            return True
        passed, used = self._clock() - self._drawn[0], self._processor() - self._drawn[1]
        return passed >= LONGEST or used <= SHARE * passed

    def drawing(self) -> None:
        """A frame begins."""
        self._drawn = self._clock(), self._processor()
