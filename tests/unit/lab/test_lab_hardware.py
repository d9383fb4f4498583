"""The machines of the hardware matrix: QEMU takes every bus, chipset, card and sector size that is described."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.lab.accel import TCG
from tests.e2e.lab.hardware import Chipset, DiskBus, DiskSpec, Firmware, Hardware, command_line, make_blank_disk

needs_qemu = pytest.mark.skipif(not Path("/usr/bin/qemu-system-x86_64").exists(), reason="needs QEMU")
BUSES: tuple[DiskBus, ...] = ("virtio", "sata", "nvme", "scsi", "megasas", "mptsas", "pvscsi", "usb")


def words(hardware: Hardware, directory: Path) -> str:
    return " ".join(command_line(hardware, directory, TCG))


def test_sector_sizes_are_told_only_when_they_are_not_usual(tmp_path: Path) -> None:
    disk = tmp_path / "d.img"
    assert "block_size" not in words(Hardware("bios", (DiskSpec(disk, "nvme", "S"),)), tmp_path)
    said = words(Hardware("bios", (DiskSpec(disk, "nvme", "S", logical=4096, physical=4096),)), tmp_path)
    assert "logical_block_size=4096,physical_block_size=4096" in said


def test_disks_of_one_bus_share_its_controller(tmp_path: Path) -> None:
    disks = tuple(DiskSpec(tmp_path / f"{n}.img", "megasas", f"S{n}") for n in range(2))
    said = words(Hardware("bios", disks), tmp_path)
    assert said.count("megasas,id=mega0") == 1
    assert "scsi-hd,bus=mega0.0,scsi-id=1" in said


def test_the_processor_asked_for_is_the_last_word(tmp_path: Path) -> None:
    said = words(Hardware("bios", cpu="qemu64"), tmp_path)
    assert said.rindex("-cpu qemu64") > said.index("-cpu max")


def test_further_cards_have_their_own_address(tmp_path: Path) -> None:
    said = words(Hardware("bios", mac="52:54:00:12:34:ff", more_nics=("e1000e",)), tmp_path)
    assert "e1000e,netdev=net1,mac=52:54:00:12:34:00,addr=0x4" in said


@needs_qemu
@pytest.mark.parametrize("chipset", ["q35", "i440fx"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_qemu_takes_every_machine(tmp_path: Path, chipset: Chipset, firmware: Firmware) -> None:
    disks = tuple(DiskSpec(make_blank_disk(tmp_path / f"{bus}.img", 1 << 20), bus, f"S-{bus}") for bus in BUSES)
    hardware = Hardware(
        firmware, disks, chipset=chipset, cpu="qemu64", memory=256, share=tmp_path,
        usb=make_blank_disk(tmp_path / "stick.img", 1 << 20), nic="e1000e", more_nics=("vmxnet3", "rtl8139"),
    )  # fmt: skip
    # Stopped at once: QEMU has made the whole machine when it answers.
    argv = [*command_line(hardware, tmp_path, TCG), "-S", "-monitor", "stdio"]
    done = subprocess.run(argv, input=b"info qtree\nquit\n", capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert all(f"S-{bus}".encode() in done.stdout for bus in BUSES)
