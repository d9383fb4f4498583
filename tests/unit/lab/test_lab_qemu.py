"""The keyboard, the command line and the acceleration probe of the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.lab.accel import KVM, TCG
from tests.e2e.lab.hardware import DiskSpec, Hardware, command_line
from tests.e2e.lab.keyboard import press_of_name, presses_of_text
from tests.e2e.lab.qemu import LabError, Machine


def test_text_becomes_presses() -> None:
    assert presses_of_text("Ab-_ 1!\n") == [
        ["shift", "a"], ["b"], ["minus"], ["shift", "minus"], ["spc"], ["1"], ["shift", "1"], ["ret"],
    ]  # fmt: skip
    assert press_of_name("ctrl+alt+F2") == ["ctrl", "alt", "f2"]
    with pytest.raises(ValueError, match="no key"):
        presses_of_text("ü")


@pytest.mark.parametrize("bus", ["virtio", "sata", "nvme", "scsi"])
def test_a_disk_carries_its_serial_on_every_bus(tmp_path: Path, bus: str) -> None:
    disk = DiskSpec(tmp_path / "d.img", bus, "SER123")  # type: ignore[arg-type]
    words = " ".join(command_line(Hardware("bios", (disk,)), tmp_path, TCG))
    assert "serial=SER123" in words
    assert f"file={tmp_path}/d.img" in words


def test_the_medium_boots_before_the_disk(tmp_path: Path) -> None:
    disk = DiskSpec(tmp_path / "d.img", "nvme", "S")
    words = " ".join(command_line(Hardware("bios", (disk,), cdrom=tmp_path / "a.iso"), tmp_path, KVM))
    assert "drive=cd,bootindex=0" in words
    assert "drive=disk0,serial=S,bootindex=1" in words


def test_firmware_variables_survive_a_power_cycle(tmp_path: Path) -> None:
    command_line(Hardware("uefi"), tmp_path, TCG)
    (tmp_path / "OVMF_VARS.fd").write_bytes(b"what the last boot stored")
    command_line(Hardware("uefi"), tmp_path, TCG)
    assert (tmp_path / "OVMF_VARS.fd").read_bytes() == b"what the last boot stored"


def test_secure_boot_guards_its_flash(tmp_path: Path) -> None:
    words = " ".join(command_line(Hardware("uefi-sb"), tmp_path, TCG))
    assert "smm=on" in words
    assert "property=secure,value=on" in words
    plain = tmp_path / "plain"
    plain.mkdir()
    assert "property=secure" not in " ".join(command_line(Hardware("uefi"), plain, TCG))


def test_a_machine_that_is_off_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="off"):
        Machine(Hardware("bios"), tmp_path, TCG).screen_text()


def test_the_translator_gets_one_processor(tmp_path: Path) -> None:
    assert "-smp 1 " in " ".join(command_line(Hardware("bios", cpus=4), tmp_path, TCG))
    assert "-smp 4 " in " ".join(command_line(Hardware("bios", cpus=4), tmp_path, KVM))


def test_a_panic_ends_the_wait(tmp_path: Path) -> None:
    machine = Machine(Hardware("bios"), tmp_path, TCG)
    machine.serial_log.write_text("[   61.05] Kernel panic - not syncing: Fatal exception in interrupt\n")
    with pytest.raises(LabError, match="panicked"):
        machine.wait_for_serial("login:", timeout=600)
