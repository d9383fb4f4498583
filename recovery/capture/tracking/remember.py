"""A tracker that remembers what its switches gave since the last point, so that a point that fails loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recovery.capture.tracking.extents import NONE, Extents
from recovery.capture.tracking.model import Doubt, Method, TrackedDisk, Tracker


class RememberingTracker:
    """A Tracker around another one (started or not)."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._since: dict[str, Extents] = {}
        #: What came under a freeze, not merged yet.
        self._heard: list[Mapping[str, Extents]] = []

    def changed(self) -> Mapping[str, Extents]:
        """What the switches since ``mark`` gave, for each disk."""
        self._merge()
        return dict(self._since)

    def mark(self) -> None:
        """A point was committed whose content is that of the last switch."""
        self._since, self._heard = {}, []

    @property
    def method(self) -> Method:
        """See ``Tracker``."""
        return self._tracker.method

    @property
    def block_size(self) -> int:
        """See ``Tracker``."""
        return self._tracker.block_size

    def start(self, disks: Sequence[TrackedDisk]) -> None:
        """See ``Tracker``."""
        self._tracker.start(disks)

    def renew(self, disk: str) -> None:
        """See ``Tracker``."""
        self._tracker.renew(disk)
        self._merge()
        self._since.pop(disk, None)

    def switch(self, *, frozen: bool = False) -> Mapping[str, Extents]:
        """See ``Tracker``."""
        changed = self._tracker.switch(frozen=frozen)
        self._heard.append(changed)
        if not frozen:  # an hour's changes take long to merge
            self._merge()
        return changed

    def _merge(self) -> None:
        for changed in self._heard:
            for name, extents in changed.items():
                self._since[name] = self._since.get(name, NONE).union(extents)
        self._heard = []

    def peek(self) -> Mapping[str, Extents]:
        """See ``Tracker``."""
        return self._tracker.peek()

    def check(self, disk: str) -> bool:
        """See ``Tracker``."""
        return self._tracker.check(disk)

    def doubt(self, disk: str) -> Doubt | None:
        """See ``Tracker``."""
        return self._tracker.doubt(disk)

    def close(self) -> None:
        """See ``Tracker``."""
        self._tracker.close()
