"""Decisions of the steps that make a host start in another firmware mode."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from recovery.adapt import bootloader, esp_mount, loader_entries, make_room, rename
from recovery.adapt.devices import Node
from recovery.adapt.efivars import parse
from recovery.adapt.esp_mount import with_esp
from recovery.adapt.grub_bios import install_bios
from recovery.adapt.host import HostTree
from recovery.adapt.initramfs import uses_initramfs_tools
from recovery.adapt.loader_entries import check_entries, parse_entry, pin_command_line, repair_entries, uses_entries
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.names import rewrite_parameters, rewrite_resume
from recovery.adapt.signed import install_signed, lead_to
from recovery.adapt.steps import STEPS, find, to_run
from recovery.adapt.undo import FOLDER, remember, write_down
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import IntegrityError, NotFoundError, UsageError
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Content, Firmware, Partition, PartitionTable
from recovery.machine.model import Disk, Machine
from recovery.units import GIB, MIB

ROOT = Node("/dev/nvme0n1p2", "part", 1, "disk1", 2, "ext4", "root-uuid", part_uuid="p-2")
ESP = Node("/dev/nvme0n1p3", "part", 1, "disk1", 3, "vfat", "AA-BB", part_uuid="p-3")
LINUX = Partition(number=1, start=MIB, size=GIB, type="83", content=Content(kind="ext4"))
MBR = PartitionTable(kind="mbr", partitions=(LINUX,))
WITH_ESP = PartitionTable(
    kind="mbr",
    partitions=(LINUX, Partition(number=2, start=2 * GIB, size=GIB, type="ef", content=Content(kind="vfat"))),
)
GPT = PartitionTable(kind="gpt", partitions=(LINUX,))


def request(now: Firmware, was: Firmware, *, id: str = "p", disk: str = "/dev/nvme0n1") -> AdaptRequest:
    source = PointDisk(name="disk1", size=4 * GIB, sector_size=512, chunk_size=1, root="", table=MBR)
    return AdaptRequest(
        point=Point(
            id=id,
            header=PointHeader(version=1, repository="r", host="h", created=0),
            body=PointBody(disks=(source,), consistency="offline", firmware=was),
        ),
        targets={"disk1": Disk(id="x", path=disk, size=4 * GIB, bus="nvme")},
        machine=Machine(firmware=now),
    )


def job_for(root: Path, asked: AdaptRequest) -> Job:
    return Job(asked, lambda event: None, host=HostTree(root), nodes=(ROOT, ESP), root=ROOT)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_only_another_firmware_mode_needs_a_partition() -> None:
    assert make_room.needed(request("uefi", "bios"), {"disk1": MBR}) == "esp"
    assert make_room.needed(request("uefi", "bios"), {"disk1": WITH_ESP}) is None
    assert make_room.needed(request("bios", "uefi"), {"disk1": GPT}) == "bios_grub"
    assert make_room.needed(request("bios", "uefi"), {"disk1": MBR}) is None  # the gap behind the MBR
    assert make_room.needed(request("bios", "bios"), {"disk1": GPT}) is None  # it started so before
    assert make_room.needed(request("uefi", "uefi", id=""), {"disk1": MBR}) == "esp"  # without a point the disks tell
    assert make_room.needed(request("unknown", "unknown"), {"disk1": GPT}) is None


def test_steps_by_name_bring_what_they_need() -> None:
    asked = request("uefi", "bios")
    assert [s.name for s in to_run(asked, ["bootloader"])] == ["settle", "assemble", "mount", "bootloader"]
    assert [s.name for s in to_run(asked, ["adapt.tables"])] == ["settle", "tables"]
    assert [s.name for s in to_run(asked, ["grow", "names"])] == ["settle", "grow", "mount", "names"]
    assert to_run(asked) == tuple(step for step in STEPS if not step.name.startswith("windows"))
    same = [s.name for s in to_run(request("bios", "bios"))]
    assert "room" not in same and "esp" not in same
    with pytest.raises(UsageError, match="no step 'x'"):
        find("x")


def test_a_session_that_sleeps_in_swap_is_given_up(tmp_path: Path) -> None:
    write(tmp_path, {"etc/fstab": "UUID=r / ext4 x 0 1\n", "etc/kernel/cmdline": "root=UUID=r resume=UUID=s\n"})
    job = job_for(tmp_path, request("uefi", "uefi"))
    asleep = Node("/dev/nvme0n1p3", "part", 9, "disk1", 3, "swsuspend", "s", "swap0", parent="/dev/nvme0n1")
    job.nodes = (*job.nodes, asleep)
    with use_runner(fake := FakeRunner()):
        rename.rename(job)
    assert ("mkswap", "-U", "s", "-L", "swap0", "/dev/nvme0n1p3") in fake.calls
    assert job.nodes[-1].content == "swap" and "given up" in job.changes[0]
    assert "resume=UUID=s" in (tmp_path / "etc/kernel/cmdline").read_text()


def test_fstab_gets_one_line_for_the_esp() -> None:
    text = "UUID=r / ext4 x 0 1\nUUID=0LD /boot/efi vfat x 0 1\n"
    new = with_esp(text, "AA-BB", "/boot/efi")
    assert new.splitlines()[1:] == [
        "#rekindle# UUID=0LD /boot/efi vfat x 0 1",
        "UUID=AA-BB /boot/efi vfat umask=0077 0 1",
    ]
    assert with_esp(new, "aa-bb", "/boot/efi") == new
    assert with_esp("", "AA-BB", "/efi") == "UUID=AA-BB /efi vfat umask=0077 0 1\n"


def test_a_bios_machine_needs_no_esp(tmp_path: Path) -> None:
    with use_runner(FakeRunner()):
        assert "needs none" in esp_mount.mount_esp(job_for(tmp_path, request("bios", "uefi")))


def medium(root: Path) -> Path:
    """A system with the signed files."""
    names = ("shim/shimx64.efi.signed", "shim/mmx64.efi.signed", "shim/BOOTX64.CSV")
    write(root, {f"usr/lib/{name}": f"MZ{name}" for name in (*names, "grub/x86_64-efi-signed/grubx64.efi.signed")})
    return root


def test_the_mediums_signed_loader_leads_to_the_hosts_menu(tmp_path: Path) -> None:
    job = job_for(tmp_path / "host", request("uefi", "bios"))
    (tmp_path / "host/boot/grub").mkdir(parents=True)
    fake = FakeRunner({
        ("grub-probe",): Completed((), 0, "root-uuid\n"),
        ("grub-mkrelpath",): Completed((), 0, "/@rootfs/boot/grub\n"),
    })  # fmt: skip
    assert job.host is not None
    with use_runner(fake):
        install_signed(job, job.host, tmp_path / "esp", medium(tmp_path / "medium"))
    folder = tmp_path / "esp/EFI/debian"
    assert (folder / "shimx64.efi").read_text() == "MZshim/shimx64.efi.signed"
    assert (folder / "grub.cfg").read_text() == lead_to("root-uuid", "/@rootfs/boot/grub")
    assert "set prefix=($root)'/@rootfs/boot/grub'" in (folder / "grub.cfg").read_text()
    assert sorted(p.name for p in folder.iterdir()) == [
        "BOOTX64.CSV", "grub.cfg", "grubx64.efi", "mmx64.efi", "shimx64.efi",
    ]  # fmt: skip
    with pytest.raises(NotFoundError, match="signed"):
        install_signed(job, job.host, tmp_path / "esp", tmp_path / "nothing")


def bios_disk(path: Path, *, gpt: bool, code: bytes = b"") -> str:
    sector = bytearray(code.ljust(510, b"\0") + b"\x55\xaa")
    sector[450] = 0xEE if gpt else 0x83
    path.write_bytes(bytes(sector))
    return str(path)


def test_a_bios_gets_the_mediums_grub_when_the_host_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recovery.adapt import grub_bios

    disk = bios_disk(tmp_path / "disk", gpt=True, code=b"not bootable")
    job = job_for(tmp_path / "host", request("bios", "uefi", disk=disk))
    write(tmp_path / "host", {"boot/grub/grub.cfg": "menu", "usr/sbin/update-grub": ""})
    monkeypatch.setattr(grub_bios, "probe_table", lambda path: MBR)
    fake = FakeRunner()
    with use_runner(fake):
        bootloader.install(job)
    (call,) = (call for call in fake.calls if call[0] == "grub-install")
    assert call[1:] == (
        "--target=i386-pc", "--directory=/usr/lib/grub/i386-pc", f"--boot-directory={tmp_path}/host/boot", disk,
    )  # fmt: skip
    assert Path(disk).read_bytes()[446] == 0x80  # some BIOSes start nothing else
    assert (tmp_path / "host" / FOLDER.lstrip("/") / f"boot-sector-{disk.replace('/', '-')}.bin").stat().st_size == 440
    assert any("grub-pc" in warning for warning in job.warnings)


def test_a_host_without_grub_is_refused_by_a_bios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recovery.adapt import grub_bios

    disk = bios_disk(tmp_path / "disk", gpt=False)
    job = job_for(tmp_path / "host", request("bios", "uefi", disk=disk))
    monkeypatch.setattr(grub_bios, "probe_table", lambda path: MBR)
    assert job.host is not None
    with use_runner(FakeRunner()), pytest.raises(UsageError, match="no GRUB"):
        install_bios(job, job.host)


ENTRY = """\
title Debian
version 6.12
options root=/dev/vda2 ro
options quiet
linux /id/6.12/linux
initrd /id/6.12/microcode
initrd /id/6.12/initrd.img-6.12
"""


def entry_job(root: Path) -> Job:
    write(
        root,
        {
            "efi/loader/entries/id-6.12.conf": ENTRY,
            "efi/id/6.12/linux": "k",
            "efi/id/6.12/microcode": "m",
            "efi/id/6.12/initrd.img-6.12": "old",
            "boot/initrd.img-6.12": "new",
            "etc/fstab": "",
        },
    )
    job = job_for(root, request("uefi", "uefi"))
    job.esp_path = "/efi"
    return job


def test_boot_entries_keep_their_words_and_get_the_new_initramfs(tmp_path: Path) -> None:
    job = entry_job(tmp_path)
    host = job.host
    assert host is not None and uses_entries(job, host)
    with use_runner(FakeRunner()):
        rename.rename(job)
    # A tool in the chroot would take the words of the medium's kernel.
    assert (tmp_path / "etc/kernel/cmdline").read_text() == "root=UUID=root-uuid ro quiet\n"
    assert "root=UUID=root-uuid ro" in (tmp_path / "efi/loader/entries/id-6.12.conf").read_text()
    repair_entries(job, host)
    assert (tmp_path / "efi/id/6.12/initrd.img-6.12").read_text() == "new"
    assert (tmp_path / "efi/id/6.12/microcode").read_text() == "m"
    assert not list((tmp_path / "efi/id/6.12").glob("*.new"))
    assert len(check_entries(job, host)) == 1
    before = len(job.changes)
    repair_entries(job, host)
    pin_command_line(job, host)
    assert len(job.changes) == before
    (tmp_path / "efi/id/6.12/linux").unlink()
    with pytest.raises(IntegrityError, match="linux"):
        check_entries(job, host)


def test_a_grub_host_with_boot_entries_is_a_grub_host(tmp_path: Path) -> None:
    job = entry_job(tmp_path)
    write(tmp_path, {"boot/grub2/grub.cfg": "blscfg"})
    assert job.host is not None and not uses_entries(job, job.host)
    found = parse_entry(ENTRY, "f", "/efi")
    assert found.initrds[-1] == "/id/6.12/initrd.img-6.12" and found.options == "root=/dev/vda2 ro quiet"
    assert loader_entries.entries(job, job.host) == []


def test_dracut_is_not_driven_as_initramfs_tools(tmp_path: Path) -> None:
    host = HostTree(tmp_path)
    write(tmp_path, {"usr/sbin/update-initramfs": "", "usr/bin/dracut": ""})
    assert not uses_initramfs_tools(host)
    write(tmp_path, {"usr/sbin/mkinitramfs": ""})
    assert uses_initramfs_tools(host)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('X="quiet resume=/dev/disk/by-id/gone-part3 ro"', 'X="quiet ro"'),
        ('X="resume=UUID=gone quiet"', 'X=" quiet"'),
        ("options resume=UUID=gone", "options"),
        ("resume=UUID=here root=/dev/disk/by-id/x-part1", "resume=UUID=here root=UUID=root"),
        ("rd.luks.uuid=/dev/sdq9", "rd.luks.uuid=/dev/sdq9"),
        ("# resume=UUID=gone", "# resume=UUID=gone"),
    ],
)
def test_a_resume_from_a_swap_that_is_gone_is_taken_out(text: str, expected: str) -> None:
    def lookup(spec: str, content: str) -> str | None:
        return None

    assert rewrite_parameters(text, lookup, "f", lambda spec: "here" in spec, "UUID=root").text == expected


def test_the_initramfs_does_not_wait_for_a_swap_that_is_gone() -> None:
    def lookup(spec: str, content: str) -> str | None:
        return None

    assert rewrite_resume("RESUME=UUID=gone\n", lookup, lambda spec: False).text == "RESUME=none\n"
    assert rewrite_resume("RESUME=UUID=here\n", lookup, lambda spec: True).text == "RESUME=UUID=here\n"


def test_an_entry_for_a_partition_of_an_mbr_is_known_by_its_partuuid() -> None:
    line = "Boot0002* debian\tHD(3,MBR,0x1ab,0x800,0x100000)/\\EFI\\debian\\shimx64.efi\n"
    assert parse(line).entries[0].partition == "000001ab-03"


def test_what_undoes_a_change_waits_for_the_host_and_is_kept_once(tmp_path: Path) -> None:
    job = Job(request("uefi", "bios"), lambda event: None)
    remember(job, "table", b"first")
    remember(job, "table", b"second")
    host = HostTree(tmp_path)
    write_down(job, host)
    job.host = host
    remember(job, "table", b"third")
    kept = tmp_path / FOLDER.lstrip("/") / "table"
    assert kept.read_bytes() == b"first" and kept.stat().st_mode & 0o777 == 0o600
    assert msgspec.structs.asdict(job.request)["use_swap"] is False
