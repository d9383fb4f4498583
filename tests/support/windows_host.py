"""Disks that look like those of a Windows host: NTFS volumes by ``mkntfs``, registry hives by hivex. No file of
Microsoft is in them, and nothing in them starts."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from recovery.adapt.ntfs import wait_until_let_go
from tests.support.hives import Keys, make_hive

MIB = 1024 * 1024
SYSTEM = "Windows/System32/config/SYSTEM"

#: A GPT as Windows lays it out: EFI system partition, Microsoft reserved, Windows.
GPT = (
    "label: gpt\nsize=34MiB, type=uefi, uuid=11111111-1111-1111-1111-111111111111\n"
    "size=4MiB, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n"
    "size=40MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, uuid=33333333-3333-3333-3333-333333333333, name=Windows\n"
)
#: An MBR: what the BIOS starts, Windows, a data volume.
MBR = "label: dos\nlabel-id: 0x1234abcd\nsize=8MiB, type=7, bootable\nsize=40MiB, type=7\nsize=20MiB, type=7\n"
#: What Windows has after it was installed on AHCI: the other drivers are there, and not loaded at its start.
DRIVERS: Mapping[str, int] = {"storahci": 0, "stornvme": 3, "pvscsi": 3, "megasas": 3, "pciide": 3}


def sh(*words: object, input: str | None = None, ok: tuple[int, ...] = (0,)) -> str:
    """Run a tool; its output, or an AssertionError with its words."""
    done = subprocess.run([str(w) for w in words], input=input, text=True, capture_output=True, check=False)
    assert done.returncode in ok, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def ntfs(device: str | Path, folder: Path, options: str = "rw") -> Iterator[Path]:
    """The volume mounted by ntfs-3g."""
    folder.mkdir(exist_ok=True)
    sh("mount", "-t", "ntfs-3g", "-o", options, device, folder)
    try:
        yield folder
    finally:
        sh("umount", folder)
        assert wait_until_let_go(str(device))


def system_keys(drivers: Mapping[str, int] = DRIVERS, letters: Mapping[str, bytes] | None = None) -> Keys:
    """The keys of a SYSTEM hive; every driver that is not loaded has a ``StartOverride`` besides."""
    keys: dict[str, Mapping[str, int | str | bytes]] = {
        "Select": {"Current": 1, "Default": 1, "Failed": 0, "LastKnownGood": 1},
        "MountedDevices": dict(letters or {}),
    }
    for name, start in drivers.items():
        service = f"ControlSet001/Services/{name}"
        keys[service] = {"Type": 1, "Start": start, "ErrorControl": 1, "ImagePath": f"System32\\drivers\\{name}.sys"}
        if start:
            keys[f"{service}/StartOverride"] = {"0": start}
    return keys


def make_windows(root: Path, keys: Keys, drivers: Mapping[str, int] = DRIVERS) -> None:
    """The files of a Windows on a mounted volume."""
    folder = root / "Windows" / "System32"
    for name in ("config", "drivers"):
        (folder / name).mkdir(parents=True)
    for name in drivers:
        (folder / "drivers" / f"{name}.sys").write_bytes(b"MZ")
    make_hive(root / SYSTEM, keys)
    version = {"ProductName": "Windows 10 Pro", "CurrentBuildNumber": "22631"}
    make_hive(folder / "config" / "SOFTWARE", {"Microsoft/Windows NT/CurrentVersion": version})
    kernel = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664)
    (folder / "ntoskrnl.exe").write_bytes(kernel.ljust(512, b"\0"))
    (root / "hiberfil.sys").write_bytes(bytes(8192))


def gpt_letter(guid: str) -> bytes:
    """An entry of MountedDevices for a partition of a GPT."""
    return b"DMIO:ID:" + uuid.UUID(guid).bytes_le


def set_flag(image: Path, start: int, *, dirty: bool) -> None:
    """Set or clear the flag of an NTFS volume that asks Windows to check it: in ``$Volume``, the fourth
    record, of which the mirror of the table of files has a copy."""
    with image.open("r+b") as file:
        file.seek(start)
        boot = file.read(512)
        cluster = struct.unpack_from("<H", boot, 0x0B)[0] * boot[0x0D]
        records = [start + where * cluster + 3 * 1024 for where in struct.unpack_from("<QQ", boot, 0x30)]
        file.seek(records[0])
        data = bytearray(file.read(1024))
        at = _attribute(data, 0x70)
        flags = at + struct.unpack_from("<H", data, at + 20)[0] + 10
        struct.pack_into("<H", data, flags, 1 if dirty else 0)
        for record in records:
            file.seek(record)
            file.write(data)


def set_log(image: Path, start: int, *, major: int, client: int) -> None:
    """A restart page at the start of the volume's log: as Windows leaves it when it was not shut down."""
    with image.open("r+b") as file:
        file.seek(start)
        boot = file.read(512)
        cluster = struct.unpack_from("<H", boot, 0x0B)[0] * boot[0x0D]
        file.seek(start + struct.unpack_from("<Q", boot, 0x30)[0] * cluster + 2 * 1024)
        record = file.read(1024)
        at = _attribute(record, 0x80)
        runs = at + struct.unpack_from("<H", record, at + 32)[0]
        lengths, offsets = record[runs] & 15, record[runs] >> 4
        first = int.from_bytes(record[runs + 1 + lengths : runs + 1 + lengths + offsets], "little", signed=True)
        page = bytearray(4096)
        struct.pack_into("<4sHHQIIHhh", page, 0, b"RSTR", 0x1E, 9, 0, 4096, 4096, 0x30, 1 if major == 1 else 0, major)
        struct.pack_into("<QHHHHIHHQ", page, 0x30, 1, 1, 0xFFFF, client, 0, 45, 0xD0, 0x40, 2 * MIB)
        file.seek(start + first * cluster)
        file.write(bytes(page) + bytes(page))


def _attribute(record: bytes | bytearray, kind: int) -> int:
    """Where an attribute begins in a record."""
    at = int(struct.unpack_from("<H", record, 0x14)[0])
    while struct.unpack_from("<I", record, at)[0] != kind:
        at += struct.unpack_from("<I", record, at + 4)[0]
    return at
