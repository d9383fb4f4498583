"""What lasts from one point of a running host to the next: the tracker, and what the last point looked like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from recovery.capture.live.guests import GuestLimits, GuestMemory, GuestQuiescer
from recovery.capture.live.limits import FreezeLimits
from recovery.capture.live.survey import VmSurvey
from recovery.capture.tracking.choose import open_tracker
from recovery.capture.tracking.model import Doubt, Method, TrackedDisk
from recovery.capture.tracking.remember import RememberingTracker
from recovery.errors import DeviceError
from recovery.format.chunkmap import ChunkMap
from recovery.format.point import PointSummary

_HINT = (
    "Capture snapshots (LVM, storage) or the host from the rescue medium. Tracking needs root and whole disks; "
    "Secure Boot is fine, a lockdown in 'confidentiality' mode is not."
)


class LiveSession:
    """Keeps tracking between captures. Closing it ends that; the next session begins with a full compare."""

    def __init__(
        self,
        limits: FreezeLimits | None = None,
        methods: Sequence[Method] = ("ebpf", "tracefs"),
        guests: GuestLimits | None = None,
    ) -> None:
        """``guests``: VMs are quiesced by their agents within these limits; None: they are not asked."""
        self.limits = limits or FreezeLimits()
        self.guests = guests
        self.guest_memory = GuestMemory()
        self.quiescer: GuestQuiescer | None = None
        #: Where the disks of VMs lie, as the newest capture began to look for them.
        self.survey: VmSurvey | None = None
        self._methods = list(methods)
        self._tracker: RememberingTracker | None = None
        self._disks: list[TrackedDisk] = []
        self._point = ""
        self._bases: dict[str, tuple[str, ChunkMap]] = {}
        self._distrusted = ""
        self._tell: Callable[[str], None] = lambda text: None

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def tracker(self) -> RememberingTracker:
        """The tracker in force; after ``watch``."""
        if self._tracker is None:
            raise DeviceError("Changed blocks are not tracked.", hint=_HINT)
        return self._tracker

    def watch(self, disks: Sequence[TrackedDisk], tell: Callable[[str], None]) -> None:
        """Track these disks, if they are not tracked already. Raises DeviceError when no method works."""
        self._tell = tell
        if self._tracker is not None and list(disks) == self._disks:
            return
        self.close()
        tracker = open_tracker(disks, tell, self._methods)
        if tracker is None:
            raise DeviceError("A running host cannot be captured here: its writes cannot be tracked.", hint=_HINT)
        self._tracker, self._disks = RememberingTracker(tracker), list(disks)

    def distrust(self, doubt: Doubt, disks: Sequence[TrackedDisk]) -> None:
        """Writes were missed: use the next method from now on, if there is one."""
        self._distrusted = doubt.text
        if doubt.cause == "counters" and self.tracker.method == self._methods[0] and len(self._methods) > 1:
            del self._methods[0]
            self.close()
            self.watch(disks, self._tell)

    def bases_since(self, parent: PointSummary | None) -> dict[str, tuple[str, ChunkMap]]:
        """Name and map of each disk in ``parent``, if that is the point that we committed last."""
        return dict(self._bases) if parent is not None and parent.id == self._point else {}

    def why_full(self, disk: str, parent: PointSummary | None, has_base: bool) -> str:
        """Why all of the disk must be read and compared; empty when the changes since ``parent`` are known."""
        distrusted, self._distrusted = self._distrusted, ""
        if distrusted:
            return distrusted
        if doubt := self.tracker.doubt(disk):
            return doubt.text
        if parent is None or not has_base:
            return "there is no earlier point of it to build on"
        if parent.id != self._point:
            return "the newest point of the host is not the one that changes are known since"
        return ""

    def committed(self, point: str, bases: dict[str, tuple[str, ChunkMap]]) -> None:
        """``point`` holds what the last switch gave."""
        self._point, self._bases = point, bases
        self.tracker.mark()

    def continued(self, point: str) -> None:
        """``point`` is the host's newest now: journals over what we committed last, whose maps stay the bases, and
        changes go on being counted since then."""
        if self._point:
            self._point = point

    def forget(self) -> None:
        """What changed since the last point is not known any more."""
        self._point, self._bases = "", {}

    def close(self) -> None:
        """End tracking."""
        if self._tracker is not None:
            self._tracker.close()
        self._tracker, self._disks = None, []
        self.forget()
