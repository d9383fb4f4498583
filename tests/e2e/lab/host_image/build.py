"""The disk of a real virtualization host, made without booting it, and kept in a cache by its recipe's content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rekindle_image.scratch import discard, scratch_folder

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.host_image import dataset, grub, guest, lvm, recipe, rootfs
from tests.e2e.lab.host_image.rootfs import Say

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rekindle/e2e"
GRUB_MODULES = ["biosdisk", "part_gpt", "ext2", "normal", "linux", "search", "search_fs_uuid", "configfile"]


@dataclass(frozen=True)
class HostImage:
    """The cached disk in the state ``older``, and the host's kernel for the lab's own use. Do not write to either."""

    disk: Path
    kernel: Path
    facts: Facts
    cached: bool


class Facts(msgspec.Struct, frozen=True):
    """What later steps must know: the byte offset of each logical volume on the disk, the kernel's version."""

    volumes: dict[str, int]
    kernel_version: str


def key() -> str:
    """The digest of every file that decides what the image holds."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build(say: Say, cache: Path = CACHE) -> HostImage:
    """The host's image from the cache, or made now (minutes; root). Raises CommandError."""
    directory = cache / f"host-{key()}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "host.lock").open("w") as lock:
        # Two that need it at once: the second waits, and finds it made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / "facts.json").exists():
            return _load(directory, cached=True)
        for old in cache.glob("host-*"):
            discard(old)
        # Made beside and renamed when whole: an interrupted build leaves no half image in the cache.
        with scratch_folder(cache) as work:
            made = work / "image"
            made.mkdir()
            _make(made, work, say)
            made.rename(directory)
    return _load(directory, cached=False)


def _load(directory: Path, *, cached: bool) -> HostImage:
    facts = msgspec.json.decode((directory / "facts.json").read_bytes(), type=Facts)
    return HostImage(directory / "disk.img", directory / "vmlinuz", facts, cached)


def _make(target: Path, work: Path, say: Say) -> None:
    say("installing Debian, GRUB, libvirt and QEMU for the host")
    root = rootfs.bootstrap(work / "root", recipe.PACKAGES, "minbase", say)
    say("unpacking the VMs' kernel")
    small = rootfs.bootstrap(work / "small", recipe.GUEST_PACKAGES, "extract", say)
    say("configuring the host")
    rootfs.configure(root)
    guests = {name: work / f"{name}.raw" for name in recipe.VIRTUAL_MACHINES}
    for name, path in guests.items():
        guest.build(path, name, "older", small, root, work / "guest")
    images = root / "var/lib/libvirt/images"
    run(["qemu-img", "convert", "-q", "-O", "qcow2", guests["web"], images / "web.qcow2"])
    dataset.write(root, "older")

    say("writing the host's disk")
    disk = target / "disk.img"
    with disk.open("wb") as file:
        file.truncate(recipe.DISK_SIZE)
    run(["sfdisk", "-q", disk], input=recipe.sfdisk_script().encode())
    core = grub.make_core(root, "(hd0,gpt3)/boot/grub", GRUB_MODULES)
    grub.install_bios(disk, root, core, at=recipe.BIOS_BOOT.start)
    _make_esp(disk, root)
    part = recipe.ROOT
    options = f"offset={part.start},hash_seed={part.uuid},lazy_itable_init=0,nodiscard"
    run(
        [
            "mkfs.ext4",
            "-q",
            "-F",
            "-L",
            "root",
            "-U",
            part.uuid,
            "-E",
            options,
            "-d",
            root,
            disk,
            f"{part.size // 1024}k",
        ]
    )
    with lvm.loop_device(disk, recipe.LVM.start, recipe.LVM.size) as device:
        inside = lvm.create(device, recipe.VOLUME_GROUP, {"db": guest.SIZE, "scratch": 512 * MIB})
    volumes = {name: recipe.LVM.start + offset for name, offset in inside.items()}
    run(
        [
            "dd",
            f"if={guests['db']}",
            f"of={disk}",
            "bs=1M",
            f"seek={volumes['db']}",
            "oflag=seek_bytes",
            "conv=notrunc,sparse",
            "status=none",
        ]
    )
    version = rootfs.kernel_version(root)
    shutil.copy(root / f"boot/vmlinuz-{version}", target / "vmlinuz")
    (target / "facts.json").write_bytes(msgspec.json.encode(Facts(volumes, version)))


def _make_esp(disk: Path, root: Path) -> None:
    """An ESP as Debian's installer leaves it: signed shim and GRUB in EFI/debian, and no fallback path."""
    part = recipe.ESP
    volume_id = part.uuid.replace("-", "")
    run(
        ["mkfs.vfat", "-F", "32", "-s", "1", "-i", volume_id, "-n", "ESP", "--offset", str(part.start // 512), disk,
         str(part.size // 1024)]
    )  # fmt: skip
    where = f"{disk}@@{part.start}"
    run(["mmd", "-i", where, "::EFI", "::EFI/debian"])
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "grub.cfg"
        config.write_text(recipe.ESP_GRUB_CONFIG)
        for source, name in (
            (root / "usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
            (root / "usr/lib/shim/mmx64.efi.signed", "mmx64.efi"),
            (root / "usr/lib/shim/BOOTX64.CSV", "BOOTX64.CSV"),
            (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grubx64.efi"),
            (config, "grub.cfg"),
        ):
            run(["mcopy", "-i", where, source, f"::EFI/debian/{name}"])


def change(disk: Path, facts: Facts, state: str) -> None:
    """Bring the host's data and both VMs' disks into ``state``, as the running host would have done. Root."""
    with mounted_root(disk) as root:
        dataset.write(root, state)
        image = root / "var/lib/libvirt/images/web.qcow2"
        with tempfile.TemporaryDirectory(dir=disk.parent) as scratch:
            raw = Path(scratch) / "web.raw"
            run(["qemu-img", "convert", "-q", "-O", "raw", image, raw])
            guest.set_state(raw, state)
            run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, image])
    guest.set_state(disk, state, facts.volumes["db"])


@contextlib.contextmanager
def mounted_root(disk: Path) -> Iterator[Path]:
    """The root filesystem of the host's disk, mounted for the time of the block."""
    with (
        lvm.loop_device(disk, recipe.ROOT.start, recipe.ROOT.size) as device,
        tempfile.TemporaryDirectory(prefix="rekindle-root-") as directory,
    ):
        run(["mount", device, directory])
        try:
            yield Path(directory)
        finally:
            run(["umount", directory])
