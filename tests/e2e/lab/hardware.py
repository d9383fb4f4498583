"""What a virtual machine of the lab is made of, and the QEMU command line that builds it."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recovery.commands import run
from tests.e2e.lab.accel import Acceleration

Firmware = Literal["bios", "uefi", "uefi-sb"]
DiskBus = Literal["virtio", "sata", "nvme", "scsi", "megasas", "mptsas", "pvscsi", "usb"]
Chipset = Literal["q35", "i440fx"]

OVMF = Path("/usr/share/OVMF")

#: The controller that disks of this bus hang on, if they need one of their own: QEMU's device, its bus's name.
_CONTROLLERS: dict[DiskBus, tuple[str, str]] = {
    "scsi": ("virtio-scsi-pci,id=scsi0", "scsi0.0"),
    "megasas": ("megasas,id=mega0", "mega0.0"),
    "mptsas": ("mptsas1068,id=mpt0", "mpt0.0"),
    "pvscsi": ("pvscsi,id=pvscsi0", "pvscsi0.0"),
}
#: The name under which a guest finds the shared folder.
SHARE_TAG = "lab"


@dataclass(frozen=True)
class DiskSpec:
    """A disk of the machine; ``path`` is a raw file unless ``format`` says otherwise. Sector sizes in bytes."""

    path: Path
    bus: DiskBus
    serial: str
    format: str = "raw"
    logical: int = 512
    physical: int = 512


@dataclass(frozen=True)
class Hardware:
    """What the machine is made of. ``memory`` in MiB.

    ``forwards`` maps a port on our loopback to (guest address, guest port). The guest reaches services on our
    loopback at 10.0.2.2. ``nic_slot`` decides the name Linux gives the card.
    """

    firmware: Firmware
    disks: tuple[DiskSpec, ...] = ()
    nic: str = "virtio-net-pci"
    nic_slot: int = 3
    mac: str = "52:54:00:12:34:56"
    cdrom: Path | None = None
    usb: Path | None = None
    memory: int = 2048
    cpus: int = 2
    forwards: dict[int, tuple[str, int]] = field(default_factory=dict)
    kernel: tuple[Path, Path, str] | None = None
    """Kernel, initrd and command line for a direct boot."""
    end_at_reset: bool = False
    """A restart ends QEMU: time to take the medium out."""
    tap: str = ""
    """The TAP device that the network card is plugged into, instead of QEMU's own network; the card is booted from."""
    clock: str = "utc"
    """What the machine's clock says at power-on: ``utc`` is right, ``2036-11-20T12:00:00`` ten years ahead."""
    vnc: str = ""
    """Where a person's viewer finds the screen: ``127.0.0.1:5`` is port 5905."""
    chipset: Chipset = "q35"
    cpu: str = ""
    """QEMU's name of the processor; empty for the best that the accelerator has."""
    more_nics: tuple[str, ...] = ()
    """Further network cards, one slot after the other behind the first, each with the next MAC address."""
    share: Path | None = None
    """A folder of ours that the guest may mount: 9p, virtio, tag ``lab``."""

    def with_medium(self, iso: Path, *, vnc: str = "") -> Hardware:
        """The same machine with a disc in its drive."""
        return dataclasses.replace(self, cdrom=iso, end_at_reset=True, vnc=vnc)


def command_line(hardware: Hardware, directory: Path, accel: Acceleration, sockets: Path | None = None) -> list[str]:
    """QEMU's arguments for this machine; copies the firmware's variables on the first start."""
    sockets = sockets or directory
    argv = ["qemu-system-x86_64", "-nodefaults", "-name", "rekindle-lab", "-m", str(hardware.memory)]
    argv += [*accel.arguments(), *(["-cpu", hardware.cpu] if hardware.cpu else [])]
    argv += ["-smp", str(min(hardware.cpus, accel.cpus)), "-vga", "std"]
    argv += ["-rtc", f"base={hardware.clock}"]
    argv += ["-display", f"vnc={hardware.vnc}" if hardware.vnc else "none"]
    argv += ["-no-reboot"] if hardware.end_at_reset else []
    board = "pc" if hardware.chipset == "i440fx" else "q35"
    argv += ["-machine", f"{board},smm=on" if hardware.firmware == "uefi-sb" else board]
    argv += _firmware(hardware.firmware, directory)
    argv += ["-qmp", f"unix:{sockets}/qmp.sock,server=on,wait=off"]
    argv += [
        "-chardev",
        f"socket,id=serial0,path={sockets}/serial.sock,server=on,wait=off",
    ]
    argv += ["-serial", "chardev:serial0", "-device", "virtio-rng-pci,addr=0x1d"]
    argv += _storage(hardware)
    argv += _network(hardware)
    if hardware.share:
        argv += ["-virtfs", f"local,path={hardware.share},mount_tag={SHARE_TAG},security_model=none,multidevs=remap"]
    if hardware.kernel:
        kernel, initrd, words = hardware.kernel
        argv += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", words]
    return argv


def _firmware(firmware: Firmware, directory: Path) -> list[str]:
    if firmware == "bios":
        return []
    code, template = {
        "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        "uefi-sb": ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
    }[firmware]
    variables = directory / "OVMF_VARS.fd"
    if not variables.exists():
        shutil.copy(OVMF / template, variables)
    return [
        "-global", "driver=cfi.pflash01,property=secure,value=on",
        "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / code}",
        "-drive", f"if=pflash,format=raw,unit=1,file={variables}",
    ][0 if firmware == "uefi-sb" else 2 :]  # fmt: skip


def _network(hardware: Hardware) -> list[str]:
    forwards = "".join(
        f",hostfwd=tcp:127.0.0.1:{port}-{address}:{guest}" for port, (address, guest) in hardware.forwards.items()
    )
    network = (
        f"tap,id=net0,ifname={hardware.tap},script=no,downscript=no" if hardware.tap else f"user,id=net0{forwards}"
    )
    card = f"{hardware.nic},netdev=net0,mac={hardware.mac},addr={hardware.nic_slot:#x}"
    if hardware.tap:
        # UEFI has its own driver for the card; only a BIOS needs the boot program of the card's ROM.
        card += ",bootindex=0" + ("" if hardware.firmware == "bios" else ",romfile=")
    argv = ["-netdev", network, "-device", card]
    start, last = hardware.mac[:-2], int(hardware.mac[-2:], 16)
    for number, nic in enumerate(hardware.more_nics, 1):
        # A network of its own: two cards in one would make a loop of a bridge over both.
        argv += ["-netdev", f"user,id=net{number},net=10.0.{2 + number}.0/24"]
        slot, mac = hardware.nic_slot + number, f"{start}{(last + number) % 256:02x}"
        argv += ["-device", f"{nic},netdev=net{number},mac={mac},addr={slot:#x}"]
    return argv


def _storage(hardware: Hardware) -> list[str]:
    argv: list[str] = []
    # The medium comes first in the boot order: a person who puts a disc in wants to boot from it.
    first = 1 if hardware.cdrom or hardware.usb or hardware.kernel or hardware.tap else 0
    buses = {disk.bus for disk in hardware.disks}
    if hardware.cdrom:
        # i440fx has the two channels of its PIIX, the disks' AHCI is a card of its own there. OVMF leaves the channels
        # switched off when it starts a kernel from outside, and Linux finds no drive then: its drive gets a card too.
        drive = "ide-cd,bus=ide.5" if hardware.chipset == "q35" else "ide-cd,bus=ide.1"
        if hardware.chipset == "i440fx" and hardware.firmware != "bios":
            argv += ["-device", "ich9-ahci,id=cdahci,addr=0x16"]
            drive = "ide-cd,bus=cdahci.0"
        argv += ["-drive", f"if=none,id=cd,media=cdrom,readonly=on,format=raw,file={hardware.cdrom}"]
        # A kernel that QEMU loads is the first in the boot order already.
        argv += ["-device", f"{drive},drive=cd" + ("" if hardware.kernel else ",bootindex=0")]
    if hardware.usb or "usb" in buses:
        argv += ["-device", "qemu-xhci,id=xhci,addr=0x1c"]
    if hardware.usb:
        argv += ["-drive", f"if=none,id=usb,format=raw,file={hardware.usb}"]
        argv += ["-device", "usb-storage,bus=xhci.0,drive=usb,serial=STICK0001,removable=on,bootindex=0"]
    if "sata" in buses and hardware.chipset == "i440fx":
        argv += ["-device", "ich9-ahci,id=ahci,addr=0x17"]
    for number, bus in enumerate(b for b in _CONTROLLERS if b in buses):
        argv += ["-device", f"{_CONTROLLERS[bus][0]},addr={0x1B - number:#x}"]
    for number, disk in enumerate(hardware.disks):
        argv += [
            "-drive",
            f"if=none,id=disk{number},format={disk.format},discard=unmap,cache=writeback,file={disk.path}",
        ]
        tail = f"drive=disk{number},serial={disk.serial},bootindex={first + number}"
        if (disk.logical, disk.physical) != (512, 512):
            tail += f",logical_block_size={disk.logical},physical_block_size={disk.physical}"
        argv += ["-device", f"{_disk_device(disk.bus, number, hardware.chipset)},{tail}"]
    return argv


def _disk_device(bus: DiskBus, number: int, chipset: Chipset) -> str:
    match bus:
        case "virtio":
            return f"virtio-blk-pci,addr={0x10 + number:#x}"
        case "nvme":
            return f"nvme,addr={0x10 + number:#x}"
        case "sata":
            return f"ide-hd,bus={'ide' if chipset == 'q35' else 'ahci'}.{number}"
        case "usb":
            return "usb-storage,bus=xhci.0"
        case "mptsas":
            # Linux makes no port of a SAS address that is zero, which is what QEMU gives a disk without a name.
            return f"scsi-hd,bus={_CONTROLLERS[bus][1]},scsi-id={number},wwn={0x5000C50000000001 + number:#x}"
        case _:
            return f"scsi-hd,bus={_CONTROLLERS[bus][1]},scsi-id={number}"


@functools.cache
def known_devices() -> frozenset[str]:
    """The names (and aliases) of the devices that this machine's QEMU can emulate. Raises CommandError."""
    said = run(["qemu-system-x86_64", "-device", "help"]).stdout
    return frozenset(re.findall(r'(?:name|alias) "([^"]+)"', said))


@functools.cache
def emulator_version() -> str:
    """This machine's QEMU, such as ``7.2.18``. Raises CommandError."""
    found = re.search(r"version ([0-9.]+)", run(["qemu-system-x86_64", "--version"]).stdout)
    return found[1] if found else ""


def make_blank_disk(path: Path, size: int) -> Path:
    """A sparse raw disk of ``size`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run(["qemu-img", "create", "-q", "-f", "raw", path, str(size)])
    return path


def free_port(count: int = 1) -> Sequence[int]:
    """Ports on our loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
