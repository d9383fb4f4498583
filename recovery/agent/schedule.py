"""What is due: a keyframe, a journal point, or nothing until when. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Literal

import msgspec

from recovery.agent.config import Settings, Window

Due = Literal["keyframe", "journal", "nothing"]
#: Seconds between two looks while nothing is due.
_LOOK = 5.0
#: While a keyframe waits for the spool to be sent, which is soon when it has less than so many bytes.
_GLANCE = 0.2
_SOON = 32 * 1024 * 1024


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the agent stands. Times are of a clock that never goes back, None: never.

    ``ready``: what changed since the newest point is known, and its chain has room for a journal; ``online``: the
    server answered last; ``waiting``: bytes in the spool; ``room``: it is not full. ``attempted`` is when the last
    attempt began, and ``failed`` how many in a row came to nothing.
    """

    keyframe: float | None
    attempted: float | None
    failed: int
    ready: bool
    online: bool
    waiting: int
    room: bool


def what_is_due(settings: Settings, standing: Standing, now: float, local: datetime.datetime) -> tuple[Due, float]:
    """What to make now, and else the seconds to wait before asking again. ``local`` is this machine's time, ``now``
    that of the clock that never goes back.

    Keyframes need the server, and an empty spool: they continue the newest point there. While it is away journals go
    on, in the spool, as long as that and the chain have room; they hold back when little waits and a keyframe is due.
    """
    if paused(settings.pause, local):
        return "nothing", _LOOK
    pause = settings.journal * min(2 ** max(0, standing.failed - 1), 8) if standing.failed else settings.journal
    if standing.attempted is not None and now < standing.attempted + pause:
        return "nothing", min(_LOOK, standing.attempted + pause - now)
    overdue = standing.keyframe is None or now >= standing.keyframe + settings.keyframe
    if standing.online and (overdue or not standing.ready):
        if not standing.waiting:
            return "keyframe", 0.0
        if not standing.ready or standing.waiting < _SOON:
            return "nothing", _GLANCE
    if standing.ready and standing.room:
        return "journal", 0.0
    return "nothing", min(_LOOK, settings.journal)


def paused(windows: Sequence[Window], local: datetime.datetime) -> bool:
    """Whether no point is to be made at this time of the day."""
    return any(window.holds(local) for window in windows)
