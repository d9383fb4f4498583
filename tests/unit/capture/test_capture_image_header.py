"""Which image headers make QEMU open further files."""

from __future__ import annotations

import struct

import pytest

from recovery.capture.image_header import names_other_files


def qcow2(*, version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    start = b"QFI\xfb" + struct.pack(">IQ", version, backing)
    return start.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(4096)


def kdmv(*, capacity: int = 2048, text: bytes = b"") -> bytes:
    return (b"KDMV" + struct.pack("<IIQ", 1, 3, capacity)).ljust(512, b"\0") + text + bytes(4096)


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"", ""),
        (bytes(4096), ""),
        (b"QFI\xfb", ""),
        (qcow2(), ""),
        (qcow2(backing=104), "a backing file"),
        (qcow2(version=2, backing=72), "a backing file"),
        (qcow2(features=0b100), "an external data file"),
        (qcow2(features=0b011), ""),
        # Version 2 has no features: what lies there is something else.
        (qcow2(version=2, features=0b100), ""),
        (b"QED\0".ljust(16, b"\0") + struct.pack("<Q", 1), "a backing file"),
        (kdmv(text=b'createType="monolithicSparse"\n'), ""),
        (kdmv(text=b'parentFileNameHint="/etc/shadow"\n'), "a parent image"),
        (kdmv(capacity=0), "other files as its extents"),
        (b'# Disk DescriptorFile\nversion=1\nRW 8 FLAT "/etc/shadow" 0\n', "other files as its extents"),
        (b"#!\r\n#\n \nversion=3\n", "other files as its extents"),
        (b"# a script\necho version=1\n", ""),
    ],
)
def test_what_a_header_names(head: bytes, named: str) -> None:
    assert names_other_files(head) == named
