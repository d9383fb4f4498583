"""Step: the last partition and what lies on it grow onto a larger disk. Rules: docs/adaptation.md, "Growing".

The partition and an LVM physical volume always grow; a logical volume only where it is the single one of its group,
because only then is it clear whom the room belongs to. Nothing here is needed to boot, so a failure is a warning.
"""

from __future__ import annotations

import os
from pathlib import Path

from recovery.adapt import stack
from recovery.adapt.devices import Node, partition_path, probe, scan
from recovery.adapt.gpt import read_table
from recovery.adapt.model import Job
from recovery.adapt.mount import place_to_mount
from recovery.adapt.tables import GROWABLE, Growth, growth
from recovery.commands import run
from recovery.errors import CommandError
from recovery.units import format_size

TITLE = "Use the whole disk"


def grow(job: Job) -> str:
    """Grow partitions (nothing is assembled yet), then assemble, then grow what lies on them."""
    grown: list[Node] = []
    for name, disk in job.request.targets.items():
        if job.request.grow and disk.size > job.request.point.disk(name).size:
            try:
                grown += _grow_disk(job, name)
            except CommandError as error:
                job.warn(f"{disk.path} keeps its old size: {error.message}")
    run(["udevadm", "settle", "--timeout=30"], check=False)
    job.nodes, warnings = stack.assemble(job.request.targets)
    for warning in warnings:
        job.warn(warning)
    before = len(job.changes)
    for node in grown:
        try:
            _grow_content(job, node)
        except CommandError as error:
            job.warn(f"What lies on {node.path} keeps its old size: {error.message}")
    job.nodes = scan(job.request.targets)
    if not job.request.grow:
        return "Not asked for."
    return "The disks are used to their ends." if grown or len(job.changes) > before else "Nothing to grow."


def _grow_disk(job: Job, name: str) -> list[Node]:
    """Grow the last partition of a disk if its content allows; returns the node whose content is to follow."""
    disk = job.request.targets[name]
    whole = next(n for n in job.nodes if n.disk == name and n.kind == "disk")
    if job.request.point.disk(name).table.kind == "none":
        return [whole] if whole.content in GROWABLE else []
    table = read_table(disk.path)
    if table.last is None:
        return []
    path = partition_path(disk.path, table.last.number)
    content = probe(path).get("TYPE", "")
    if content not in GROWABLE:
        room = disk.size - table.last.end
        job.warn(
            f"{format_size(room)} behind {path} stay unused: "
            f"{content or 'what lies on it'} is not grown."
        )  # fmt: skip
        return []
    for step in growth(table, disk.size):
        resize_partition(disk.path, step, table.sector)
        run(["partx", "--update", "--nr", str(step.number), disk.path], check=False)
        if step.number == table.last.number:
            job.changed(f"Partition {path} grew from {format_size(step.old)} to {format_size(step.size)}.")
    return [Node(path=path, kind="part", size=0, disk=name, number=table.last.number, content=content)]


def resize_partition(disk: str, step: Growth, sector: int) -> None:
    """Write the new size into the table; start, type, UUID and boot code stay. Raises CommandError."""
    # The kernel is told by partx afterwards: it can do so while neighbours are in use, a re-read cannot.
    words = ["sfdisk", "--no-reread", "--no-tell-kernel", "--force", "--quiet", "--wipe", "never"]
    line = f"start={step.start // sector}, size={step.size // sector}\n"
    run([*words, "--wipe-partitions", "never", "-N", str(step.number), disk], input=line.encode())


def _grow_content(job: Job, node: Node) -> None:
    if node.content != "LVM2_member":
        if grow_filesystem(node.path, node.content):
            job.changed(f"The {node.content} filesystem on {node.path} was grown to its partition.")
        return
    stack.lvm(job.nodes, "pvresize", node.path)
    group = probe_group(job, node.path)
    volumes = [v for v in stack.volumes(job.nodes) if v.group == group]
    free = stack.group_free(job.nodes).get(group, 0)
    if len(volumes) != 1 or volumes[0].segment != "linear":
        if free:
            job.changed(f"Volume group {group} now has {format_size(free)} free; no logical volume was grown.")
        return
    volume = volumes[0]
    path = f"/dev/{group}/{volume.name}"
    if free:
        stack.lvm(job.nodes, "lvextend", "--extents", "+100%FREE", f"{group}/{volume.name}")
        job.changed(f"Logical volume {group}/{volume.name} grew by {format_size(free)}.")
    # Also when the volume is full-grown already: an earlier run may have been cut off right behind lvextend.
    content = probe(path).get("TYPE", "")
    if grow_filesystem(path, content):
        job.changed(f"The {content} filesystem on {path} was grown to its volume.")


def probe_group(job: Job, volume: str) -> str:
    """The volume group that a physical volume belongs to, or empty. Raises CommandError."""
    return stack.lvm(job.nodes, "pvs", "--noheadings", "-o", "vg_name", volume).stdout.strip()


def grow_filesystem(device: str, content: str) -> bool:
    """Grow an unmounted filesystem to the size of its device; False when its kind cannot be grown here or it was
    as large already. Raises CommandError."""
    if content in ("ext2", "ext3", "ext4"):
        size = int(run(["blockdev", "--getsize64", device]).stdout)
        if size - _ext_size(device) < 2**20:
            return False
        done = run(["e2fsck", "-f", "-p", device], check=False)
        if done.returncode > 1:  # 0 clean, 1 corrected
            raise CommandError(
                f"the filesystem on {device} has errors that need a person: {done.stdout.strip()[-300:]}",
                hint=f"Run 'e2fsck -f {device}', then 'rekindle adapt' again.",
            )
        run(["resize2fs", device])
        return True
    if content in ("xfs", "btrfs"):
        return _grow_mounted(device, content)
    return False


def _ext_size(device: str) -> int:
    pairs = (line.partition(":") for line in run(["dumpe2fs", "-h", device]).stdout.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    return int(facts["Block count"]) * int(facts["Block size"])


def _grow_mounted(device: str, content: str) -> bool:
    """xfs and btrfs grow only while mounted."""
    with place_to_mount("grow") as folder:
        run(["mount", "-t", content, "-o", "nouuid" if content == "xfs" else "rw", device, folder])
        before = _total(folder)
        if content == "xfs":
            run(["xfs_growfs", folder])
        else:
            run(["btrfs", "filesystem", "resize", f"{_btrfs_device(device, folder)}:max", folder])
        return before != _total(folder)


def _total(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_blocks * status.f_frsize


def _btrfs_device(device: str, folder: Path) -> str:
    """The number of ``device`` within its btrfs: a filesystem over several devices grows each by itself."""
    for line in run(["btrfs", "filesystem", "show", "--raw", folder]).stdout.splitlines():
        words = line.split()
        if words[:1] == ["devid"] and words[-1] == device:
            return words[1]
    return "1"
