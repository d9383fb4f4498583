"""How often a screen that follows a run is drawn: the console must not take the processor from the restore."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Of one core, what drawing may take. Two consoles (screen and serial line) often show the same run.
SHARE = 0.08
#: Seconds after which a screen is drawn whatever that takes: nobody shall wonder whether it stands still.
LONGEST = 10.0


class Pace:
    """A frame is due when the one before, its painting included, took ``SHARE`` of the time since it began: where a
    frame costs 10 ms of processor time it is drawn at every call of a quarter of a second, and on a processor that
    needs half a second for it (an emulated one, for example) every six seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.process_time
    ) -> None:
        """``clock`` and ``processor`` give seconds: of the wall, and of this process on any core."""
        self._clock, self._processor = clock, processor
        self._begun, self._used, self._cost = -LONGEST, 0.0, 0.0

    def due(self) -> bool:
        """Whether to draw now."""
        return self._clock() - self._begun >= min(LONGEST, self._cost / SHARE)

    def drawing(self) -> None:
        """A frame begins."""
        self._begun, self._used = self._clock(), self._processor()

    def drawn(self) -> None:
        """It is on the screen."""
        self._cost = self._processor() - self._used
