"""Step: the restored system is mounted at its place, as its own fstab says, with what its programs need around it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recovery.adapt import luks
from recovery.adapt.devices import Node, resolve, scan
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.adapt.names import Mount, parse_fstab
from recovery.commands import run
from recovery.errors import AccessError, CommandError, NotFoundError
from recovery.layout import WINDOWS

TITLE = "Mount the restored system"

_FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs")

#: Parts of the system that updating initramfs and bootloader needs. Data is not mounted: what is not touched
#: cannot be hurt.
_NEEDED = ("/boot", "/boot/efi", "/efi", "/usr", "/var", "/var/lib", "/var/tmp")  # noqa: S108

#: Where distributions keep the root inside a btrfs.
_USUAL = ("@rootfs", "@", "root")

_EFIVARS = Path("/sys/firmware/efi/efivars")


def mount_system(job: Job, target: Path) -> str:
    """Find the root, mount it and what belongs to it below ``target``, fill in ``job.host``, ``.root``, ``.esp``.

    A disk without a Linux system is no error: ``job.host`` stays None. Raises NotFoundError when the point names
    a root that is not there, CommandError when mounting fails.
    """
    if job.request.point.body.system.os_id == WINDOWS:
        return "The host is Windows: it is not mounted."
    found = find_root(job)
    if found is None:
        return _no_root(job)
    if _take_host_names(job, *found):
        found = find_root(job) or found
    job.root, options = found
    target.mkdir(parents=True, exist_ok=True)
    _mount(job.root, target, options)
    host = HostTree(target)
    mounts = parse_fstab(host.read("/etc/fstab") or "")
    for entry in sorted((m for m in mounts if m.point in _NEEDED), key=lambda m: m.point.count("/")):
        _mount_entry(job, host, entry)
    _mount_unlisted_esp(job, host)
    _bind(job, host)
    job.host = host
    return f"The system on {job.root.path} is mounted."


def find_root(job: Job) -> tuple[Node, str] | None:
    """The root's node and the mount options it needs (a btrfs subvolume)."""
    named = _named_root(job)
    if job.request.point.body.system.root:
        # Never another one instead: the next best filesystem with a system on it is that of a VM on a volume.
        candidates = [named] if named else []
    else:
        candidates = [n for n in job.nodes if n.content in _FILESYSTEMS and not _is_member(n, job)]
    best: tuple[tuple[bool, int], Node, str] | None = None
    for node in candidates:
        for options in _options_to_try(node):
            rank = _rank_as_root(job, node, options)
            if rank and named and rank[0]:
                return node, options
            if rank and (best is None or rank > best[0]):
                best = rank, node, options
    return best[1:] if best else None


def _options_to_try(node: Node) -> list[str]:
    """Mount options under which a filesystem may show a system: for btrfs its subvolumes, the usual ones first."""
    if node.content != "btrfs":
        return [""]
    with place_to_mount("look") as folder:
        if not run(["mount", "-o", "ro,subvolid=5", node.path, folder], check=False):
            return [""]
        done = run(["btrfs", "subvolume", "list", folder], check=False)
    return ["", *(f"subvol={name}" for name in subvolumes(done.stdout))]


def subvolumes(listing: str) -> list[str]:
    """The subvolumes of ``btrfs subvolume list`` in the order in which a system is looked for. Pure."""
    names = [line.partition(" path ")[2] for line in listing.splitlines() if " path " in line]
    return sorted(names, key=lambda name: (*(name != usual for usual in _USUAL), name.count("/")))


def _named_root(job: Job) -> Node | None:
    """The root as the recovery point names it, when a filesystem is there."""
    node = _captured_node(job, job.request.point.body.system.root)
    return node if node and node.content in _FILESYSTEMS else None


def _captured_node(job: Job, name: str) -> Node | None:
    """The node of a recovery point's name for it: ``disk1`` (the whole disk), ``disk1:2`` or ``vg0/root``."""
    disk, colon, number = name.partition(":")
    for array in job.request.point.body.md_arrays:
        if name and name == array.volume:
            members = {
                n.path for n in job.nodes if n.content == "linux_raid_member" and _same_array(n.uuid, array.uuid)
            }
            arrays = (n for n in job.nodes if n.kind.startswith("raid"))
            return next((n for n in arrays if any(n.lies_on(path) for path in members)), None)
    if name and not colon and "/" not in name:
        return next((n for n in job.nodes if n.disk == disk and n.kind in ("disk", "loop")), None)
    if colon and number.isdigit():
        return next((n for n in job.nodes if n.disk == disk and n.kind == "part" and n.number == int(number)), None)
    return resolve(f"/dev/{name}", job.nodes) if "/" in name else None


def _same_array(one: str, other: str) -> bool:
    """blkid and md write the same UUID with other separators."""
    return re.sub("[:-]", "", one).lower() == re.sub("[:-]", "", other).lower()


def _is_member(node: Node, job: Job) -> bool:
    return any(n.lies_on(node.path) for n in job.nodes)


def _rank_as_root(job: Job, node: Node, options: str) -> tuple[bool, int] | None:
    """None when there is no system; else whether its fstab agrees that this subvolume is its root, and how much of
    what it mounts is on the restored disks. A snapshot of the root is a system too, but its fstab names another
    subvolume; so is a VM's volume, but its other filesystems are inside the VM's own disks."""
    with place_to_mount("look") as folder:
        # norecovery is not used: a log that was not replayed may hide the very files.
        if not run(["mount", "-o", ",".join(filter(None, ("ro", options))), node.path, folder], check=False):
            return None
        host = HostTree(folder)
        # An fstab and an init: VM images on LVs have them too, hence the point's own word goes first.
        if not host.exists("/etc/fstab") or not any(
            host.exists(p) or host.path(p).is_symlink() for p in ("/sbin/init", "/usr/lib/systemd/systemd", "/usr")
        ):
            return None
        mounts = parse_fstab(host.read("/etc/fstab") or "")
    disks = job.request.point.body.disks
    found = (resolve(m.spec, job.nodes, disks, m.kind) for m in mounts if "=" in m.spec or m.spec.startswith("/dev/"))
    return _agrees(mounts, options), sum(other is not None for other in found)


def _agrees(mounts: list[Mount], options: str) -> bool:
    wanted = [o for m in mounts if m.point == "/" for o in m.options if o.startswith("subvol=")]
    plain = [option.removeprefix("subvol=").strip("/") for option in (*wanted, options)]
    return not wanted or not options or plain[0] == plain[-1]


def _take_host_names(job: Job, root: Node, options: str) -> bool:
    """Encrypted volumes get the names that the host's crypttab gives them, before anything is mounted from them."""
    if not any(node.kind == "crypt" for node in job.nodes):
        return False
    with place_to_mount("look") as folder:
        # It was mounted so a moment ago; should it fail now, mounting it for good says why.
        if not run(["mount", "-o", ",".join(filter(None, ("ro", options))), root.path, folder], check=False):
            return False
        entries = luks.parse_crypttab(HostTree(folder).read("/etc/crypttab") or "")
    for entry in entries:
        if any(option.startswith(("tpm2-device=", "fido2-device=", "pkcs11-uri=")) for option in entry.options):
            job.warn(
                f"crypttab opens {entry.name} with a key in the old machine (TPM or token), which this one does not "
                "have: it will ask for the passphrase. Enroll this machine anew with systemd-cryptenroll."
            )
    names = luks.host_names(entries, job.nodes, job.request.point.body.disks)
    luks.rename(names)
    if names:
        job.nodes = scan(job.request.targets)
    return bool(names)


def _no_root(job: Job) -> str:
    system = job.request.point.body.system
    locked = luks.closed(job.nodes)
    if locked and job.passphrases:
        raise AccessError(
            f"The system was not found, and {', '.join(n.path for n in locked)} (LUKS) is not open: the passphrase "
            "given does not open it.",
            hint="Run 'rekindle adapt --luks-secret-file FILE' with the right passphrase; the disks are complete.",
        )
    if locked:
        job.warn(
            "The system lies on an encrypted volume (LUKS), and no passphrase was given: it is there byte for byte, "
            "but nothing in it was adapted, so it may not boot on this machine. 'rekindle adapt' makes up for it."
        )
        return "The system is encrypted."
    if system.root:
        raise NotFoundError(
            f"The root filesystem ({system.root}) of {system.os_name or 'the host'} was not found or does not mount.",
            hint="Were all disks of the host restored? 'lsblk -f' shows what is there.",
        )
    job.warn("No Linux system was found on the restored disks; nothing was adapted.")
    return "No system to adapt."


def _mount_entry(job: Job, host: HostTree, entry: Mount) -> None:
    node = resolve(entry.spec, job.nodes, job.request.point.body.disks, entry.kind)
    if node is None:
        job.warn(f"{entry.point} of the host ({entry.spec}) was not found on the restored disks.")
        return
    folder = host.path(entry.point)
    folder.mkdir(parents=True, exist_ok=True)
    _mount(node, folder, ",".join(o for o in entry.options if o.startswith(("subvol=", "subvolid="))))
    if node.content == "vfat" and entry.point in ("/boot/efi", "/efi", "/boot"):
        job.esp, job.esp_path = node, entry.point


def _mount_unlisted_esp(job: Job, host: HostTree) -> None:
    """An ESP that fstab does not list (systemd finds it by its type) is mounted where the host has a place for it."""
    node = _captured_node(job, job.request.point.body.system.esp)
    if job.esp is None and node is not None and node.content == "vfat":
        place = next((p for p in ("/efi", "/boot/efi") if host.is_dir(p)), "/boot/efi")
        host.path(place).mkdir(parents=True, exist_ok=True)
        _mount(node, host.path(place))
        job.esp, job.esp_path = node, place


def _mount(node: Node, folder: Path, options: str = "") -> None:
    done = run(["mount", *(["-o", options] if options else []), node.path, folder], check=False)
    if not done:
        raise CommandError(
            f"{node.path} ({node.content}) cannot be mounted: {done.stderr.strip()}.",
            hint=f"Check it with 'fsck {node.path}' on the shell, then run 'rekindle adapt' again.",
        )


def _bind(job: Job, host: HostTree) -> None:
    """What programs in the chroot need. Private, so that nothing is mounted back into the medium's own tree."""
    for name in ("dev", "dev/pts", "sys", "run"):
        folder = host.root / name
        folder.mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", "--make-private", f"/{name}", folder])
    (host.root / "proc").mkdir(exist_ok=True)
    run(["mount", "-t", "proc", "proc", host.root / "proc"])
    if job.request.machine.firmware == "uefi" and _EFIVARS.is_dir():
        run(["mount", "-t", "efivarfs", "efivarfs", host.root / "sys/firmware/efi/efivars"], check=False)


@contextmanager
def place_to_mount(name: str) -> Iterator[Path]:
    """An empty folder to mount something at for a moment; unmounted at the end, whatever happened.

    It is only ever removed when it is empty: a temporary directory that is cleared would, on the day when an unmount
    fails, delete the files of the filesystem mounted there.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"rekindle-{name}-"))
    try:
        yield folder
    finally:
        if os.path.ismount(folder) and not run(["umount", folder], check=False, timeout=300):
            run(["umount", "--lazy", folder], check=False)
        with contextlib.suppress(OSError):
            folder.rmdir()


def unmount_system(target: Path) -> None:
    """Undo all mounts below and at ``target``; a second call does nothing. Never raises for what stays mounted."""
    if not target.is_dir():
        return
    run(["sync", "--file-system", target], check=False)
    if run(["mountpoint", "--quiet", target], check=False) and not run(["umount", "--recursive", target], check=False):
        run(["umount", "--recursive", "--lazy", target], check=False)


@contextmanager
def unmounted_at_end(target: Path) -> Iterator[None]:
    """Whatever happens within, nothing stays mounted at ``target``; what an earlier crash left goes first."""
    unmount_system(target)
    try:
        yield
    finally:
        unmount_system(target)
