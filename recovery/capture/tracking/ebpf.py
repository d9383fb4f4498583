"""Changed blocks by eBPF: programs on the block layer's completions mark blocks in memory that we share with them."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from recovery.capture.tracking import kernel
from recovery.capture.tracking.bitmaps import (
    ELEMENT_BYTES,
    Layout,
    choose_block_size,
    clear_bits,
    layout,
    read_bits,
)
from recovery.capture.tracking.btf import kernel_types
from recovery.capture.tracking.doubts import Ledger, Seen
from recovery.capture.tracking.extents import Extents
from recovery.capture.tracking.model import MEMORY_BUDGET, Doubt, Method, TrackedDisk
from recovery.capture.tracking.program import (
    CONTROL_BYTES,
    COPIES,
    COUNTER_BYTES,
    DISK_BEYOND,
    DISK_BYTES,
    DISK_COUNTERS,
    DISK_FIRST,
    DISK_PASSTHROUGH,
    DISKS_START,
    HALF,
    LOG_COUNTS,
    LOG_ENTRIES,
    LOG_ENTRY_BYTES,
    LOG_LOST,
    MAX_DISKS,
    STRUCTURES,
    TRACEPOINT,
    Maps,
    marking_program,
)
from recovery.capture.tracking.witness import Totals
from recovery.errors import DeviceError, UsageError

_BTF = Path("/sys/kernel/btf/vmlinux")
_ENTRY = struct.Struct("<QII")
_U64 = struct.Struct("<Q")


class EbpfTracker:
    """A Tracker (``model.Tracker``). Its memory in the kernel is ``budget`` bytes at most for the maps of all disks,
    and 2 MiB for the log; it goes when the tracker is closed or the process ends."""

    def __init__(self, *, budget: int = MEMORY_BUDGET, block_size: int | None = None) -> None:
        self._budget = budget
        self._layout = Layout(block_size or 0, (), (), 1)
        self._descriptors: list[int] = []
        self._programs: list[int] = []
        self._views: list[tuple[memoryview, mmap.mmap]] = []
        self._ledgers: dict[str, Ledger] = {}
        self._names: list[str] = []
        self._half = 0
        #: What the half that is not marked now gave at the last switch, while it was not cleared yet.
        self._given: dict[str, Extents] | None = None

    @property
    def method(self) -> Method:
        """How it works."""
        return "ebpf"

    @property
    def block_size(self) -> int:
        """Bytes of a block; known after ``start``."""
        return self._layout.block_size

    def start(self, disks: Sequence[TrackedDisk]) -> None:
        """See ``Tracker.start``."""
        if self._ledgers:
            raise UsageError("The tracker was started already.")
        if len(disks) > MAX_DISKS:
            raise UsageError(f"{len(disks)} disks cannot be tracked at once; {MAX_DISKS} can.")
        try:
            self._start(disks)
        except BaseException:
            self.close()
            raise

    def _start(self, disks: Sequence[TrackedDisk]) -> None:
        try:
            offsets, tracepoint = kernel_types(_BTF.read_bytes(), STRUCTURES, TRACEPOINT)
            kernel.wait_for_programs()
        except OSError as error:
            raise DeviceError(
                f"This kernel does not offer what changed-block tracking by eBPF needs: {error.strerror}.",
                hint="It needs root, type information (BTF), and a kernel without nohz_full.",
            ) from error
        sizes = [disk.size for disk in disks]
        self._layout = layout(sizes, self._layout.block_size or choose_block_size(sizes, self._budget))
        elements = self._layout.elements
        control = self._keep(kernel.array_map(CONTROL_BYTES, 1))
        bits = self._keep(kernel.array_map(ELEMENT_BYTES, 2 * elements))
        log = self._keep(kernel.array_map(LOG_ENTRY_BYTES, 2 * LOG_ENTRIES))
        self._control = self._map(control, CONTROL_BYTES)
        self._bits = self._map(bits, 2 * elements * ELEMENT_BYTES)
        self._log = self._map(log, 2 * LOG_ENTRIES * LOG_ENTRY_BYTES)
        for number, disk in enumerate(disks):
            self._names.append(disk.name)
            place = DISKS_START + number * DISK_BYTES
            struct.pack_into("<QQ", self._control, place + DISK_FIRST, self._layout.first[number],
                             self._layout.blocks(number))  # fmt: skip
            self._ledgers[disk.name] = Ledger(disk, partial(self._seen, number))
        shift = (self._layout.block_size // 512).bit_length() - 1
        maps = Maps(control, bits, log, elements, shift)
        numbers = [(disk.major, disk.minor) for disk in disks]
        for copy in range(COPIES):
            code = marking_program(copy, maps, offsets, numbers)
            self._programs.append(self._keep(kernel.load(code, "rekindle_cbt", tracepoint)))
        # All are attached before the first counter is read: an event in between would look like a lost one.
        for program in self._programs:
            self._keep(kernel.attach(program))

    def _keep(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def _map(self, descriptor: int, length: int) -> memoryview:
        length = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            mapped = mmap.mmap(descriptor, length)
        except OSError as error:
            raise DeviceError(f"The maps of changed blocks cannot be shared: {error.strerror}.") from error
        view = memoryview(mapped)
        self._views.append((view, mapped))
        return view

    def _number(self, place: int) -> int:
        return int(_U64.unpack_from(self._control, place)[0])

    def _seen(self, number: int) -> list[Seen]:
        found: list[Seen] = []
        for copy, program in enumerate(self._programs):
            place = DISKS_START + number * DISK_BYTES + DISK_COUNTERS + copy * COUNTER_BYTES
            requests, written, discarded = struct.unpack_from("<QQQ", self._control, place)
            found.append(Seen(Totals(requests, written, discarded), kernel.recursion_misses(program)))
        return found

    def renew(self, disk: str) -> None:
        """See ``Tracker.renew``. What changed so far comes with the next switch nevertheless: it does no harm."""
        self._ledgers[disk].renew()
        place = DISKS_START + self._names.index(disk) * DISK_BYTES
        for counter in (DISK_BEYOND, DISK_PASSTHROUGH):
            _U64.pack_into(self._control, place + counter, 0)

    def switch(self, *, frozen: bool = False) -> Mapping[str, Extents]:
        """See ``Tracker.switch``."""
        late = self._settle()
        retired, self._half = self._half, 1 - self._half
        self._control[HALF] = self._half
        if frozen:
            # What filesystems waited for is marked: a request completes for them after our program ran.
            found = self._given = self._read(retired)
        else:
            kernel.wait_for_programs()
            found = self._read(retired)
            self._clear(retired)
        return {name: extents.union(late[name]) if name in late else extents for name, extents in found.items()}

    def peek(self) -> Mapping[str, Extents]:
        """See ``Tracker.peek``."""
        return self._read(self._half)

    def _settle(self) -> dict[str, Extents]:
        """What was marked late in the half that a frozen switch read; the half is cleared."""
        if self._given is None:
            return {}
        kernel.wait_for_programs()
        retired = 1 - self._half
        late = {name: now.minus(self._given[name]) for name, now in self._read(retired).items()}
        self._clear(retired)
        self._given = None
        return late

    def _read(self, half: int) -> dict[str, Extents]:
        logged = self._read_log(half)
        return {
            name: read_bits(self._bits, self._layout, half, number).union(
                Extents(logged[number]).aligned(self._layout.block_size, self._layout.sizes[number])
            )
            for number, name in enumerate(self._names)
        }

    def _read_log(self, half: int) -> list[list[tuple[int, int]]]:
        """``(offset, length)`` in the log of a half, for each disk. A log that overflowed puts all disks in doubt."""
        logged: list[list[tuple[int, int]]] = [[] for _ in self._names]
        count = self._number(LOG_COUNTS + 8 * half)
        if count > LOG_ENTRIES or self._number(LOG_LOST):
            for ledger in self._ledgers.values():
                ledger.set_doubt(Doubt(cause="missed", text="there were too many discards to keep account of"))
        start = half * LOG_ENTRIES * LOG_ENTRY_BYTES
        for at in range(min(count, LOG_ENTRIES)):
            sector, sectors, disk = _ENTRY.unpack_from(self._log, start + at * LOG_ENTRY_BYTES)
            if disk < len(logged):
                logged[disk].append((sector * 512, sectors * 512))
        return logged

    def _clear(self, half: int) -> None:
        clear_bits(self._bits, self._layout, half)
        used = min(self._number(LOG_COUNTS + 8 * half), LOG_ENTRIES) * LOG_ENTRY_BYTES
        start = half * LOG_ENTRIES * LOG_ENTRY_BYTES
        self._log[start : start + used] = bytes(used)
        _U64.pack_into(self._control, LOG_COUNTS + 8 * half, 0)

    def check(self, disk: str) -> bool:
        """See ``Tracker.check``."""
        return self._ledgers[disk].check()

    def doubt(self, disk: str) -> Doubt | None:
        """See ``Tracker.doubt``."""
        ledger = self._ledgers[disk]
        place = DISKS_START + self._names.index(disk) * DISK_BYTES
        if self._number(place + DISK_BEYOND):
            ledger.set_doubt(Doubt(cause="resized", text=f"'{ledger.disk.path}' was written behind its former end"))
        if self._number(place + DISK_PASSTHROUGH):
            text = f"'{ledger.disk.path}' got commands that passed the block layer by (SG_IO)"
            ledger.set_doubt(Doubt(cause="passthrough", text=text))
        return ledger.doubt()

    def close(self) -> None:
        """See ``Tracker.close``."""
        # The attachments, last, go first: the maps must be there while a program runs.
        while self._descriptors:
            os.close(self._descriptors.pop())
        while self._views:
            view, mapped = self._views.pop()
            view.release()
            with contextlib.suppress(BufferError):
                mapped.close()
        self._programs.clear()
