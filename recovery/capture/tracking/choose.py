"""The best tracker that this kernel allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recovery.capture.tracking import witness
from recovery.capture.tracking.ebpf import EbpfTracker
from recovery.capture.tracking.model import Method, TrackedDisk, Tracker
from recovery.capture.tracking.tracefs import TracefsTracker
from recovery.errors import DeviceError

_TRACKERS: dict[Method, Callable[[], Tracker]] = {"ebpf": EbpfTracker, "tracefs": TracefsTracker}


def open_tracker(
    disks: Sequence[TrackedDisk], tell: Callable[[str], None], methods: Sequence[Method] = ("ebpf", "tracefs")
) -> Tracker | None:
    """A started tracker of all the disks, by the first of ``methods`` that works; None when none does. ``tell`` is
    given a sentence for each that does not."""
    for disk in disks:
        if doubt := witness.untrackable(disk):
            tell(f"Changed blocks are not tracked: {doubt.text}.")
            return None
    for method in methods:
        if method not in _TRACKERS:
            continue
        tracker = _TRACKERS[method]()
        try:
            tracker.start(disks)
        except DeviceError as error:
            tell(f"Changed blocks are not tracked by {method}: {error.message}")
            continue
        return tracker
    return None
