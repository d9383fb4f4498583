"""Step: the host's VMs find their disks, and none takes a device away from the host that the new machine needs.

Libvirt's definitions are files of the host (``/etc/libvirt/qemu``, ``/etc/libvirt/storage``), read when its daemon
starts. Names of devices in them are replaced as those of fstab are; nothing else in them is touched.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from recovery.adapt.devices import Node, is_unstable, resolve
from recovery.adapt.host import KEPT, HostTree
from recovery.adapt.model import Job
from recovery.adapt.names import Rewrite, parse_fstab
from recovery.commands import run
from recovery.domain import files_of, parse, pci_addresses
from recovery.errors import SpaceError

TITLE = "See that the VMs find their disks and take none of this machine's devices"

_DOMAINS = "/etc/libvirt/qemu"
_POOLS = "/etc/libvirt/storage"
_DEVICE = re.compile(r"""(?<=[\s<])(dev|path)=(['"])(/dev/[^'"<>]+)\2""")
_PCI = Path("/sys/bus/pci/devices")
#: Filesystems of the host that are mounted while it is adapted: what lies on others cannot be looked for.
_MOUNTED = ("/", "/usr", "/var")

#: (device name of the host) -> a name that survives, or None.
Find = Callable[[str], str | None]


def see_to_vms(job: Job) -> str:
    """Raises SpaceError."""
    host = job.host
    if host is None:
        return "No system to adapt."
    definitions = list(host.glob(f"{_DOMAINS}/*.xml"))
    if not definitions:
        return "The host has no VMs of libvirt."

    def find(spec: str) -> str | None:
        node = resolve(spec, job.nodes, job.request.point.body.disks)
        return lasting_name(node) if node else None

    for file in [*definitions, *host.glob(f"{_POOLS}/*.xml")]:
        name = Path(file).stem
        found = rewrite_definition(
            host.read(file) or "", find, f"VM {name}" if file in definitions else f"pool {name}"
        )
        if found.changes:
            host.write(file, found.text)
        for sentence in found.changes:
            job.changed(sentence)
        for sentence in found.unresolved:
            job.warn(sentence)
        if file in definitions:
            _look_at(job, host, file, lost=bool(found.unresolved))
    return f"{len(definitions)} VMs looked at."


def lasting_name(node: Node) -> str | None:
    """A path that means this device on every machine: what lies on a VM's disk may have no UUID of its own."""
    if node.part_uuid:
        return f"/dev/disk/by-partuuid/{node.part_uuid}"
    done = run(["udevadm", "info", "--query=symlink", f"--name={node.path}"], check=False)
    links = sorted(link for link in done.stdout.split() if link.startswith("disk/by-id/"))
    return f"/dev/{links[0]}" if links else None


def rewrite_definition(text: str, find: Find, what: str) -> Rewrite:
    """``dev=`` and ``path=`` of a domain's or pool's XML, where they name a device by where it was. Pure."""
    changes: list[str] = []
    unresolved: list[str] = []

    def replace(match: re.Match[str]) -> str:
        key, quote, old = match[1], match[2], match[3]
        if not is_unstable(old):
            return match[0]
        new = find(old)
        if new is None:
            unresolved.append(
                f"{what}: {old} is on none of the restored disks. Give it another one with 'virsh "
                f"{'edit' if what.startswith('VM') else 'pool-edit'} {what.partition(' ')[2]}'."
            )
            return match[0]
        changes.append(f"{what}: {old} became {new}.")
        return f"{key}={quote}{new}{quote}"

    return Rewrite(_DEVICE.sub(replace, text), tuple(changes), tuple(unresolved))


def _look_at(job: Job, host: HostTree, file: str, *, lost: bool) -> None:
    """Files that are missing, and what keeps a VM from being started by itself. ``lost``: one of its disks has a name
    that may be another disk's here."""
    name = Path(file).stem
    try:
        root = parse(host.read(file) or "")
    except ValueError:
        job.warn(f"The definition of VM {name} ({file}) is no XML.")
        return
    for path in missing_files(root, host):
        job.warn(f"VM {name}: its disk {path} is not on the restored host.")
    taken = [address for address in pci_addresses(root) if (_PCI / address).exists()]
    if not (taken or lost) or not _stop_autostart(host, name):
        return
    why = (
        f"it is given PCI {', '.join(taken)}, which here is a device of this machine" if taken
        else "a disk that it names is not among the restored ones, and that name may be another disk's here"
    )  # fmt: skip
    job.warn(f"VM {name} is not started with the host any more: {why}. 'virsh edit {name}', 'virsh autostart {name}'.")


def missing_files(root: ET.Element, host: HostTree) -> list[str]:
    """A domain's disks that are files and not there, as far as their filesystem is mounted."""
    points = [mount.point for mount in parse_fstab(host.read("/etc/fstab") or "") if mount.point.startswith("/")]
    found = []
    for path in files_of(root):
        on = max((p for p in ["/", *points] if path == p or path.startswith(p.rstrip("/") + "/")), key=len)
        if on in _MOUNTED and not host.exists(path):
            found.append(path)
    return found


def _stop_autostart(host: HostTree, name: str) -> bool:
    """Rename the link that libvirt starts the VM by. False when there is none."""
    folder = host.path(f"{_DOMAINS}/autostart")
    link = folder / f"{name}.xml"
    # Not through the link: it is the definition itself that it leads to.
    if not link.is_symlink():
        return False
    try:
        link.rename(folder / f"{name}.xml{KEPT}")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SpaceError(
            f"'{_DOMAINS}/autostart' of the restored host cannot be changed: {error.strerror}.",
            hint=f"Start the host without VMs, or remove {name}.xml there by hand.",
        ) from error
    return True
