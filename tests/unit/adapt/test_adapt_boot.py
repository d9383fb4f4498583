"""Boot entries, the fallback path, drivers, and what the proof looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.adapt.devices import Node
from recovery.adapt.drivers import kernel_modules, needed_of, wanted_modules
from recovery.adapt.efivars import choose_loader, order_with_first, parse
from recovery.adapt.esp import ensure_fallback, loader_files, vendor_loader
from recovery.adapt.grub_bios import has_boot_code
from recovery.adapt.initramfs import version_key, with_modules
from recovery.adapt.nvram import label_of
from recovery.adapt.prove import missing_modules, root_names, unknown_names
from recovery.adapt.selinux import uses_selinux
from recovery.errors import NotFoundError
from recovery.machine.model import Disk
from recovery.machine.modules import modules_in_use

OLD_STYLE = (
    "BootCurrent: 0001\nTimeout: 0 seconds\nBootOrder: 0001,0000,0003\n"
    "Boot0000* UiApp\tFvVol(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(462caa21-7614-4503-836e-8ab6f4662331)\n"
    "Boot0001* UEFI QEMU DVD-ROM\tPciRoot(0x0)/Pci(0x1f,0x2)/Sata(0,65535,0)N.....YM....R,Y.\n"
    "Boot0003* debian\tHD(1,GPT,0AF3D2B1-1111-2222-3333-444455556666,0x800,0x80000)/File(\\EFI\\debian\\shimx64.efi)\n"
    "Boot0004  gone\tHD(2,GPT,99999999-1111-2222-3333-444455556666,0x800,0x80000)/File(\\EFI\\x\\grubx64.efi)..BO\n"
)
NEW_STYLE = (
    "BootOrder: 0003\n"
    "Boot0003* debian\tHD(1,GPT,0af3d2b1-1111-2222-3333-444455556666,0x800,0x80000)/\\EFI\\debian\\shimx64.efi\n"
    "      dp: 04 01 2a 00 01 00 00 00 / 7f ff 04 00\n"
)
OURS = "0af3d2b1-1111-2222-3333-444455556666"


@pytest.mark.parametrize("text", [OLD_STYLE, NEW_STYLE])
def test_both_styles_of_efibootmgr(text: str) -> None:
    found = parse(text).find(OURS.upper(), "\\efi\\debian\\SHIMX64.efi")
    assert found is not None and (found.number, found.label, found.active) == ("0003", "debian", True)


def test_only_our_entries_for_missing_partitions_are_stale() -> None:
    entries = parse(OLD_STYLE)
    assert [e.number for e in entries.stale({OURS}, "\\EFI\\X\\shimx64.efi")] == ["0004"]
    assert entries.stale({OURS}, "\\EFI\\debian\\shimx64.efi") == []
    assert not entries.entries[3].active
    assert entries.entries[3].loader == "\\EFI\\x\\grubx64.efi"
    assert order_with_first(entries.order, "0003") == ("0003", "0001", "0000")


def test_the_hosts_own_signed_loader_is_chosen() -> None:
    files = [
        "EFI/BOOT/BOOTX64.EFI", "EFI/ubuntu/shimx64.efi", "EFI/debian/grubx64.efi", "EFI/debian/shimx64.efi",
        "EFI/debian/mmx64.efi",
    ]  # fmt: skip
    assert choose_loader(files, "debian") == "EFI/debian/shimx64.efi"
    assert choose_loader(files, "fedora") == "EFI/debian/shimx64.efi"
    assert choose_loader(["EFI/proxmox/grubx64.efi"], "debian") == "EFI/proxmox/grubx64.efi"
    assert choose_loader(files[:1], "debian") is None


def make_esp(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"MZ" + name.encode())
    return root


def test_the_fallback_path_gets_shim_with_what_it_needs(tmp_path: Path) -> None:
    esp = make_esp(
        tmp_path, "EFI/debian/shimx64.efi", "EFI/debian/grubx64.efi", "EFI/debian/mmx64.efi",
        "EFI/boot/bootx64.efi", "EFI/boot/fbx64.efi",
    )  # fmt: skip
    loader = vendor_loader(esp, "debian")
    assert len(ensure_fallback(esp, loader)) == 4
    boot = esp / "EFI/boot"
    assert (boot / "bootx64.efi").read_bytes() == b"MZEFI/debian/shimx64.efi"
    assert (boot / "bootx64.efi.rekindle-orig").read_bytes() == b"MZEFI/boot/bootx64.efi"
    assert (boot / "grubx64.efi").read_bytes() == b"MZEFI/debian/grubx64.efi"
    assert (boot / "mmx64.efi").exists()
    assert not (boot / "fbx64.efi").exists()
    assert ensure_fallback(esp, loader) == []
    assert not list(boot.glob("*.new"))


def test_without_shim_grub_itself_is_the_fallback(tmp_path: Path) -> None:
    esp = make_esp(tmp_path, "EFI/debian/grubx64.efi")
    ensure_fallback(esp, vendor_loader(esp, "debian"))
    assert loader_files(esp) == ["EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi"]


def test_an_esp_without_loader_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no bootloader"):
        vendor_loader(make_esp(tmp_path, "EFI/BOOT/BOOTX64.EFI"), "debian")


def test_label() -> None:
    assert label_of("Debian GNU/Linux 13 (trixie)", "\\EFI\\debian\\x.efi") == "Debian GNU/Linux 13 (trixie)"
    assert label_of("", "\\EFI\\debian\\shimx64.efi") == "debian"


def test_boot_code(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(510) + b"\x55\xaa")
    assert not has_boot_code(str(image))
    image.write_bytes(b"\xeb\x63" + bytes(508) + b"\x55\xaa")
    assert has_boot_code(str(image)) and not has_boot_code(str(image), by_grub=True)
    image.write_bytes(b"\xeb\x63GRUB " + bytes(503) + b"\x55\xaa")
    assert has_boot_code(str(image), by_grub=True)


def test_drivers_of_the_bus_and_those_in_use() -> None:
    nvme = Disk(id="x", path="/dev/nvme0n1", size=1, bus="nvme")
    assert wanted_modules([nvme], ["nvme-core"])[:2] == ["nvme_core", "nvme"]
    assert "vmd" in wanted_modules([nvme], [])
    assert needed_of(nvme, []) == ["nvme"]
    assert needed_of(nvme, ["nvme", "pcieport"]) == ["nvme"]
    assert needed_of(Disk(id="x", path="/dev/sda", size=1, bus="sata"), ["sd", "ahci"]) == ["sd_mod", "ahci"]


def test_sysfs_names_every_driver_up_to_the_bus(tmp_path: Path) -> None:
    device = tmp_path / "devices/pci0/0000:00:04.0/virtio1/block/vda"
    device.mkdir(parents=True)
    for module, where in (("virtio_blk", device.parents[1]), ("virtio_pci", device.parents[2])):
        driver = tmp_path / "bus" / module
        driver.mkdir(parents=True)
        (tmp_path / "module" / module).mkdir(parents=True)
        (driver / "module").symlink_to(tmp_path / "module" / module)
        (where / "driver").symlink_to(driver)
    (tmp_path / "class/block").mkdir(parents=True)
    (tmp_path / "class/block/vda").symlink_to(device)
    assert modules_in_use("/dev/vda", tmp_path) == ["virtio_blk", "virtio_pci"]
    assert modules_in_use("/dev/none", tmp_path) == []


def test_modules_of_a_kernel(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/drivers/nvme/host/nvme-core.ko.xz: kernel/x.ko\n")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/ata/ahci.ko\n")
    assert kernel_modules(tmp_path) == ({"nvme_core"}, {"ahci"})


def test_a_missing_driver_is_found_and_a_built_in_one_is_not_missed() -> None:
    listing = [
        "usr/lib/modules/6.1/kernel/drivers/nvme/host/nvme-core.ko",
        "-rw-r--r-- 1 root usr/lib/modules/x/sd_mod.ko.xz",
    ]
    assert missing_modules(["nvme", "nvme_core", "sd_mod", "ahci"], ["nvme", "nvme_core", "sd_mod"], listing) == [
        "nvme"
    ]


def test_the_newest_kernel_is_the_newest() -> None:
    names = ["6.1.0-9-amd64", "6.1.0-10-amd64", "5.10.0-30-amd64", "6.12.107+deb13-amd64"]
    assert sorted(names, key=version_key)[-1] == "6.12.107+deb13-amd64"
    assert sorted(names[:2], key=version_key)[-1] == "6.1.0-10-amd64"


def test_our_block_of_modules_is_replaced_not_repeated() -> None:
    once = with_modules("# mine\next4\n", ["nvme"])
    assert once.splitlines()[:2] == ["# mine", "ext4"]
    twice = with_modules(once, ["ahci"])
    assert "nvme" not in twice and twice.count("ahci") == 1 and twice.startswith("# mine\next4\n")
    assert with_modules(twice, ["ahci"]) == twice


MENU = """
search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  aaaa-1
# search --no-floppy --fs-uuid --set=root  never
\tlinux\t/vmlinuz-6.1 root=UUID=aaaa-1 ro quiet
\tlinux\t/vmlinuz-6.1 root=/dev/mapper/vg-root ro
\tlinux\t/vmlinuz root=$cmd
\tchainloader root=UUID=no
"""


def test_every_filesystem_of_the_menu_is_looked_up() -> None:
    nodes = (Node("/dev/sda1", "part", 1, uuid="aaaa-1"), Node("/dev/mapper/vg-root", "lvm", 1))
    assert unknown_names(MENU, nodes) == []
    assert unknown_names(MENU, nodes[:1]) == ["/dev/mapper/vg-root"]
    assert unknown_names(MENU, ()) == ["UUID=aaaa-1", "/dev/mapper/vg-root"]
    assert root_names(MENU) == ["UUID=aaaa-1", "/dev/mapper/vg-root"]


def test_selinux() -> None:
    assert uses_selinux("# SELINUX=disabled\nSELINUX=enforcing\n")
    assert uses_selinux("SELINUX=permissive")
    assert not uses_selinux("SELINUX=disabled\nSELINUXTYPE=enforcing\n") and not uses_selinux("")
