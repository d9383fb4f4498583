"""The VMs of a captured host: libvirt's domain definitions on its disks, and where their disks lie."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import msgspec

from recovery.capture.hypervisors import Hypervisor, Libvirt
from recovery.capture.tree import Tree
from recovery.domain import parse
from recovery.errors import CommandError
from recovery.layout import VirtualMachine, VmDisk

_DOMAINS = "/etc/libvirt/qemu"
_UNITS = {
    "b": 1, "bytes": 1, "KB": 10**3, "k": 2**10, "KiB": 2**10, "MB": 10**6, "M": 2**20, "MiB": 2**20,
    "GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40,
}  # fmt: skip

#: Where a host path lies: ``disk1:2`` or ``vg0/root`` and the size in bytes, where known.
FindDisk = Callable[[str, str], tuple[str, int | None]]


def read_vms(tree: Tree, find_disk: FindDisk) -> tuple[list[VirtualMachine], list[str]]:
    """The domains defined on the host, by name, and a sentence for each definition that cannot be read."""
    vms: list[VirtualMachine] = []
    autostart = set(tree.names(f"{_DOMAINS}/autostart"))
    files = [file for file in tree.names(_DOMAINS) if file.endswith(".xml")]
    states, problems = states_here(tree, Libvirt()) if files else ({}, [])
    for file in files:
        text = tree.text(f"{_DOMAINS}/{file}")
        try:
            vm = parse_domain(text, autostart=file in autostart)
        except ValueError as error:
            problems.append(f"The VM definition {_DOMAINS}/{file} cannot be read: {error}.")
            continue
        disks = tuple(_with_place(disk, tree, find_disk) for disk in vm.disks)
        vms.append(msgspec.structs.replace(vm, disks=disks, state=states.get(vm.uuid, "unknown")))
    return vms, problems


def parse_domain(text: str, *, autostart: bool = False) -> VirtualMachine:
    """A VM from its libvirt XML. Raises ValueError when it isn't a domain."""
    root = parse(text)
    if root.tag != "domain" or not root.findtext("name"):
        raise ValueError("it has no domain with a name")
    memory = root.find("memory")
    amount = (memory.text or "0").strip() if memory is not None else "0"
    unit = _UNITS.get(memory.get("unit", "KiB") if memory is not None else "KiB", 1024)
    vcpus = (root.findtext("vcpu") or "0").strip()
    return VirtualMachine(
        name=root.findtext("name", "").strip(),
        uuid=root.findtext("uuid", "").strip(),
        memory=int(amount) * unit if amount.isdigit() else 0,
        vcpus=int(vcpus) if vcpus.isdigit() else 0,
        autostart=autostart,
        disks=tuple(disk for element in root.iterfind("devices/disk") for disk in _disk(element)),
        definition=text,
    )


def _disk(element: ET.Element) -> list[VmDisk]:
    if element.get("device", "disk") != "disk":
        return []
    source, target, driver = element.find("source"), element.find("target"), element.find("driver")
    where = ""
    if source is not None:
        where = source.get("file") or source.get("dev") or source.get("dir") or source.get("name") or ""
        if source.get("pool"):
            where = f"{source.get('pool')}/{source.get('volume', '')}"
        elif source.get("protocol"):
            where = f"{source.get('protocol')}:{where}"
    return [
        VmDisk(
            target=target.get("dev", "") if target is not None else "",
            source=where,
            format=driver.get("type", "raw") if driver is not None else "raw",
        )
    ]


def _with_place(disk: VmDisk, tree: Tree, find_disk: FindDisk) -> VmDisk:
    source = disk.source
    pool, _, volume = source.partition("/")
    if pool and volume and not source.startswith("/") and ":" not in pool:
        # type='volume': the pool's definition says which folder or VG it stands for.
        text = tree.text(f"/etc/libvirt/storage/{pool}.xml")
        try:
            path = parse(text).findtext("target/path") if text else None
        except ValueError:
            path = None
        source = f"{path.strip()}/{volume}" if path else source
    on, size = find_disk(source, disk.format)
    return msgspec.structs.replace(disk, source=source, on=on, size=size)


def virtual_size(tree: Tree, path: str, driver: str) -> int | None:
    """Bytes of a VM's disk as the VM sees it: a qcow2 file's header says it, a raw file is it. None when unknown."""
    if driver == "qcow2":
        head = tree.head(path, 32)
        return int.from_bytes(head[24:32], "big") if head[:4] == b"QFI\xfb" and len(head) == 32 else None
    return tree.size(path) if driver == "raw" else None


def states_here(tree: Tree, hypervisor: Hypervisor) -> tuple[dict[str, str], list[str]]:
    """The VMs' states when the captured system is the one we run on, and a sentence when nobody tells them."""
    if not tree.of_this_machine():
        return {}, []
    try:
        return hypervisor.states(), []
    except CommandError as error:
        return {}, [f"Which VMs of {hypervisor.title} run is not known, and none is quiesced: {error.message}"]
