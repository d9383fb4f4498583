"""The assembly with the real tools and a small stand-in for Debian: structure of the ISO, and that it repeats."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from rekindle_image.base import Base
from rekindle_image.boot import LABEL, lay_tree, make_esp, make_iso
from rekindle_image.checksums import RESERVED
from rekindle_image.netboot import lay_netboot
from rekindle_image.request import Authority, ImageRequest
from rekindle_image.workshop import Workshop, make_squashfs, settle_times

from recovery import events
from recovery.commands import run
from recovery.errors import IntegrityError, NotFoundError
from recovery.medium.manifest import POINTER_SIZE, Image, check, read_manifest

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("xorriso", "mksquashfs", "mcopy", "mkfs.vfat")),
    reason="needs xorriso, squashfs-tools, mtools, dosfstools (scripts/setup)",
)


def make_base(path: Path) -> Base:
    (path / "boot").mkdir(parents=True)
    for name, content in (
        ("vmlinuz", b"kernel"),
        ("initrd.img", b"initramfs"),
        ("base.squashfs", b"debian" * 1000),
        ("kernel-version", b"6.12-test\n"),
        ("boot/shimx64.efi", b"shim"),
        ("boot/gcdx64.efi", b"grub"),
        ("boot/mmx64.efi", b"mokmanager"),
        ("boot/boot_hybrid.img", b"\xeb\x63\x90".ljust(512, b"\0")),
        ("boot/eltorito.img", bytes(4096)),
        ("boot/grubnetx64.efi", b"grub for the network"),
        ("boot/bios.pxe", b"grub for the network and the BIOS"),
        ("boot/memtest86+x64.bin", b"memtest"),
        ("boot/memtest86+x64.efi", b"memtest for UEFI"),
    ):
        (path / name).write_bytes(content)
    return Base(path)


def assemble(tmp_path: Path, name: str, epoch: int = 1795392000) -> Path:
    """One run of the last steps, in its own directory, as the recipe does them."""
    room = tmp_path / name
    base = make_base(room / "base")
    work = room / "work"
    work.mkdir()
    shop = Workshop(work, room / "cache", room / "log", epoch, lambda event: None)
    request = ImageRequest(
        server="https://backup", authority=Authority("0a" * 32), output=room / "x.iso", cache=room, epoch=epoch
    )
    tree = shop.scratch("code")
    (tree / "etc").mkdir()
    (tree / "etc/hostname").write_text("rekindle\n")
    settle_times(tree, epoch)
    make_squashfs(shop, tree, work / "rekindle.squashfs", 1, all_root=True)
    laid = shop.scratch("iso")
    lay_tree(request, base, work / "rekindle.squashfs", laid)
    make_esp(shop, base, work / "efi.img")
    make_iso(shop, request, base, laid, work / "efi.img", request.output)
    return request.output


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tmp_path_factory.mktemp("assembly"), "one")


@pytest.fixture
def iso(assembled: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may damage."""
    return shutil.copyfile(assembled, tmp_path / "x.iso")


def test_two_assemblies_are_the_same_bytes_and_another_date_is_another_image(tmp_path: Path) -> None:
    first, second = assemble(tmp_path, "one"), assemble(tmp_path, "two")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    other = assemble(tmp_path, "three", epoch=1795478400)
    assert first.read_bytes() != other.read_bytes()


def test_the_iso_boots_by_both_firmwares_as_cd_and_as_disk(iso: Path, tmp_path: Path) -> None:
    said = run(["xorriso", "-indev", iso, "-report_el_torito", "plain", "-report_system_area", "plain"])
    report = said.stdout
    assert f"Volume id    : '{LABEL}'" in report + said.stderr
    boot_images = [line.split() for line in report.splitlines() if line.startswith("El Torito boot img")]
    platforms = [words[6] for words in boot_images]
    assert platforms == ["BIOS", "UEFI"]
    assert "grub2-mbr" in report
    # A disk: the boot sector's signature, a GPT with the EFI system partition.
    data = iso.read_bytes()
    assert data[510:512] == b"\x55\xaa"
    assert data[512:520] == b"EFI PART"
    esp_type = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
    assert f"{esp_type.hex()}" in report
    # The partition that UEFI boots from holds the signed chain under its fallback names.
    start, size = next(
        (int(line.split()[-2]), int(line.split()[-1]))
        for line in report.splitlines()
        if line.startswith("GPT start and size :   2")
    )
    esp = tmp_path / "esp.img"
    esp.write_bytes(data[start * 512 : (start + size) * 512])
    for name, content in (("bootx64.efi", "shim"), ("grubx64.efi", "grub"), ("mmx64.efi", "mokmanager")):
        assert run(["mtype", "-i", esp, f"::EFI/boot/{name}"]).stdout == content


def test_the_file_systems_are_laid_in_the_right_order(iso: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", out])
    assert (out / "rekindle/filesystem.module").read_text() == "base.squashfs\nrekindle.squashfs\n"
    for name in ("rekindle/vmlinuz", "rekindle/initrd.img", "rekindle/base.squashfs", "rekindle/rekindle.squashfs"):
        assert (out / name).stat().st_size
    # GRUB's signed CD edition finds its root by this file, our BIOS one by the other.
    assert (out / ".disk/info").exists()
    assert (out / ".disk/rekindle").exists()
    assert "menuentry" in (out / "boot/grub/grub.cfg").read_text()


def test_the_image_carries_checksums_of_every_byte_and_tells_what_is_damaged(iso: Path, tmp_path: Path) -> None:
    with Image(iso) as image:
        manifest = read_manifest(image.read, "it")
        assert check(image.read, manifest, events.ignore) == []
    assert manifest.size == iso.stat().st_size
    names = {region.name for region in manifest.regions}
    assert {"/rekindle/base.squashfs", "/boot/grub/grub.cfg", "EFI partition", "directories"} <= names
    covered = sum(region.length for region in manifest.regions)
    assert covered + RESERVED + POINTER_SIZE == manifest.size, "every byte but the list and its pointer"
    good = iso.read_bytes()
    for offset, name in (
        (100, "boot sector and partition table"),
        (good.index(b"debian" * 9), "/rekindle/base.squashfs"),
    ):
        iso.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        with Image(iso) as image:
            assert [damage.name for damage in check(image.read, manifest, events.ignore)] == [name]


def test_the_netboot_folder_is_laid_out_from_the_iso(iso: Path, tmp_path: Path) -> None:
    folder = tmp_path / "netboot"
    for _ in range(2):  # again over the first
        lay_netboot(iso, folder, "http://10.98.0.1:8080/rekindle")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "SHA256SUMS", "base.squashfs", "bios.pxe", "bootx64.efi", "dnsmasq.conf", "filesystem.module", "grub/grub.cfg",
        "grubx64.efi", "initrd.img", "memtest86+x64.bin", "memtest86+x64.efi", "rekindle.ipxe", "rekindle.squashfs",
        "vmlinuz",
    ]  # fmt: skip
    run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder)
    menu = (folder / "grub/grub.cfg").read_text()
    assert 'set fetch="fetch=http://10.98.0.1:8080/rekindle"' in menu
    assert menu.count("menuentry") == 8
    server = (folder / "dnsmasq.conf").read_text()
    assert f"tftp-root={folder}\n" in server
    assert "dhcp-range=10.98.0.100,10.98.0.200,1h" in server
    assert "http.server --directory " + str(folder) + " 8080" in server
    for file in ("dnsmasq.conf", "rekindle.ipxe"):
        assert "@" not in (folder / file).read_text()


def test_a_damaged_iso_is_not_laid_out(iso: Path, tmp_path: Path) -> None:
    good = iso.read_bytes()
    at = good.index(b"debian" * 9)
    iso.write_bytes(good[:at] + b"X" + good[at + 1 :])
    with pytest.raises(IntegrityError, match=r"base\.squashfs"):
        lay_netboot(iso, tmp_path / "netboot", "http://10.98.0.1")
    assert not list((tmp_path / "netboot").iterdir())
    (tmp_path / "text.iso").write_text("no")
    with pytest.raises(NotFoundError):
        lay_netboot(tmp_path / "text.iso", tmp_path / "netboot", "http://10.98.0.1")


def test_progress_is_told_while_a_tool_runs(tmp_path: Path) -> None:
    heard: list[events.Event] = []
    (tmp_path / "work").mkdir()
    shop = Workshop(tmp_path / "work", tmp_path, tmp_path / "log", 1795392000, heard.append, steps=1)
    tree = shop.scratch("tree")
    (tree / "file").write_text("x")
    with shop.step("squash", "Packing"):
        make_squashfs(shop, tree, tmp_path / "x.squashfs", 1)
    assert [type(e).__name__ for e in heard][:1] == ["StepStarted"]
    assert any(isinstance(e, events.Progress) and e.note for e in heard)
    assert run(["unsquashfs", "-cat", tmp_path / "x.squashfs", "file"]).stdout == "x"
