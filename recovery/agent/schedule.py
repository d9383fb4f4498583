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


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the agent stands. Times are of a clock that never goes back, None: never.

    ``ready``: what changed since the newest point is known, and its chain has room for a journal; ``online``: the
    server answered last; ``room``: the spool is not full. ``attempted`` is when the last attempt began, and ``failed``
    how many in a row came to nothing.
    """

    keyframe: float | None
    attempted: float | None
    failed: int
    ready: bool
    online: bool
    room: bool


def what_is_due(settings: Settings, standing: Standing, now: float, local: datetime.datetime) -> tuple[Due, float]:
    """What to make now, and else the seconds to wait before asking again. ``local`` is this machine's time, ``now``
    that of the clock that never goes back.

    Keyframes need the server. While it is away journals go on, in the spool, as long as that and the chain have room.
    """
    if paused(settings.pause, local):
        return "nothing", _LOOK
    pause = settings.journal * min(2 ** max(0, standing.failed - 1), 8) if standing.failed else settings.journal
    if standing.attempted is not None and now < standing.attempted + pause:
        return "nothing", min(_LOOK, standing.attempted + pause - now)
    overdue = standing.keyframe is None or now >= standing.keyframe + settings.keyframe
    if standing.online and (overdue or not standing.ready):
        return "keyframe", 0.0
    if standing.ready and standing.room:
        return "journal", 0.0
    return "nothing", min(_LOOK, settings.journal)


def paused(windows: Sequence[Window], local: datetime.datetime) -> bool:
    """Whether no point is to be made at this time of the day."""
    return any(window.holds(local) for window in windows)
