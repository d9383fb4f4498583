"""When a pre-copy is given up, and when more memory would help it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import cast

import pytest

from recovery.capture.live.cut import _Cut
from recovery.capture.live.holder import Holder
from recovery.capture.live.limits import FreezeLimits, NotStillError
from recovery.capture.tracking.model import Copier, Extents, Tracker
from recovery.events import ignore
from recovery.units import MIB


class Writing:
    """A tracker, and a copier that reads ``factor`` bytes for each that was written, as whole chunks are; ``rests``:
    MiB that are written during each pass."""

    def __init__(self, rests: list[int], factor: int) -> None:
        self.rests, self.factor = rests, factor
        self.reads = 0

    def _written(self) -> dict[str, Extents]:
        rest = self.rests[min(self.reads, len(self.rests)) - 1]
        return {"disk1": Extents([(0, rest * MIB)])}

    def copy(self, changed: Mapping[str, Extents]) -> int:
        self.reads += 1
        return self.factor * sum(extents.bytes for extents in changed.values())

    def switch(self) -> dict[str, Extents]:
        return self._written()

    def peek(self) -> dict[str, Extents]:
        return self._written()

    def remainder(self, changed: Mapping[str, Extents]) -> Mapping[str, Extents]:
        return changed


@pytest.mark.parametrize(
    ("rests", "factor", "passes", "hopeless"),
    [
        ([256], 1, 4, True),  # far from the 64 MiB that a freeze may read: two passes that shrank nothing
        ([100], 1, 5, True),  # near it: three, for writes come in bursts
        ([200, 260, 100, 50], 1, 4, None),  # one burst
        ([900, 450, 220, 110, 60], 1, 5, None),
        ([900, 300, 290, 290], 1, 4, True),
        ([256], 8, 4, False),  # few blocks of many chunks: with more chunks in memory less would be read
    ],
)
def test_a_pre_copy_is_given_up_when_it_does_not_come_nearer(
    rests: list[int], factor: int, passes: int, hopeless: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = Writing(rests, factor)
    monkeypatch.setattr(_Cut, "_write_out", lambda self: None)
    with _Cut(
        cast(Tracker, writing), [], cast(Copier, writing), FreezeLimits(), ignore, threading.Event(),
        cast(Holder, None), [],
    ) as cut:  # fmt: skip
        cut._pass({"disk1": Extents([(0, 1024 * MIB)])})
        if hopeless is None:
            cut._shrink({})
        else:
            with pytest.raises(NotStillError) as caught:
                cut._shrink({})
            assert caught.value.hopeless == hopeless
    assert writing.reads == passes
