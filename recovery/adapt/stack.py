"""md arrays and LVM of the restored disks: assembled for the work, released at its end.

LVM is shown the restored disks' devices only (``--devices``): the devices file of the medium does not matter, and a
volume group of the same name on another disk of this machine is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recovery.adapt.devices import Node, scan
from recovery.commands import Completed, run
from recovery.machine.model import Disk


@dataclass(frozen=True)
class Volume:
    """A logical volume as ``lvs`` shows it. Bytes."""

    group: str
    name: str
    size: int
    segment: str


def physical_volumes(nodes: Sequence[Node]) -> list[str]:
    """The devices that hold the host's LVM. A member of an array is not one, though blkid may see LVM through it, nor
    is a logical volume: the LVM in it belongs to a VM."""
    return [n.path for n in nodes if n.content == "LVM2_member" and n.kind != "lvm"]


def lvm(nodes: Sequence[Node], *words: str, check: bool = True) -> Completed:
    """Run an LVM command that sees the restored disks only. Raises CommandError."""
    command, *rest = words
    return run(["lvm", command, "--devices", ",".join(physical_volumes(nodes)), *rest], check=check, timeout=120)


def assemble(targets: Mapping[str, Disk]) -> tuple[tuple[Node, ...], list[str]]:
    """Start arrays and volume groups. Returns the nodes and warnings (what stayed down, and why)."""
    warnings: list[str] = []
    nodes = scan(targets)
    for uuid, members in array_members(nodes).items():
        # --run: a mirror of which one disk was restored still boots, and is to be adapted. --homehost: arrays of
        # another host would else come up under foreign names.
        name = f"/dev/md/rekindle-{uuid[:8]}"
        done = run(["mdadm", "--assemble", "--run", "--homehost=any", name, *members], check=False)
        if not done:
            warnings.append(f"The md array on {', '.join(members)} could not be started: {_last(done)}.")
        run(["udevadm", "settle", "--timeout=30"], check=False)
        nodes = scan(targets)
    if physical_volumes(nodes):
        done = lvm(nodes, "vgchange", "--activate", "y", "--monitor", "n", check=False)
        run(["udevadm", "settle", "--timeout=30"], check=False)
        run(["lvm", "vgmknodes", "--devices", ",".join(physical_volumes(nodes))], check=False)
        if not done:
            warnings.append(f"Not every logical volume of the host could be activated: {_last(done)}.")
        nodes = scan(targets)
    return nodes, warnings


def release(nodes: Sequence[Node]) -> None:
    """Stop what ``assemble`` (or udev) started. Never raises for a stack that stays up: that is only untidy."""
    # Without a device LVM would be shown all of the machine's, and stop what is none of our business.
    if any(n.kind == "lvm" for n in nodes) and physical_volumes(nodes):
        lvm(nodes, "vgchange", "--activate", "n", check=False)
    for array in {n.path for n in nodes if n.kind.startswith("raid")}:
        run(["mdadm", "--stop", array], check=False)


def volumes(nodes: Sequence[Node]) -> list[Volume]:
    """The logical volumes on the restored disks. Raises CommandError."""
    if not physical_volumes(nodes):
        return []
    words = ("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_name,lv_name,lv_size,segtype")
    rows = json.loads(lvm(nodes, *words).stdout)["report"][0]["lv"]
    return [Volume(r["vg_name"], r["lv_name"], int(r["lv_size"]), r["segtype"]) for r in rows]


def group_free(nodes: Sequence[Node]) -> dict[str, int]:
    """Volume group -> free bytes. Raises CommandError."""
    if not physical_volumes(nodes):
        return {}
    words = ("vgs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_name,vg_free")
    rows = json.loads(lvm(nodes, *words).stdout)["report"][0]["vg"]
    return {r["vg_name"]: int(r["vg_free"]) for r in rows}


def array_members(nodes: Sequence[Node]) -> dict[str, list[str]]:
    """Array UUID -> its members on the restored disks, of the arrays that are not running yet."""
    running = {n.parent for n in nodes if n.kind.startswith("raid")}
    arrays: dict[str, list[str]] = {}
    for node in nodes:
        if node.content == "linux_raid_member":
            arrays.setdefault(node.uuid, []).append(node.path)
    return {uuid: paths for uuid, paths in arrays.items() if not running.intersection(paths)}


def _last(done: Completed) -> str:
    return ((done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]).rstrip(".")
