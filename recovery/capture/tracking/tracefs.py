"""Changed blocks by tracefs, where eBPF is not to be had: a reader empties the kernel's ring buffer of completions.

It costs more than eBPF: about 1.5 µs of a core a write. A burst that fills the buffer is lost; the kernel says so.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from recovery.capture.tracking.doubts import Ledger, Seen
from recovery.capture.tracking.extents import Extents
from recovery.capture.tracking.model import FINEST, Doubt, Method, TrackedDisk
from recovery.capture.tracking.ringbuffer import Completion, parse_data_start, parse_format, read_page
from recovery.capture.tracking.witness import Totals
from recovery.errors import DeviceError, UsageError

_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_EVENT = "events/block/block_rq_complete"
#: Ring buffer for each CPU: about 100 000 events.
BUFFER_KIB = 8192
#: Seconds between two looks when the buffer was empty.
_INTERVAL = 0.05
#: Ranges kept before they are merged.
_MERGE_AT = 65536
_LOSSES = ("overrun:", "commit overrun:", "dropped events:")


class TracefsTracker:
    """A Tracker (``model.Tracker``). Closing it, or ``rmdir`` of its instance after a kill, frees the buffer."""

    def __init__(self, *, buffer_kib: int = BUFFER_KIB, reading: bool = True) -> None:
        """``reading`` False: the buffer is emptied only by calls, for tests of a full one."""
        self._buffer_kib = buffer_kib
        self._reading = reading
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None
        self._pipes: list[int] = []
        self._ledgers: dict[str, Ledger] = {}
        self._by_device: dict[int, str] = {}
        self._several_ranges: set[str] = set()
        self._totals: dict[str, Totals] = {}
        self._changed: dict[str, list[tuple[int, int]]] = {}
        self._merge_at: dict[str, int] = {}
        self._lost_before = 0

    @property
    def method(self) -> Method:
        """How it works."""
        return "tracefs"

    @property
    def block_size(self) -> int:
        """Bytes of a block."""
        return FINEST

    def start(self, disks: Sequence[TrackedDisk]) -> None:
        """See ``Tracker.start``."""
        if self._folder is not None:
            raise UsageError("The tracker was started already.")
        try:
            self._start(disks)
        except OSError as error:
            self.close()
            raise DeviceError(
                f"The kernel's tracing is not to be had: {error.strerror} ({error.filename}).",
                hint="It needs root and tracefs (mount -t tracefs tracefs /sys/kernel/tracing), and no lockdown.",
            ) from error
        except BaseException:
            self.close()
            raise

    def _start(self, disks: Sequence[TrackedDisk]) -> None:
        root = next((place for place in _PLACES if (place / "instances").is_dir()), _PLACES[0])
        _remove_dead(root / "instances")
        folder = root / "instances" / f"rekindle-{os.getpid()}-{id(self):x}"
        folder.mkdir()
        self._folder = folder
        self._form = parse_format((folder / _EVENT / "format").read_text())
        self._data_start = parse_data_start((root / "events/header_page").read_text())
        self._page_size = 1024 * _number(folder / "buffer_subbuf_size_kb", 4)
        (folder / "buffer_size_kb").write_text(str(self._buffer_kib))
        for disk in disks:
            self._by_device[disk.major << 20 | disk.minor] = disk.name
            self._totals[disk.name] = Totals(0, 0, 0)
            self._changed[disk.name] = []
            self._ledgers[disk.name] = Ledger(disk, partial(self._look, disk.name))
            # A discard of several ranges is one event that names the first of them only.
            if _number(Path("/sys/block") / disk.kernel_name / "queue/max_discard_segments", 2) != 1:
                self._several_ranges.add(disk.name)
        devices = " || ".join(f"dev == {device}" for device in self._by_device)
        (folder / _EVENT / "filter").write_text(f'({devices}) && nr_sector > 0 && !(rwbs ~ "R*")')
        for pipe in sorted((folder / "per_cpu").glob("cpu*/trace_pipe_raw")):
            self._pipes.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        (folder / "tracing_on").write_text("1")
        (folder / _EVENT / "enable").write_text("1")
        if self._reading:
            self._thread = threading.Thread(target=self._read_on, name="changed-blocks", daemon=True)
            self._thread.start()

    def _read_on(self) -> None:
        while not self._stop.wait(_INTERVAL):
            try:
                self._drain()
            except (OSError, DeviceError) as error:
                self._doubt_all(f"the kernel's ring buffer could not be read: {error}")
                return

    def _drain(self) -> None:
        """Take all events that are in the buffer now."""
        with self._lock:
            for pipe in self._pipes:
                while True:
                    try:
                        page = os.read(pipe, self._page_size)
                    except BlockingIOError:
                        break
                    if not page:
                        break
                    completions, lost = read_page(page, self._data_start, self._form)
                    if lost:
                        self._doubt_all("the kernel's ring buffer overflowed")
                    for completion in completions:
                        self._take(completion)

    def _take(self, event: Completion) -> None:
        name = self._by_device.get(event.device)
        if name is None or event.operation.startswith("R"):
            return
        total = self._totals[name]
        if "D" in event.operation and "E" not in event.operation:
            self._totals[name] = Totals(total.requests + 1, total.written, total.discarded + event.sectors)
            if name in self._several_ranges:
                text = (
                    f"'{self._ledgers[name].disk.path}' merges discards, of which tracefs shows the first range only"
                )
                self._ledgers[name].set_doubt(Doubt(cause="missed", text=text))
        else:
            self._totals[name] = Totals(total.requests + 1, total.written + event.sectors, total.discarded)
        changed = self._changed[name]
        changed.append((event.sector * 512, event.sectors * 512))
        if len(changed) >= self._merge_at.get(name, _MERGE_AT):
            merged = self._changed[name] = list(self._extents(name))
            # Scattered writes do not merge: let it grow, so that this is not done at each event.
            self._merge_at[name] = max(_MERGE_AT, 2 * len(merged))

    def _extents(self, name: str) -> Extents:
        return Extents(self._changed[name]).aligned(FINEST, self._ledgers[name].disk.size)

    def _look(self, name: str) -> list[Seen]:
        self._drain()
        return [Seen(self._totals[name])]

    def _doubt_all(self, text: str) -> None:
        for ledger in self._ledgers.values():
            ledger.set_doubt(Doubt(cause="missed", text=text))

    def renew(self, disk: str) -> None:
        """See ``Tracker.renew``."""
        self._drain()
        self._lost()  # what was lost before does not count
        self._ledgers[disk].renew()

    def switch(self, *, frozen: bool = False) -> Mapping[str, Extents]:
        """See ``Tracker.switch``."""
        self._drain()
        with self._lock:
            found = {name: self._extents(name) for name in self._changed}
            self._changed = {name: [] for name in self._changed}
        return found

    def peek(self) -> Mapping[str, Extents]:
        """See ``Tracker.peek``."""
        self._drain()
        with self._lock:
            return {name: self._extents(name) for name in self._changed}

    def check(self, disk: str) -> bool:
        """See ``Tracker.check``."""
        return self._ledgers[disk].check()

    def doubt(self, disk: str) -> Doubt | None:
        """See ``Tracker.doubt``."""
        self._drain()
        if self._lost():
            self._doubt_all("the kernel's ring buffer overflowed")
        return self._ledgers[disk].doubt()

    def _lost(self) -> bool:
        """Whether events were lost since the last call."""
        if self._folder is None:
            return False
        lost = 0
        for stats in (self._folder / "per_cpu").glob("cpu*/stats"):
            for line in stats.read_text().splitlines():
                if line.startswith(_LOSSES):
                    lost += int(line.rpartition(":")[2])
        before, self._lost_before = self._lost_before, lost
        return lost > before

    def close(self) -> None:
        """See ``Tracker.close``."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        while self._pipes:
            os.close(self._pipes.pop())
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / _EVENT / "enable").write_text("0")
                self._folder.rmdir()
            self._folder = None


def _number(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return default


def _remove_dead(instances: Path) -> None:
    """Instances that killed processes left: they cost memory and time."""
    for folder in instances.glob("rekindle-*"):
        process = folder.name.split("-")[1]
        if not Path("/proc", process).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
