"""md arrays, encrypted volumes and LVM of the restored disks: assembled for the work, released at its end.

LVM is shown the restored disks' devices only (``--devices``): the devices file of the medium does not matter, and a
volume group of the same name on another disk of this machine is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recovery.adapt import luks
from recovery.adapt.devices import Node, scan
from recovery.adapt.luks import Passphrases
from recovery.commands import Completed, run
from recovery.machine.model import Disk

#: More layers (LVM on LUKS on md is three) than anybody lays on each other.
_LAYERS = 6
_NOT_ACTIVE = "Not every logical volume of the host could be activated"
NOTHING = Passphrases()


@dataclass(frozen=True)
class Volume:
    """A logical volume as ``lvs`` shows it. Bytes. ``pool`` is the thin pool of a thin volume."""

    group: str
    name: str
    size: int
    segment: str
    pool: str = ""


def physical_volumes(nodes: Sequence[Node]) -> list[str]:
    """The devices that hold the host's LVM. A member of an array is not one, though blkid may see LVM through it, nor
    is a logical volume: the LVM in it belongs to a VM."""
    return [n.path for n in nodes if n.content == "LVM2_member" and n.kind != "lvm"]


def lvm(nodes: Sequence[Node], *words: str, check: bool = True) -> Completed:
    """Run an LVM command that sees the restored disks only. Raises CommandError."""
    command, *rest = words
    return run(["lvm", command, "--devices", ",".join(physical_volumes(nodes)), *rest], check=check, timeout=120)


def assemble(targets: Mapping[str, Disk], passphrases: Passphrases = NOTHING) -> tuple[tuple[Node, ...], list[str]]:
    """Start arrays, open encrypted volumes and activate volume groups, in whatever order they lie on each other.

    Returns the nodes and warnings (what stayed down, and why). Without a passphrase encrypted volumes stay closed, and
    nothing is said of it. Raises CommandError when a disk can't be listed.
    """
    warnings: list[str] = []
    given_up: set[str] = set()
    nodes = scan(targets)
    for _ in range(_LAYERS):
        before = {node.path for node in nodes}
        nodes = _start_arrays(targets, nodes, warnings, given_up)
        nodes = _open_encrypted(targets, nodes, passphrases, warnings, given_up)
        nodes = _activate_groups(targets, nodes, warnings)
        if {node.path for node in nodes} == before:
            break
    return nodes, list(dict.fromkeys(warnings))


def _start_arrays(
    targets: Mapping[str, Disk], nodes: tuple[Node, ...], warnings: list[str], given_up: set[str]
) -> tuple[Node, ...]:
    for uuid, members in array_members(nodes).items():
        if uuid in given_up:
            continue
        # --run: a mirror of which one disk was restored still boots, and is to be adapted. --homehost: arrays of
        # another host would else come up under foreign names.
        name = f"/dev/md/rekindle-{uuid[:8]}"
        done = run(["mdadm", "--assemble", "--run", "--homehost=any", name, *members], check=False)
        if not done:
            given_up.add(uuid)
            warnings.append(f"The md array on {', '.join(members)} could not be started: {_last(done)}.")
        run(["udevadm", "settle", "--timeout=30"], check=False)
        nodes = scan(targets)
    return nodes


def _open_encrypted(
    targets: Mapping[str, Disk],
    nodes: tuple[Node, ...],
    passphrases: Passphrases,
    warnings: list[str],
    given_up: set[str],
) -> tuple[Node, ...]:
    for node in luks.closed(nodes) if passphrases else ():
        if node.path in given_up:
            continue
        why = luks.open_volume(node, passphrases)
        if why:
            given_up.add(node.path)
            warnings.append(f"The encrypted volume (LUKS) on {node.path} stays closed: {why}.")
        run(["udevadm", "settle", "--timeout=30"], check=False)
        nodes = scan(targets)
    return nodes


def _activate_groups(targets: Mapping[str, Disk], nodes: tuple[Node, ...], warnings: list[str]) -> tuple[Node, ...]:
    if not physical_volumes(nodes):
        return nodes
    done = lvm(nodes, "vgchange", "--activate", "y", "--monitor", "n", check=False)
    run(["udevadm", "settle", "--timeout=30"], check=False)
    run(["lvm", "vgmknodes", "--devices", ",".join(physical_volumes(nodes))], check=False)
    # A group that lies on a volume which is opened a round later complains for nothing.
    warnings[:] = [text for text in warnings if not text.startswith(_NOT_ACTIVE)]
    if not done:
        warnings.append(f"{_NOT_ACTIVE}: {_last(done)}.")
    return scan(targets)


def release(nodes: Sequence[Node]) -> None:
    """Stop what ``assemble`` (or udev) started, what lies on top first. Never raises for a stack that stays up: that
    is only untidy."""
    waiting = [n for n in reversed(nodes) if n.kind == "crypt" and not luks.close(n)]  # on a logical volume
    # Without a device LVM would be shown all of the machine's, and stop what is none of our business.
    if any(n.kind == "lvm" for n in nodes) and physical_volumes(nodes):
        lvm(nodes, "vgchange", "--activate", "n", check=False)
    for node in waiting:
        luks.close(node)
    for array in {n.path for n in nodes if n.kind.startswith("raid")}:
        run(["mdadm", "--stop", array], check=False)


def missing_disks(array: Node, sysfs: Path = Path("/sys")) -> tuple[int, int]:
    """(disks that a running array lacks, disks that it should have); (0, 0) when that is not known."""
    folder = sysfs / "class/block" / Path(array.path).resolve().name / "md"
    try:
        return int((folder / "degraded").read_text()), int((folder / "raid_disks").read_text())
    except (OSError, ValueError):
        return 0, 0


def volumes(nodes: Sequence[Node]) -> list[Volume]:
    """The logical volumes on the restored disks. Raises CommandError."""
    if not physical_volumes(nodes):
        return []
    words = (
        "lvs",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "vg_name,lv_name,lv_size,segtype,pool_lv",
    )
    rows = json.loads(lvm(nodes, *words).stdout)["report"][0]["lv"]
    return [Volume(r["vg_name"], r["lv_name"], int(r["lv_size"]), r["segtype"], r.get("pool_lv", "")) for r in rows]


def group_free(nodes: Sequence[Node]) -> dict[str, int]:
    """Volume group -> free bytes. Raises CommandError."""
    if not physical_volumes(nodes):
        return {}
    words = ("vgs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_name,vg_free")
    rows = json.loads(lvm(nodes, *words).stdout)["report"][0]["vg"]
    return {r["vg_name"]: int(r["vg_free"]) for r in rows}


def array_members(nodes: Sequence[Node]) -> dict[str, list[str]]:
    """Array UUID -> its members on the restored disks, of the arrays that are not running yet."""
    running = {path for n in nodes if n.kind.startswith("raid") for path in (n.parent, *n.parents)}
    arrays: dict[str, list[str]] = {}
    for node in nodes:
        if node.content == "linux_raid_member":
            arrays.setdefault(node.uuid, []).append(node.path)
    return {uuid: paths for uuid, paths in arrays.items() if not running.intersection(paths)}


def _last(done: Completed) -> str:
    return ((done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]).rstrip(".")
