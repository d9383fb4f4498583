"""The assembler, the parser of the kernel's types, and the program that both make."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.capture.tracking.assembler import Assembler, Reg
from recovery.capture.tracking.btf import kernel_types, need
from recovery.capture.tracking.program import COPIES, MAX_DISKS, STRUCTURES, TRACEPOINT, Maps, marking_program
from recovery.errors import DeviceError

BTF = Path("/sys/kernel/btf/vmlinux")


def test_instructions_are_encoded_as_the_kernel_documents_them() -> None:
    asm = Assembler()
    asm.alu("mov", Reg.R6, Reg.R1)
    asm.load(Reg.R7, Reg.R6, 16)
    asm.store(Reg.FRAME, -4, Reg.R2, 4)
    asm.alu("add", Reg.R2, -1)
    asm.atomic_or(Reg.R8, 8, Reg.R5)
    asm.map_value(Reg.R1, 7, 64)
    asm.jump("end", Reg.R7, "==", 3)
    asm.call(1)
    asm.label("end")
    asm.exit()
    words = [
        (0xBF, 0x16, 0, 0),
        (0x79, 0x67, 16, 0),
        (0x63, 0x2A, -4, 0),
        (0x07, 0x02, 0, -1),
        (0xDB, 0x58, 8, 0x40),
        (0x18, 0x21, 0, 7),
        (0x00, 0x00, 0, 64),
        (0x15, 0x07, 1, 3),
        (0x85, 0x00, 0, 1),
        (0x95, 0x00, 0, 0),
    ]
    assert asm.assemble() == b"".join(struct.pack("<BBhi", *word) for word in words)


def test_what_cannot_be_assembled_is_refused() -> None:
    asm = Assembler()
    asm.label("here")
    with pytest.raises(ValueError, match="twice"):
        asm.label("here")
    asm.jump("nowhere")
    with pytest.raises(ValueError, match="no label"):
        asm.assemble()
    far = Assembler()
    far.jump("end")
    for _ in range(40000):
        far.exit()
    far.label("end")
    with pytest.raises(ValueError, match="out of range"):
        far.assemble()


def types(*members: tuple[str, int, int], outer: str = "thing", named_inner: bool = False) -> bytes:
    """BTF with ``int`` (1), a struct ``inner`` or unnamed (2) with one field ``deep`` at byte 4, ``outer``
    (3) and ``alias`` for it (4)."""
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        if not text:
            return 0
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    body = struct.pack("<IIII", name("int"), 1 << 24, 4, 32)
    body += struct.pack("<III", name("inner") if named_inner else 0, 4 << 24 | 1, 8) + struct.pack(
        "<III", name("deep"), 1, 32
    )
    body += struct.pack("<III", name(outer), 4 << 24 | len(members), 64)
    for field, kind, bits in members:
        body += struct.pack("<III", name(field), kind, bits)
    body += struct.pack("<III", name("alias"), 8 << 24, 3)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
    return header + body + bytes(strings)


def test_fields_of_unnamed_members_count_as_the_structures_own() -> None:
    data = types(("first", 1, 0), ("", 2, 64), ("last", 1, 160))
    assert kernel_types(data, ["thing", "other"], "alias") == ({"thing": {"first": 0, "deep": 12, "last": 20}}, 4)
    with pytest.raises(DeviceError, match="no type thing"):
        kernel_types(data, ["thing"], "thing")
    with pytest.raises(DeviceError, match="no field 'x'"):
        need({"thing": {}}, "thing", "x")


@settings(deadline=None)
@given(st.integers(0, 150), st.binary(max_size=8))
def test_damaged_type_information_is_refused_or_understood(at: int, junk: bytes) -> None:
    data = bytearray(types(("first", 1, 0), ("", 2, 64)))
    data[at : at + len(junk)] = junk
    for damaged in (bytes(data), bytes(data[:at])):
        try:
            found, _ = kernel_types(damaged, ["thing"], "alias")
        except DeviceError:
            continue
        assert set(found) <= {"thing"}


@pytest.mark.skipif(not BTF.exists(), reason="this kernel has no type information")
def test_the_program_for_this_kernel() -> None:
    offsets, tracepoint = kernel_types(BTF.read_bytes(), STRUCTURES, TRACEPOINT)
    assert {"cmd_flags", "__sector", "bio", "q"} <= set(offsets["request"]) and tracepoint
    maps = Maps(control=11, bits=12, log=13, elements=100, shift=3)
    disks = [(259, minor) for minor in range(MAX_DISKS)]
    codes = [marking_program(copy, maps, offsets, disks) for copy in range(COPIES)]
    # The copies differ in their counters only, and each fits what the kernel takes.
    assert len({len(code) for code in codes}) == 1 and len(set(codes)) == COPIES
    assert len(codes[0]) // 8 < 4096
