"""The decisions of steps that drive programs: what is run, what is a warning, what is an error."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from recovery.adapt import bootloader, mount, prove, stack
from recovery.adapt.devices import Node
from recovery.adapt.host import _CHROOT_ENVIRONMENT, HostTree
from recovery.adapt.model import AdaptRequest, Job
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError, IntegrityError, UsageError
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Firmware, SystemFacts
from recovery.machine.model import Disk, Machine

ESP = Node("/dev/nvme0n1p1", "part", 1, "disk1", 1, "vfat", "AA-BB", "", "aaaaaaaa-1111-2222-3333-444455556666")
ROOT = Node("/dev/nvme0n1p2", "part", 1, "disk1", 2, "ext4", "root-uuid")


def make_job(
    root: Path, machine: Firmware, captured: Firmware, disk: str = "/dev/nvme0n1", *, secure: bool = False
) -> Job:
    body = PointBody(
        disks=(PointDisk(name="disk1", size=1, sector_size=512, chunk_size=1, root=""),),
        consistency="offline",
        firmware=captured,
        system=SystemFacts(os_name="Debian GNU/Linux 12"),
    )
    request = AdaptRequest(
        point=Point(id="p", header=PointHeader(version=1, repository="r", host="h", created=0), body=body),
        targets={"disk1": Disk(id="x", path=disk, size=1, bus="nvme")},
        machine=Machine(firmware=machine, secure_boot=secure),
    )
    return Job(request, lambda event: None, host=HostTree(root), nodes=(ESP, ROOT), root=ROOT)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def boot_disk(path: Path, code: bytes) -> str:
    path.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa")
    return str(path)


def words_of(fake: FakeRunner, program: str) -> list[tuple[str, ...]]:
    return [call[call.index(program) :] for call in fake.calls if program in call]


def test_bios_grub_goes_to_the_disks_that_had_boot_code(tmp_path: Path) -> None:
    write(tmp_path, {"usr/sbin/grub-install": "", "usr/lib/grub/i386-pc/x": "", "usr/sbin/update-grub": ""})
    disk = boot_disk(tmp_path / "disk", b"\xeb\x63GRUB")
    fake = FakeRunner()
    with use_runner(fake):
        bootloader.install(make_job(tmp_path, "bios", "bios", disk))
    assert words_of(fake, "/usr/sbin/grub-install") == [("/usr/sbin/grub-install", "--target=i386-pc", disk)]
    assert len(words_of(fake, "/usr/sbin/update-grub")) == 1


def test_bios_a_failed_grub_install_is_a_warning_for_the_captured_code_is_there(tmp_path: Path) -> None:
    write(tmp_path, {"usr/sbin/grub-install": "", "usr/lib/grub/i386-pc/x": "", "usr/sbin/update-grub": ""})
    job = make_job(tmp_path, "bios", "bios", boot_disk(tmp_path / "disk", b"\xeb\x63GRUB"))
    chroot = ("chroot", str(tmp_path), "env")
    environment = tuple(f"{key}={value}" for key, value in _CHROOT_ENVIRONMENT.items())
    said = Completed((), 1, "", "grub-install: error: embedding is not possible.")
    with use_runner(FakeRunner({(*chroot, *environment, "/usr/sbin/grub-install"): said})):
        bootloader.install(job)
    assert "embedding is not possible" in job.warnings[0]


def test_a_uefi_host_does_not_boot_on_a_bios_machine(tmp_path: Path) -> None:
    stub = boot_disk(tmp_path / "disk", b"\xfa\xb8not bootable")
    with use_runner(FakeRunner()), pytest.raises(UsageError, match="BIOS mode") as caught:
        bootloader.install(make_job(tmp_path, "bios", "uefi", stub))
    assert "UEFI" in caught.value.hint


def test_a_bios_host_does_not_boot_on_a_uefi_machine(tmp_path: Path) -> None:
    with use_runner(FakeRunner()), pytest.raises(UsageError, match="by UEFI"):
        bootloader.install(make_job(tmp_path, "uefi", "bios"))


def uefi_job(root: Path, *, secure: bool = False) -> Job:
    write(
        root,
        {
            "usr/sbin/grub-install": "",
            "usr/lib/grub/x86_64-efi/x": "",
            "usr/sbin/update-grub": "",
            "etc/os-release": "ID=debian\n",
            "boot/efi/EFI/debian/shimx64.efi": "MZshim",
            "boot/efi/EFI/debian/grubx64.efi": "MZgrub",
        },
    )
    job = make_job(root, "uefi", "uefi", secure=secure)
    job.esp, job.esp_path = ESP, "/boot/efi"
    return job


@pytest.fixture
def efivars(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda self: "efivars" in str(self) or real(self))


STALE = "Boot0007* old\tHD(1,GPT,bbbbbbbb-1111-2222-3333-444455556666,0x8,0x8)/File(\\EFI\\debian\\shimx64.efi)\n"
OURS = "Boot0005* debian\tHD(1,GPT,aaaaaaaa-1111-2222-3333-444455556666,0x8,0x8)/File(\\EFI\\debian\\shimx64.efi)\n"


@pytest.mark.usefixtures("efivars")
def test_uefi_makes_the_entry_and_deletes_the_stale_one(tmp_path: Path) -> None:
    job = uefi_job(tmp_path)
    job.request = msgspec.structs.replace(job.request, forget_entries=True)
    fake = FakeRunner({("efibootmgr", "-v"): Completed((), 0, "BootOrder: 0007\n" + STALE)})
    with use_runner(fake):
        bootloader.install(job)
    # What the firmware knew before is kept on the host.
    assert "0007" in (tmp_path / "var/lib/rekindle/undo/boot-entries.txt").read_text()
    calls = [" ".join(call) for call in words_of(fake, "efibootmgr")]
    assert "efibootmgr --quiet --bootnum 0007 --delete-bootnum" in calls
    assert any(
        "--create --disk /dev/nvme0n1 --part 1" in c and c.endswith("--loader \\EFI\\debian\\shimx64.efi")
        for c in calls
    )
    assert (tmp_path / "boot/efi/EFI/BOOT/BOOTX64.EFI").read_text() == "MZshim"
    grub = words_of(fake, "/usr/sbin/grub-install")
    assert grub[0][1:] == (
        "--target=x86_64-efi", "--efi-directory=/boot/efi", "--no-nvram", "--bootloader-id=debian",
    )  # fmt: skip


@pytest.mark.usefixtures("efivars")
def test_uefi_an_entry_that_is_there_is_only_put_first(tmp_path: Path) -> None:
    job = uefi_job(tmp_path)
    fake = FakeRunner({("efibootmgr", "-v"): Completed((), 0, "BootOrder: 0007,0001,0005\n" + STALE + OURS)})
    with use_runner(fake):
        bootloader.install(job)
    calls = [" ".join(call) for call in words_of(fake, "efibootmgr")]
    assert calls[-1] == "efibootmgr --quiet --bootorder 0005,0007,0001"
    assert not any("--create" in call or "--delete" in call for call in calls)  # nobody asked for that
    assert any("0007 (old)" in change and "--forget-entries" in change for change in job.changes)


@pytest.mark.usefixtures("efivars")
def test_uefi_firmware_that_takes_no_entry_is_a_warning(tmp_path: Path) -> None:
    job = uefi_job(tmp_path)
    with use_runner(FakeRunner({("efibootmgr",): Completed((), 5, "", "Could not prepare Boot variable: ENOSPC")})):
        bootloader.install(job)
    assert "fallback path" in job.warnings[0]


def test_secure_boot_without_shim_is_told(tmp_path: Path) -> None:
    job = uefi_job(tmp_path, secure=True)
    (tmp_path / "boot/efi/EFI/debian/shimx64.efi").unlink()
    with use_runner(FakeRunner()):
        bootloader.install(job)
    assert any("Secure Boot" in warning for warning in job.warnings)


def provable(root: Path, listing: str) -> tuple[Job, FakeRunner]:
    write(
        root,
        {
            "lib/modules/6.1/modules.dep": "kernel/nvme.ko:\n",
            "boot/vmlinuz-6.1": "k",
            "boot/initrd.img-6.1": "i",
            "usr/bin/lsinitramfs": "",
            "boot/grub/grub.cfg": "linux /vmlinuz root=UUID=root-uuid\n",
            "etc/fstab": "UUID=root-uuid / ext4 defaults 0 1\nUUID=AA-BB /boot/efi vfat nofail 0 0\n",
        },
    )
    disk = boot_disk(root / "disk", b"\xeb\x63GRUB")
    return make_job(root, "bios", "bios", disk), FakeRunner({("chroot",): Completed((), 0, listing)})


def test_what_is_there_is_proven(tmp_path: Path) -> None:
    job, fake = provable(tmp_path, "usr/lib/modules/6.1/kernel/nvme.ko.xz\n")
    with use_runner(fake):
        prove.prove(job)
    assert len(job.changes) == 4 and job.warnings == []


def test_an_initramfs_without_the_driver_is_an_error(tmp_path: Path) -> None:
    job, fake = provable(tmp_path, "usr/lib/modules/6.1/kernel/ahci.ko\n")
    with use_runner(fake), pytest.raises(IntegrityError, match="lacks nvme"):
        prove.prove(job)


def test_a_menu_that_starts_nothing_here_is_an_error(tmp_path: Path) -> None:
    job, fake = provable(tmp_path, "nvme.ko\n")
    (tmp_path / "boot/grub/grub.cfg").write_text("linux /vmlinuz root=UUID=other\n")
    with use_runner(fake), pytest.raises(IntegrityError, match="UUID=other"):
        prove.prove(job)


def test_a_filesystem_that_fstab_misses_is_a_warning(tmp_path: Path) -> None:
    job, fake = provable(tmp_path, "nvme.ko\n")
    write(tmp_path, {"etc/fstab": "UUID=root-uuid / ext4 x 0 1\nUUID=gone /srv ext4 x 0 2\n"})
    with use_runner(fake):
        prove.prove(job)
    assert "UUID=gone for /srv" in job.warnings[0]
    assert not any("fstab" in change for change in job.changes)


def test_a_machine_that_wants_a_fallback_loader_must_have_it(tmp_path: Path) -> None:
    job, fake = provable(tmp_path, "nvme.ko\n")
    uefi = uefi_job(tmp_path)
    uefi.nodes = job.nodes
    with use_runner(fake), pytest.raises(IntegrityError, match="BOOTX64"):
        prove.prove(uefi)


def test_arrays_that_run_are_not_started_again() -> None:
    member = Node("/dev/sda1", "part", 1, "disk1", 1, "linux_raid_member", "u-1")
    other = Node("/dev/sdb1", "part", 1, "disk2", 1, "linux_raid_member", "u-1")
    running = Node("/dev/md0", "raid1", 1, "disk1", parent="/dev/sda1")
    assert stack.array_members([member, other]) == {"u-1": ["/dev/sda1", "/dev/sdb1"]}
    assert stack.array_members([member, running]) == {}


def test_lvm_sees_the_restored_disks_only() -> None:
    nodes = [Node("/dev/sda2", "part", 1, content="LVM2_member"), Node("/dev/sda1", "part", 1, content="ext4")]
    report = '{"report":[{"lv":[{"vg_name":"vg","lv_name":"root","lv_size":"1024","segtype":"linear"}]}]}'
    fake = FakeRunner({("lvm", "lvs"): Completed((), 0, report)})
    with use_runner(fake):
        assert stack.volumes(nodes) == [stack.Volume("vg", "root", 1024, "linear")]
        assert stack.volumes(nodes[1:]) == []
    assert fake.calls[0][:4] == ("lvm", "lvs", "--devices", "/dev/sda2")


def test_lvm_of_a_vm_or_of_other_disks_is_left_alone() -> None:
    volume = Node("/dev/mapper/vg-vm1", "lvm", 1, content="LVM2_member", parent="/dev/sda2")
    assert stack.physical_volumes([Node("/dev/sda2", "part", 1, content="LVM2_member"), volume]) == ["/dev/sda2"]
    fake = FakeRunner()
    with use_runner(fake):
        stack.release([volume])  # no physical volume is seen: "--devices" of nothing would mean all of the machine
    assert fake.calls == []


def test_the_root_that_the_point_names_is_the_only_one(tmp_path: Path) -> None:
    """A VM's root on a volume looks like a system, too: when the host's own is not there, nothing else is adapted."""
    job = make_job(tmp_path, "bios", "bios")
    point = job.request.point
    body = msgspec.structs.replace(point.body, system=SystemFacts(root="vg0/root"))
    job.request = msgspec.structs.replace(job.request, point=msgspec.structs.replace(point, body=body))
    guest = Node("/dev/mapper/vg0-vm1", "lvm", 1, "disk1", content="ext4")
    job.nodes = (guest,)
    fake = FakeRunner()
    with use_runner(fake):
        assert mount.find_root(job) is None
    assert fake.calls == []
    assert mount._captured_node(job, "disk1") is None
    job.nodes = (Node("/dev/vdb", "disk", 1, "disk1", content="xfs"), guest)
    assert mount._captured_node(job, "disk1") == job.nodes[0]


def test_a_program_of_the_host_that_fails_is_a_command_error(tmp_path: Path) -> None:
    with (
        use_runner(FakeRunner({("chroot",): Completed((), 1, "", "boom")})),
        pytest.raises(CommandError, match="boom"),
    ):
        HostTree(tmp_path).run(["update-grub"])
