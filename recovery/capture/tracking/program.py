"""The eBPF program that marks written blocks: it runs in the kernel when a request to a block device completes.

At completion, not at submission: a write submitted before a switch may land after we have read its place.

Control memory (one array element): u64 0 the half that is marked now; u64 8 and 16 how many entries the log of each
half has; u64 24 lost log entries (a chain of discards that is too long); u64 32 zero. From 64 on, 128 bytes a disk:
u64 first element of its bits in a half, u64 blocks, three times (copy) u64 requests, sectors written, sectors
discarded, then u64 requests beyond the end, u64 commands that passed the block layer by.

The log holds what is too long to be marked bit by bit, and discards of many ranges in one request: u64 sector, u32
sectors, u32 disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recovery.capture.tracking.assembler import HELPER_MAP_LOOKUP, Assembler, Reg
from recovery.capture.tracking.btf import Offsets, need

STRUCTURES = ("request", "request_queue", "gendisk", "bio", "bvec_iter")
#: The type that the kernel declares for the tracepoint's programs.
TRACEPOINT = "btf_trace_block_rq_complete"
#: Copies of the program that are attached. While one runs, it does not see an interrupt's completion; another does.
#: Three, because contexts nest no deeper: task, softirq, hardirq.
COPIES = 3
MAX_DISKS = 64
CONTROL_BYTES = 12288

HALF, LOG_COUNTS, LOG_LOST, ALWAYS_ZERO, DISKS_START, DISK_BYTES = 0, 8, 24, 32, 64, 128
DISK_FIRST, DISK_BLOCKS, DISK_COUNTERS, DISK_BEYOND, DISK_PASSTHROUGH = 0, 8, 16, 112, 120
COUNTER_BYTES = 32
COUNTER_REQUESTS, COUNTER_WRITTEN, COUNTER_DISCARDED = 0, 8, 16

#: Entries in the log of each half, and bytes of an entry.
LOG_ENTRIES = 65536
LOG_ENTRY_BYTES = 16

#: More blocks than this in one request go to the log.
_MOST_BLOCKS = 4096
_MOST_WORDS = _MOST_BLOCKS // 64 + 1
#: Ranges in one discard request; NVMe allows 256.
_MOST_RANGES = 256
_OP_MASK = 0xFF  # REQ_OP_MASK (Linux 4.10 and later)
_OP_DISCARD = 3
_FIRST_PASSTHROUGH_OP = 32  # REQ_OP_SCSI_IN, DRV_IN and up

# Places in the program's stack frame.
_FIRST, _LAST, _BASE, _KEY, _RANGE, _DISK = -8, -16, -24, -32, -48, -56

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = (Reg(number) for number in range(11))


@dataclass(frozen=True)
class Maps:
    """Descriptors of the maps that the program uses; ``elements`` of each half of ``bits``, ``shift``: log2 of the
    sectors of 512 bytes in a block."""

    control: int
    bits: int
    log: int
    elements: int
    shift: int


def marking_program(copy: int, maps: Maps, offsets: Offsets, disks: Sequence[tuple[int, int]]) -> bytes:
    """The code of one copy for ``disks``, by their major and minor numbers. Raises DeviceError when the kernel's
    structures are not as needed."""
    return _Program(copy, maps, offsets, disks).build()


class _Program:
    def __init__(self, copy: int, maps: Maps, offsets: Offsets, disks: Sequence[tuple[int, int]]) -> None:
        self.asm = Assembler()
        self.copy, self.maps, self.offsets, self.disks = copy, maps, offsets, disks

    def build(self) -> bytes:
        self._what_happened()
        self._which_disk()
        self._count()
        self._where()
        self._mark("mark", "second")
        self._mark("second", "exit")
        self._log_one()
        self._log_chain()
        self._ends()
        return self.asm.assemble()

    def _field(self, to: Reg, base: Reg, structure: str, field: str, size: int = 8) -> None:
        """``to`` = a field of the kernel's structure at ``base``: a plain load, of which the verifier knows the type;
        of memory that is gone it gives 0."""
        self.asm.load(to, base, need(self.offsets, structure, field), size)

    def _what_happened(self) -> None:
        """R6 = the request, R7 = bytes completed, R8 = the operation; ends unless it is an odd one (they write)."""
        asm = self.asm
        asm.load(R6, R1, 0)
        asm.load(R7, R1, 16)
        asm.alu("mov", R7, R7, bits=32)
        asm.jump("exit", R7, "==", 0)
        self._field(R8, R6, "request", "cmd_flags", 4)
        asm.alu("and", R8, _OP_MASK)
        asm.alu("mov", R1, R8)
        asm.alu("and", R1, 1)
        asm.jump("exit", R1, "==", 0)

    def _which_disk(self) -> None:
        """R9 = the disk's counters; ends when the disk is not tracked."""
        asm = self.asm
        if "disk" in self.offsets.get("request_queue", {}):
            self._field(R9, R6, "request", "q")
            self._field(R9, R9, "request_queue", "disk")
        else:
            self._field(R9, R6, "request", "rq_disk")
        self._field(R1, R9, "gendisk", "major", 4)
        self._field(R2, R9, "gendisk", "first_minor", 4)
        # One after the other: quicker than looking a few numbers up in a table.
        for number, (major, minor) in enumerate(self.disks):
            asm.jump(f"not-{number}", R2, "!=", minor)
            asm.alu("mov", R9, number)
            asm.jump("disk", R1, "==", major)
            asm.label(f"not-{number}")
        asm.jump("exit")
        asm.label("disk")
        # Adding a zero that the verifier does not know makes one case of all disks: else it would follow each alone.
        asm.map_value(R1, self.maps.control, ALWAYS_ZERO)
        asm.load(R1, R1, 0)
        asm.alu("add", R9, R1)
        asm.alu("and", R9, MAX_DISKS - 1)
        asm.store(FRAME, _DISK, R9)
        asm.alu("lsh", R9, DISK_BYTES.bit_length() - 1)
        asm.map_value(R1, self.maps.control, DISKS_START)
        asm.alu("add", R1, R9)
        asm.alu("mov", R9, R1)

    def _count(self) -> None:
        """What the kernel's own counters will be compared with."""
        asm = self.asm
        counter = DISK_COUNTERS + self.copy * COUNTER_BYTES
        asm.jump("passthrough", R8, ">=", _FIRST_PASSTHROUGH_OP)
        asm.alu("mov", R1, 1)
        asm.atomic_add(R9, counter + COUNTER_REQUESTS, R1)
        asm.alu("rsh", R7, 9)
        asm.jump("count-discard", R8, "==", _OP_DISCARD)
        asm.atomic_add(R9, counter + COUNTER_WRITTEN, R7)
        asm.jump("where")
        asm.label("count-discard")
        asm.atomic_add(R9, counter + COUNTER_DISCARDED, R7)
        # Several discards, far from each other, may have been merged into one request.
        self._field(R8, R6, "request", "bio")
        asm.jump("where", R8, "==", 0)
        self._field(R1, R8, "bio", "bi_next")
        asm.jump("log-chain", R1, "!=", 0)

    def _where(self) -> None:
        """The first and the last block and the disk's first element in the half in force, in the frame."""
        asm, shift = self.asm, self.maps.shift
        asm.label("where")
        asm.jump("exit", R7, "==", 0)
        self._field(R6, R6, "request", "__sector")
        asm.alu("add", R7, R6)
        asm.alu("sub", R7, 1)
        asm.alu("rsh", R6, shift)
        asm.alu("rsh", R7, shift)
        asm.load(R1, R9, DISK_BLOCKS)
        asm.jump("beyond", R7, ">=", R1)
        asm.alu("mov", R1, R7)
        asm.alu("sub", R1, R6)
        asm.jump("log-one", R1, ">=", _MOST_BLOCKS)
        asm.store(FRAME, _FIRST, R6)
        asm.store(FRAME, _LAST, R7)
        asm.load(R2, R9, DISK_FIRST)
        self._half(R1)
        asm.jump("first-half", R1, "==", 0)
        asm.alu("add", R2, self.maps.elements)
        asm.label("first-half")
        asm.store(FRAME, _BASE, R2)

    def _half(self, to: Reg) -> None:
        self.asm.map_value(to, self.maps.control)
        self.asm.load(to, to, HALF)

    def _mark(self, name: str, then: str) -> None:
        """Mark from _FIRST to _LAST in the element that _FIRST lies in; a request touches two at most."""
        asm = self.asm
        asm.label(name)
        asm.load(R1, FRAME, _FIRST)
        asm.alu("rsh", R1, 15)
        asm.load(R2, FRAME, _BASE)
        asm.alu("add", R2, R1)
        asm.store(FRAME, _KEY, R2, 4)
        asm.map_handle(R1, self.maps.bits)
        asm.alu("mov", R2, FRAME)
        asm.alu("add", R2, _KEY)
        asm.call(HELPER_MAP_LOOKUP)
        asm.jump("beyond", R0, "==", 0)
        # R1, R2: the first and the last bit within the element; and what is left for the next one.
        asm.load(R1, FRAME, _FIRST)
        asm.load(R2, FRAME, _LAST)
        asm.alu("mov", R3, R1)
        asm.alu("or", R3, 32767)
        asm.alu("mov", R4, R3)
        asm.alu("add", R4, 1)
        asm.store(FRAME, _FIRST, R4)
        asm.jump(f"{name}-within", R2, "<=", R3)
        asm.alu("mov", R2, R3)
        asm.label(f"{name}-within")
        asm.alu("and", R1, 32767)
        asm.alu("and", R2, 32767)
        # R3, R4: the first and the last word of 64 bits; R5: the bits wanted in R3; R7 bounds the loop.
        asm.alu("mov", R3, R1)
        asm.alu("rsh", R3, 6)
        asm.alu("mov", R4, R2)
        asm.alu("rsh", R4, 6)
        asm.alu("and", R1, 63)
        asm.alu("mov", R5, -1)
        asm.alu("lsh", R5, R1)
        asm.alu("mov", R7, 0)
        asm.label(f"{name}-loop")
        asm.jump(f"{name}-last", R3, ">=", R4)
        self._or_word(f"{name}-a")
        asm.alu("mov", R5, -1)
        asm.alu("add", R3, 1)
        asm.alu("add", R7, 1)
        asm.jump(f"{name}-loop", R7, "<", _MOST_WORDS)
        asm.jump("beyond")
        asm.label(f"{name}-last")
        asm.alu("and", R2, 63)
        asm.alu("mov", R1, 63)
        asm.alu("sub", R1, R2)
        asm.alu("mov", R2, -1)
        asm.alu("rsh", R2, R1)
        asm.alu("and", R5, R2)
        self._or_word(f"{name}-b")
        asm.load(R1, FRAME, _FIRST)
        asm.load(R2, FRAME, _LAST)
        asm.jump("exit", R1, ">", R2)
        if then == "exit":
            asm.jump("exit")

    def _or_word(self, name: str) -> None:
        """Set the bits R5 in word R3 of the element R0, unless they are set (the other copies come here too)."""
        asm = self.asm
        asm.jump("beyond", R3, ">=", 512)
        asm.alu("mov", R6, R3)
        asm.alu("lsh", R6, 3)
        asm.alu("mov", R8, R0)
        asm.alu("add", R8, R6)
        asm.load(R6, R8, 0)
        asm.alu("and", R6, R5)
        asm.jump(f"{name}-set", R6, "==", R5)
        asm.atomic_or(R8, 0, R5)
        asm.label(f"{name}-set")

    def _append(self, name: str) -> None:
        """Append the entry at _RANGE to the log of the half in force; a full log shows in its count."""
        asm = self.asm
        asm.map_value(R1, self.maps.control)
        asm.load(R3, R1, HALF)
        asm.alu("mov", R2, 1)
        asm.jump(f"{name}-other", R3, "!=", 0)
        asm.atomic_add(R1, LOG_COUNTS, R2, fetch=True)
        asm.jump("exit", R2, ">=", LOG_ENTRIES)
        asm.jump(f"{name}-place")
        asm.label(f"{name}-other")
        asm.atomic_add(R1, LOG_COUNTS + 8, R2, fetch=True)
        asm.jump("exit", R2, ">=", LOG_ENTRIES)
        asm.alu("add", R2, LOG_ENTRIES)
        asm.label(f"{name}-place")
        asm.store(FRAME, _KEY, R2, 4)
        asm.map_handle(R1, self.maps.log)
        asm.alu("mov", R2, FRAME)
        asm.alu("add", R2, _KEY)
        asm.call(HELPER_MAP_LOOKUP)
        asm.jump("exit", R0, "==", 0)
        asm.load(R1, FRAME, _RANGE)
        asm.store(R0, 0, R1)
        asm.load(R1, FRAME, _RANGE + 8, 4)
        asm.store(R0, 8, R1, 4)
        asm.load(R1, FRAME, _DISK)
        asm.store(R0, 12, R1, 4)

    def _log_one(self) -> None:
        """One long range; R6 and R7 are its first and last block."""
        asm, shift = self.asm, self.maps.shift
        asm.label("log-one")
        asm.alu("sub", R7, R6)
        asm.alu("add", R7, 1)
        asm.alu("lsh", R7, shift)
        asm.alu("lsh", R6, shift)
        asm.store(FRAME, _RANGE, R6)
        asm.store(FRAME, _RANGE + 8, R7, 4)
        self._append("one")
        asm.jump("exit")

    def _log_chain(self) -> None:
        """All bios of a discard; R8 is the first one."""
        asm = self.asm
        iterator = need(self.offsets, "bio", "bi_iter")
        asm.label("log-chain")
        asm.alu("mov", R7, 0)
        asm.label("chain-loop")
        asm.load(R1, R8, iterator + need(self.offsets, "bvec_iter", "bi_sector"))
        asm.store(FRAME, _RANGE, R1)
        asm.load(R1, R8, iterator + need(self.offsets, "bvec_iter", "bi_size"), 4)
        asm.alu("rsh", R1, 9)
        asm.store(FRAME, _RANGE + 8, R1, 4)
        self._append("chain")
        self._field(R8, R8, "bio", "bi_next")
        asm.jump("exit", R8, "==", 0)
        asm.alu("add", R7, 1)
        asm.jump("chain-loop", R7, "<", _MOST_RANGES)
        asm.map_value(R1, self.maps.control)
        asm.alu("mov", R2, 1)
        asm.atomic_add(R1, LOG_LOST, R2)
        asm.jump("exit")

    def _ends(self) -> None:
        asm = self.asm
        for label, counter in (("beyond", DISK_BEYOND), ("passthrough", DISK_PASSTHROUGH)):
            asm.label(label)
            asm.alu("mov", R1, 1)
            asm.atomic_add(R9, counter, R1)
            asm.jump("exit")
        asm.label("exit")
        asm.alu("mov", R0, 0)
        asm.exit()
