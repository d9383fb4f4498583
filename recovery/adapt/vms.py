"""Step: the host's VMs find their disks, and none takes a device away that this machine needs.

Libvirt's definitions are files of the host (``/etc/libvirt/qemu``, ``/etc/libvirt/storage``), read when its daemon
starts. Names of devices in them are replaced where it is certain what they meant; nothing else in them is touched.
Whatever goes wrong with a VM is a warning: the host starts without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recovery.adapt.autostart import keep_off
from recovery.adapt.devices import Node, below, is_unstable, resolve
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.adapt.names import Rewrite, parse_fstab
from recovery.commands import run
from recovery.domain import addresses_of_network, disk_files, network_names, parse, pci_addresses, scsi_addresses
from recovery.errors import RekindleError

TITLE = "See that the VMs find their disks and take nothing that this machine needs"

_DOMAINS = "/etc/libvirt/qemu"
_POOLS = "/etc/libvirt/storage"
_DEVICE = re.compile(r"""(?<=[\s<])(dev|path|file)=(['"])(/dev/[^'"<>]+)\2""")
_SYS = Path("/sys")


@dataclass(frozen=True)
class Lost:
    """A name for which no other one is put: why, as the end of a sentence, and whether it may be another device's
    here (``/dev/sdb``), or merely names nothing (``by-id``)."""

    why: str
    mistaken: bool


#: (device name of the host) -> the name to be used, perhaps the same one.
Find = Callable[[str], str | Lost]


def see_to_vms(job: Job) -> str:
    """Never raises for what it finds in a VM."""
    host = job.host
    if host is None:
        return "No system to adapt."
    if not job.request.point.id:
        return "Nothing was moved: the VMs' definitions stay as they are."
    definitions = list(host.glob(f"{_DOMAINS}/*.xml"))
    networks = _hostdev_networks(host)
    find = _finder(job, own_devices(job, host))
    for file in [*definitions, *(host.glob(f"{_POOLS}/*.xml") if definitions else ())]:
        what = f"{'VM' if file in definitions else 'pool'} {Path(file).stem}"
        try:
            lost = _rename(job, host, file, what, find)
            if file in definitions:
                _look_at(job, host, file, lost, networks)
        except (RekindleError, OSError, ValueError) as error:
            job.warn(f"{what} was not seen to: {getattr(error, 'message', error)}")
    return f"{len(definitions)} VMs looked at." if definitions else "The host has no VMs of libvirt."


def own_devices(job: Job, host: HostTree) -> frozenset[str]:
    """The devices that the host itself lies on: no VM is ever given one of them."""
    disks = job.request.point.body.disks
    named = (resolve(mount.spec, job.nodes, disks) for mount in parse_fstab(host.read("/etc/fstab") or ""))
    own = [node for node in (job.root, job.esp, *named) if node is not None]
    own += [node for node in job.nodes if node.mounted or node.content in ("swap", "swsuspend")]
    # What volume groups, arrays and opened volumes of the host lie on.
    own += [node for node in job.nodes if node.kind not in ("disk", "part")]
    return frozenset(lower.path for node in own for lower in below(node, job.nodes) if lower.kind in ("disk", "part"))


def _finder(job: Job, own: frozenset[str]) -> Find:
    disks = job.request.point.body.disks

    def find(spec: str) -> str | Lost:
        by_id = spec.startswith("/dev/disk/by-id/")
        node = resolve(spec, job.nodes, disks, guess=False)
        # Of an MBR that is a GPT now. Any other such name stays: its disk may be one that was not restored.
        former = "by-partuuid" in spec and node is not None and resolve(spec, job.nodes) is None
        if not (is_unstable(spec) or former) or (by_id and _is_here(spec)):
            return spec
        if node is None:
            return Lost("is on none of the restored disks", not by_id)
        if node.path in own:
            return Lost(f"would be {node.path} here, on which the host itself lies", True)
        name = lasting_name(node)
        return name if name else Lost(f"is {node.path} here, which has no lasting name", not by_id)

    return find


def _is_here(name: str) -> bool:
    return Path(name).exists()


def lasting_name(node: Node) -> str | None:
    """A path that means this device on every machine: what lies on a VM's disk may have no UUID of its own."""
    if node.part_uuid:
        return f"/dev/disk/by-partuuid/{node.part_uuid}"
    done = run(["udevadm", "info", "--query=symlink", f"--name={node.path}"], check=False)
    links = sorted(link for link in done.stdout.split() if link.startswith("disk/by-id/"))
    return f"/dev/{links[0]}" if links else None


def rewrite_definition(text: str, find: Find, what: str) -> tuple[Rewrite, bool]:
    """``dev=``, ``path=`` and ``file=`` of a domain's or pool's XML where they name a device; and whether a name is
    left that may be another device's here. Pure."""
    changes: list[str] = []
    unresolved: list[str] = []
    mistaken = False

    def replace(match: re.Match[str]) -> str:
        nonlocal mistaken
        key, quote, old = match[1], match[2], match[3]
        new = find(old)
        if isinstance(new, Lost):
            mistaken = mistaken or new.mistaken
            edit = "edit" if what.startswith("VM") else "pool-edit"
            unresolved.append(
                f"{what}: {old} {new.why}. Give it its device with 'virsh {edit} {what.partition(' ')[2]}'."
            )
            return match[0]
        if new != old:
            changes.append(f"{what}: {old} became {new}.")
        return f"{key}={quote}{new}{quote}"

    return Rewrite(_DEVICE.sub(replace, text), tuple(changes), tuple(unresolved)), mistaken


def _rename(job: Job, host: HostTree, file: str, what: str, find: Find) -> bool:
    found, mistaken = rewrite_definition(host.read(file) or "", find, what)
    if found.changes:
        host.write(file, found.text)
    for sentence in found.changes:
        job.changed(sentence)
    for sentence in found.unresolved:
        job.warn(sentence)
    return mistaken


def _look_at(job: Job, host: HostTree, file: str, lost: bool, networks: Mapping[str, list[str]]) -> None:
    name = Path(file).stem
    domain = parse(host.read(file) or "")
    for path in disk_files(domain):
        if _is_missing(host, path):
            job.warn(f"VM {name}: {path} is not in its folder on the restored host.")
    if host.exists(f"/var/lib/libvirt/qemu/save/{name}.save"):
        job.warn(
            f"VM {name} sleeps in a managed save, with the devices and the processor of the old machine: if it does "
            f"not wake here, 'virsh managedsave-remove {name}' gives that session up."
        )
    given = [*pci_addresses(domain), *(one for net in network_names(domain) for one in networks.get(net, ()))]
    taken = [why for address in dict.fromkeys(given) if (why := _needed(job, host, address))]
    taken += [f"SCSI {place}, which is a device of this machine" for place in scsi_addresses(domain)
              if (_SYS / "class/scsi_device" / place).exists()]  # fmt: skip
    if lost:
        taken.append("a device whose name may be another one's here")
    if taken and keep_off(host, name, domain.findtext("uuid", "").strip()):
        job.warn(
            f"VM {name} is not started with the host any more, because it would take {' and '.join(taken)}. See to "
            f"that ('virsh edit {name}'), then 'virsh autostart {name}'."
        )


def _is_missing(host: HostTree, path: str) -> bool:
    """Not there, where its folder is and holds something: an empty one may be a filesystem that is not mounted now."""
    real = host.path(path)
    try:
        return not real.exists() and any(real.parent.iterdir())
    except OSError:
        return False


def _needed(job: Job, host: HostTree, address: str) -> str:
    """What of this machine the host needs at a PCI address; empty where that is nothing, or nothing is there."""
    device = _SYS / "bus/pci/devices" / address
    if not device.exists():
        return ""
    for disk in job.request.targets.values():
        block = _SYS / "class/block" / disk.path.rpartition("/")[2]
        if f"/{address}/" in f"{block.resolve()}/":
            return f"PCI {address}, the controller of the host's own disk {disk.path}"
    links = {file: (host.read(file) or "").lower() for file in host.glob("/etc/systemd/network/10-rekindle-*.link")}
    for nic in job.request.machine.nics:
        if nic.slot == address and any(nic.mac.lower() in text for f, text in links.items() if "spare" not in f):
            return f"PCI {address}, the network card that the host itself uses"
    return ""


def _hostdev_networks(host: HostTree) -> dict[str, list[str]]:
    """Networks whose cards are devices of the host -> their PCI addresses."""
    found: dict[str, list[str]] = {}
    for file in host.glob(f"{_DOMAINS}/networks/*.xml"):
        try:
            found |= addresses_of_network(parse(host.read(file) or ""))
        except (RekindleError, OSError, ValueError):
            continue
    return found
