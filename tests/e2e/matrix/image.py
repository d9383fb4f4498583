"""A source's disk, made without booting anything: partition table, LVM metadata, filesystems, GRUB, initramfs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recovery.commands import run
from recovery.units import MIB
from tests.e2e.lab.host_image import grub, lvm
from tests.e2e.lab.host_image.rootfs import Say, kernel_version, mounted_system
from tests.e2e.matrix import layout, network
from tests.e2e.matrix.model import Source, Volume

#: The modules that MODULES=dep finds on a source's own machine.
_DEP_MODULES = {
    "sata": ("ahci", "sd_mod"),
    "virtio": ("virtio_pci", "virtio_blk"),
    "scsi": ("virtio_pci", "virtio_scsi", "sd_mod"),
}
_DEFAULT_GRUB = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{words}"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --speed=115200"
"""


def build(source: Source, base: Path, disk: Path, say: Say) -> None:
    """Make the raw image ``disk`` of a source from the installed system ``base`` (root; loop devices).

    Raises CommandError, ValueError for a layout that does not fit.
    """
    with disk.open("wb") as file:
        file.truncate(source.disk * MIB)
    say(f"{source.name}: partitions")
    run(["sfdisk", "-q", disk], input=layout.sfdisk_script(source).encode())
    with tempfile.TemporaryDirectory(dir=disk.parent) as scratch, overlaid(base, Path(scratch)) as root:
        say(f"{source.name}: configuring the system")
        configure(source, root)
        places = _volume_places(source, disk)
        say(f"{source.name}: filesystems")
        if "bios" in source.boots:
            _install_bios(source, disk, root)
        # The ESP takes files from the whole system; then the deepest first, see _fill.
        order = sorted(source.volumes, key=lambda v: (v.kind != "vfat", -layout.volume_depth(v)))
        for volume in order:
            at, size = places[volume.at]
            _make_volume(source, volume, disk, at, size, root)


@contextlib.contextmanager
def overlaid(base: Path, scratch: Path) -> Iterator[Path]:
    """``base`` to write to, without changing it. Its own mounts stay out of it."""
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    root = scratch / "root"
    options = f"lowerdir={base},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
    run(["mount", "-t", "overlay", "-o", options, "overlay", root])
    try:
        yield root
    finally:
        run(["umount", "--recursive", root])


def configure(source: Source, root: Path) -> None:
    """Write what makes the bare Debian in ``root`` this source."""
    setup = network.setup(source.network)
    version = kernel_version(root)
    files = {
        "etc/hostname": f"{source.name}\n",
        "etc/machine-id": layout.identifier(source, "machine").replace("-", "") + "\n",
        "etc/hosts": f"127.0.0.1 localhost {source.name}\n",
        "etc/fstab": layout.fstab(source),
        "etc/default/grub": _DEFAULT_GRUB.format(words=layout.kernel_words(source)),
        "boot/grub/grub.cfg": layout.grub_config(source, version),
        "etc/initramfs-tools/conf.d/modules": f"MODULES={source.initramfs}\n",
        # Packed fast: it is packed by an emulated processor.
        "etc/initramfs-tools/conf.d/fast": "COMPRESS=zstd\nCOMPRESSLEVEL=1\n",
        "etc/initramfs-tools/conf.d/resume": "RESUME=none\n",
        **setup.files,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o600 if name.startswith(network.PRIVATE) else 0o644)
    for point in source.points:
        (root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)
    run(["chroot", root, "systemctl", "-q", "enable", setup.service])
    run(["chroot", root, "systemctl", "-q", "mask", *setup.idle])
    if source.swap_file:
        swap = root / "swapfile"
        swap.touch(0o600)
        run(["dd", "if=/dev/zero", f"of={swap}", "bs=1M", f"count={source.swap_file}", "status=none"])
        run(["mkswap", "-q", swap])
    _initramfs(source, root, version)


def _initramfs(source: Source, root: Path, version: str) -> None:
    """MODULES=dep asks the running machine, which is not the old one here: its answer is given as a list."""
    settings = root / "tmp/initramfs-tools"
    run(["cp", "-a", root / "etc/initramfs-tools", settings])
    if source.initramfs == "dep":
        (settings / "conf.d/modules").write_text("MODULES=list\n")
        modules = {*_DEP_MODULES[source.bus], source.root.kind, source.boot.kind}
        (settings / "modules").write_text("".join(f"{name}\n" for name in sorted(modules)))
    with mounted_system(root):
        words = ["mkinitramfs", "-d", "/tmp/initramfs-tools", "-o", f"/boot/initrd.img-{version}", version]  # noqa: S108
        run(["chroot", root, *words])
    run(["rm", "-rf", settings])


def _volume_places(source: Source, disk: Path) -> dict[str, tuple[int, int]]:
    """Where each volume lies on the disk: offset and size in bytes. Makes the volume groups."""
    placed = {one.number: one for one in layout.place(source)}
    found = {str(number): (one.start, one.size) for number, one in placed.items()}
    for group in source.groups:
        part = placed[group.part]
        sizes = {name: size * MIB for name, size in group.volumes.items()}
        with lvm.loop_device(disk, part.start, part.size) as device:
            inside = lvm.create(device, group.name, sizes)
        for name, offset in inside.items():
            found[f"{group.name}/{name}"] = (part.start + offset, sizes[name])
    return found


def _make_volume(source: Source, volume: Volume, disk: Path, at: int, size: int, root: Path) -> None:
    uuid = layout.volume_uuid(source, volume)
    label = ["-L", volume.label] if volume.label else []
    if volume.kind == "vfat":
        _make_esp(source, disk, at, size, uuid, root)
        return
    with lvm.loop_device(disk, at, size) as device:
        if volume.kind == "swap":
            run(["mkswap", "-q", "-U", uuid, *label, device])
            return
        if volume.kind == "ext4":
            run(["mkfs.ext4", "-q", "-F", "-U", uuid, *label, "-E", "nodiscard", device])
        elif volume.kind == "xfs":
            run(["mkfs.xfs", "-q", "-f", "-K", "-m", f"uuid={uuid}", *label, device])
        else:
            run(["mkfs.btrfs", "-q", "-f", "-K", "-U", uuid, *label, device])
        with tempfile.TemporaryDirectory(prefix="rekindle-matrix-") as folder:
            run(["mount", "-o", "nouuid" if volume.kind == "xfs" else "rw", device, folder])
            try:
                _fill(volume, root, Path(folder))
            finally:
                run(["umount", folder])


def _fill(volume: Volume, root: Path, folder: Path) -> None:
    """Move what belongs on this volume out of ``root``; what lies deeper has been moved before."""
    targets = {point: folder / name for point, name in volume.subvolumes.items()} or {volume.point: folder}
    for point, place in sorted(targets.items(), key=lambda target: -layout.depth(target[0])):
        if place != folder:
            run(["btrfs", "-q", "subvolume", "create", place])
        there = root / point.lstrip("/")
        run(["cp", "-a", f"{there}/.", place])
        if point != "/":
            # The mount point stays, as an empty folder.
            run(["find", there, "-mindepth", "1", "-delete"])


def _make_esp(source: Source, disk: Path, at: int, size: int, volume_id: str, root: Path) -> None:
    """As Debian's installer leaves it: signed shim and GRUB in EFI/debian, and no fallback path."""
    fat = ["-F", "32", "-s", "1", "-i", volume_id.replace("-", ""), "-n", "ESP"]
    run(["mkfs.vfat", *fat, "--offset", str(at // 512), disk, str(size // 1024)])
    where = f"{disk}@@{at}"
    run(["mmd", "-i", where, "::EFI", "::EFI/debian"])
    with tempfile.NamedTemporaryFile("w") as config:
        config.write(layout.esp_config(source))
        config.flush()
        for file, name in (*loaders(root), (Path(config.name), "grub.cfg")):
            run(["mcopy", "-i", where, file, f"::EFI/debian/{name}"])


def loaders(root: Path) -> tuple[tuple[Path, str], ...]:
    """The signed boot loaders in a system, and their names on an ESP."""
    return (
        (root / "usr/lib/shim/shimx64.efi.signed", "shimx64.efi"),
        (root / "usr/lib/shim/mmx64.efi.signed", "mmx64.efi"),
        (root / "usr/lib/shim/BOOTX64.CSV", "BOOTX64.CSV"),
        (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grubx64.efi"),
    )


def _install_bios(source: Source, disk: Path, root: Path) -> None:
    core = grub.make_core(root, layout.grub_prefix(source), layout.grub_modules(source))
    bios = next((one for one in layout.place(source) if one.part.role == "bios"), None)
    grub.install_bios(disk, root, core, at=bios.start if bios else grub.SECTOR)


def _esp(source: Source, disk: Path) -> str:
    """mtools' name for the ESP on the disk."""
    return next(f"{disk}@@{one.start}" for one in layout.place(source) if one.part.role == "esp")


def add_fallback(source: Source, disk: Path) -> None:
    """Put the loader in the fallback path, for a boot without the boot entry of the source's own machine."""
    where = _esp(source, disk)
    run(["mmd", "-i", where, "::EFI/BOOT"])
    with tempfile.TemporaryDirectory() as scratch:
        for name, alias in (
            ("shimx64.efi", "BOOTX64.EFI"),
            ("grubx64.efi", "grubx64.efi"),
            ("mmx64.efi", "mmx64.efi"),
        ):
            file = Path(scratch) / name
            run(["mcopy", "-n", "-i", where, f"::EFI/debian/{name}", file])
            run(["mcopy", "-i", where, file, f"::EFI/BOOT/{alias}"])


def remove_fallback(source: Source, disk: Path) -> None:
    """Undo ``add_fallback``."""
    run(["mdeltree", "-i", _esp(source, disk), "::EFI/BOOT"])
