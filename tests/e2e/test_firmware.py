"""Hosts come back on machines of another firmware mode: restored by the medium, then booted there.

Each host is captured from the disk of a dead machine, restored by the real engine in the medium under QEMU (with its
plan shown), and started on the new machine, where it tells what it came up with. Asked for by name, because each takes
minutes: REKINDLE_LANDINGS="bios-mbr-to-uefi uefi-grub-to-bios" or =all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery.units import MIB
from tests.e2e.lab import firmware_hosts
from tests.e2e.lab.accel import best_acceleration
from tests.e2e.lab.firmware_hosts import Kind, report
from tests.e2e.lab.hardware import DiskBus, DiskSpec, Firmware, Hardware
from tests.e2e.lab.medium_shell import GUEST_SHARE, medium_files, medium_shell
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.server import rekindle

pytestmark = [pytest.mark.e2e, pytest.mark.root]

#: Seconds with KVM.
_RESTORE, _BOOT = 240, 90


@dataclass(frozen=True)
class Landing:
    """A host on a machine: what it must say there, and words of the plan and of the report of its adaptation."""

    kind: Kind
    firmware: Firmware
    bus: DiskBus
    larger: int
    """MiB that the new disk is larger."""
    options: str
    planned: tuple[str, ...]
    done: tuple[str, ...]
    what: str = ""

    @property
    def name(self) -> str:
        """What pytest calls it."""
        return f"{self.kind}-to-{self.what or self.firmware}"


LANDINGS = (
    Landing(
        "bios-mbr", "uefi", "nvme", 1024, "",
        ("firmware-converted", "an EFI system partition of 512 MiB at the end of the disk (partition 3) is made"),
        ("shim and GRUB, signed", "resume=/dev/disk/by-id/ata-GONE_0815-part3 was taken out"),
    ),
    Landing(
        "bios-mbr", "uefi-sb", "nvme", 0, "--use-swap",
        ("firmware-converted", "from the end of swap partition 5", "secure-boot-on"),
        ("was shortened", "shim and GRUB, signed"),
    ),
    Landing(
        "uefi-grub", "bios", "scsi", 0, "",
        ("firmware-converted", "a BIOS boot partition of 1007 KiB in front of the first partition"),
        ("medium's GRUB for BIOS was installed",),
    ),
    Landing(
        "uefi-systemd-boot", "uefi", "nvme", 0, "",
        (),
        ("/etc/kernel/cmdline", "boot entries' kernels, initramfs and root filesystem are there"),
    ),
    Landing("bios-dracut", "bios", "nvme", 512, "", (), ("was rebuilt with",)),
    Landing(
        "bios-mbr", "bios", "scsi", 3 << 20, "--to-gpt",
        ("gpt-converted", "A BIOS boot partition"),
        ("fstab: /dev/vda1 became", "was taken out"), "gpt",
    ),
)  # fmt: skip


_WANTED = os.environ.get("REKINDLE_LANDINGS", "").split()


@pytest.mark.skipif(os.geteuid() != 0, reason="making a host's disk needs root")
@pytest.mark.skipif(not _WANTED, reason="REKINDLE_LANDINGS names no landing")
@pytest.mark.parametrize("landing", LANDINGS, ids=lambda landing: landing.name)
def test_a_host_comes_up_on_the_other_firmware(landing: Landing, tmp_path: Path) -> None:
    """One landing each; REKINDLE_E2E_OUTPUT keeps logs and serial lines."""
    if "all" not in _WANTED and landing.name not in _WANTED:
        pytest.skip("not asked for")
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path)) / landing.name
    folder.mkdir(parents=True, exist_ok=True)
    source = firmware_hosts.build(landing.kind, print)
    target = folder / "target.img"
    with target.open("wb") as file:
        file.truncate(source.stat().st_size + landing.larger * MIB)
    disk = DiskSpec(target, landing.bus, "NEWDISK01")
    said = restore(landing, source, disk, folder)
    (folder / "restore.log").write_text(said)
    for words in (*landing.planned, *landing.done):
        assert words in said, said[-6000:]

    found = boot(landing.firmware, disk, folder)
    assert found["mode"] == ("bios" if landing.firmware == "bios" else "uefi")
    assert found["secure"] == {"bios": "", "uefi": "0", "uefi-sb": "1"}[landing.firmware]
    assert found["root"].startswith({"nvme": "/dev/nvme0n1p", "scsi": "/dev/sda"}[landing.bus])
    assert found["swap"] and not found["missing"] and not found["failed"], found
    assert bool(found["esp"]) == (landing.firmware != "bios" or landing.kind == "uefi-grub")
    assert "GONE" not in found["cmdline"] and "OLD01" not in found["cmdline"], found
    target.unlink()


def restore(landing: Landing, source: Path, disk: DiskSpec, folder: Path) -> str:
    """Capture the dead host's disk, and restore it in the medium on the new machine; what the command said."""
    secret = folder / "secret"
    secret.write_text("lab passphrase\n")
    with medium_shell(folder, firmware=landing.firmware, disks=(disk,), say=print) as shell:
        repository = shell.share / "repository"
        handed = shell.share / "secret"
        handed.write_text("lab passphrase\n")
        rekindle("repo", "init", repository, "--passphrase-file", secret, "--recovery-key-file", folder / "recovery")
        rekindle("capture", repository, "--host", "lab", "--format", "raw", "--secret-file", secret, source)
        path = shell.disk(disk.serial)
        words = f"--host lab --target disk1={path} --confirm disk1={disk.serial} --secret-file {GUEST_SHARE}/secret"
        code, said = shell.run(f"rekindle restore {GUEST_SHARE}/repository {words} {landing.options}", _RESTORE)
        assert code == 0, said[-6000:]
        shell.power_off()
    return said


def boot(firmware: Firmware, disk: DiskSpec, folder: Path) -> dict[str, str]:
    """Start the new machine without the medium; what the host says there."""
    accel = best_acceleration(medium_files().kernel)
    with Machine(Hardware(firmware, (disk,), memory=1024), folder / "vm", accel) as machine:
        machine.wait_for_serial("LAB-REPORT-END", _BOOT * accel.slowness)
        text = machine.serial_text()
        machine.wait_for_power_off(_BOOT * accel.slowness)
    (folder / "boot.log").write_text(text)
    return report(text)
