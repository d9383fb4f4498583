"""A small eBPF assembler: instructions by name, jumps by label, bytes out. Pure.

Encoding: Linux ``Documentation/bpf/standardization/instruction-set.rst``: opcode u8, registers u8 (destination in the
low half), offset s16, immediate s32, little endian; a 64-bit constant takes two.
"""

from __future__ import annotations

import struct
from enum import IntEnum

_INSN = struct.Struct("<BBhi")

#: Sources of a 64-bit constant (BPF_PSEUDO_*): the number itself, a map, the value of a map with one element.
_PSEUDO_MAP, _PSEUDO_VALUE = 1, 2

_ALU = {"add": 0x00, "sub": 0x10, "or": 0x40, "and": 0x50, "lsh": 0x60, "rsh": 0x70, "mov": 0xB0}
_JUMP = {"always": 0x00, "==": 0x10, ">": 0x20, ">=": 0x30, "!=": 0x50, "<": 0xA0, "<=": 0xB0}
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_CLASS_LDX, _CLASS_STX, _CLASS_ALU32, _CLASS_JMP, _CLASS_ALU64 = 0x01, 0x03, 0x04, 0x05, 0x07
_MODE_MEM, _MODE_ATOMIC, _SOURCE_REGISTER = 0x60, 0xC0, 0x08
_ATOMIC_ADD, _ATOMIC_OR, _ATOMIC_FETCH = 0x00, 0x40, 0x01

#: The number of the kernel's helper function (include/uapi/linux/bpf.h).
HELPER_MAP_LOOKUP = 1


class Reg(IntEnum):
    """The registers: R0 results, R1-R5 arguments (lost in calls), R6-R9 kept, R10 the frame (read-only)."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    FRAME = 10


class Assembler:
    """Collects instructions; ``assemble`` gives the bytes. Values are registers (Reg) or signed 32-bit constants."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._code)

    def _emit(self, opcode: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> None:
        self._code.append((opcode, dst, src, offset, value))

    def label(self, name: str) -> None:
        """Name the next instruction. Raises ValueError when the name is taken."""
        if name in self._labels:
            raise ValueError(f"the label {name} is there twice")
        self._labels[name] = len(self._code)

    def alu(self, operation: str, dst: Reg, value: Reg | int, *, bits: int = 64) -> None:
        """``dst = dst operation value`` (``mov``: ``dst = value``); with 32 bits the upper half becomes zero."""
        opcode = _ALU[operation] | (_CLASS_ALU64 if bits == 64 else _CLASS_ALU32)
        if isinstance(value, Reg):
            self._emit(opcode | _SOURCE_REGISTER, dst, value)
        else:
            self._emit(opcode, dst, value=value)

    def load(self, dst: Reg, base: Reg, offset: int, size: int = 8) -> None:
        """``dst`` = the ``size`` bytes at ``base + offset``."""
        self._emit(_CLASS_LDX | _MODE_MEM | _SIZES[size], dst, base, offset)

    def store(self, base: Reg, offset: int, src: Reg, size: int = 8) -> None:
        """The ``size`` bytes at ``base + offset`` = ``src``."""
        self._emit(_CLASS_STX | _MODE_MEM | _SIZES[size], base, src, offset)

    def atomic_add(self, base: Reg, offset: int, src: Reg, *, fetch: bool = False) -> None:
        """Add ``src`` to the u64 at ``base + offset``; with ``fetch`` the old value is in ``src`` afterwards."""
        operation = _ATOMIC_ADD | (_ATOMIC_FETCH if fetch else 0)
        self._emit(_CLASS_STX | _MODE_ATOMIC | _SIZES[8], base, src, offset, operation)

    def atomic_or(self, base: Reg, offset: int, src: Reg) -> None:
        """Or ``src`` into the u64 at ``base + offset``."""
        self._emit(_CLASS_STX | _MODE_ATOMIC | _SIZES[8], base, src, offset, _ATOMIC_OR)

    def map_handle(self, dst: Reg, map_fd: int) -> None:
        """``dst`` = the map, for helpers."""
        self._wide(dst, _PSEUDO_MAP, map_fd, 0)

    def map_value(self, dst: Reg, map_fd: int, offset: int = 0) -> None:
        """``dst`` = the address of byte ``offset`` in the value of an array with one element."""
        self._wide(dst, _PSEUDO_VALUE, map_fd, offset)

    def _wide(self, dst: Reg, pseudo: int, low: int, high: int) -> None:
        self._emit(0x18, dst, pseudo, 0, low)
        self._emit(0, value=high)

    def jump(self, label: str, dst: Reg = Reg.R0, condition: str = "always", value: Reg | int = 0) -> None:
        """Go to ``label`` when ``dst condition value`` holds (unsigned)."""
        opcode = _JUMP[condition] | _CLASS_JMP
        self._jumps.append((len(self._code), label))
        if isinstance(value, Reg):
            self._emit(opcode | _SOURCE_REGISTER, dst, value)
        else:
            self._emit(opcode, dst, value=value)

    def call(self, helper: int) -> None:
        """Call a helper function of the kernel."""
        self._emit(0x80 | _CLASS_JMP, value=helper)

    def exit(self) -> None:
        """End the program with what is in R0."""
        self._emit(0x90 | _CLASS_JMP)

    def assemble(self) -> bytes:
        """The program. Raises ValueError for a label that is missing, a jump or a constant that is out of range."""
        code = list(self._code)
        for at, label in self._jumps:
            if label not in self._labels:
                raise ValueError(f"there is no label {label}")
            opcode, dst, src, _, value = code[at]
            code[at] = (opcode, dst, src, self._labels[label] - at - 1, value)
        try:
            return b"".join(
                _INSN.pack(opcode, dst | src << 4, offset, value) for opcode, dst, src, offset, value in code
            )
        except struct.error as error:
            raise ValueError(f"a jump or a constant is out of range: {error}") from error
