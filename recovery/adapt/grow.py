"""Step: the last partition and what lies on it grow onto a larger disk, or what the operator chose instead. Rules:
docs/adaptation.md, "Growing".

The partition, an md mirror, an encrypted volume and an LVM physical volume always grow; a logical volume or thin pool
only where it was chosen or is the single one of its group, because only then is it clear whom the room belongs to. A
partition in the middle of a disk has its new size already: the restore laid the disk out so. Nothing here is
needed to boot, so a failure is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from recovery.adapt import luks, ntfs, stack
from recovery.adapt.devices import Node, partition_path, probe, scan
from recovery.adapt.gpt import read_table
from recovery.adapt.model import Job
from recovery.adapt.mount import place_to_mount
from recovery.adapt.tables import GROWABLE, Growth, growth
from recovery.commands import run
from recovery.errors import CommandError, IntegrityError
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
    job.nodes, warnings = stack.assemble(job.request.targets, job.passphrases)
    for warning in warnings:
        job.warn(warning)
    _tell_degraded(job)
    before = len(job.changes)
    arrays: set[str] = set()
    for node in grown:
        array = next((n.path for n in job.nodes if n.kind.startswith("raid") and n.lies_on(node.path)), "")
        if array in arrays:
            continue  # by its first member, when all of them had grown
        arrays |= {array} - {""}
        try:
            _grow_content(job, node)
        except (CommandError, IntegrityError) as error:
            job.warn(f"What lies on {node.path} keeps its old size: {error.message}")
    job.nodes = scan(job.request.targets)
    if not job.request.grow:
        return "Not asked for."
    return "The disks are used to their ends." if grown or len(job.changes) > before else "Nothing to grow."


def _tell_degraded(job: Job) -> None:
    """Arrays that run without some of their disks. They were started and written to so, which their superblocks
    remember: the host starts them without waiting for the others."""
    for array in (node for node in job.nodes if node.kind.startswith("raid")):
        lacking, wanted = stack.missing_disks(array)
        if lacking:
            label = next((n.label for n in job.nodes if array.lies_on(n.path) and n.label), array.path)
            job.warn(
                f"The md array {label} runs degraded, with {wanted - lacking} of {wanted} disks, and the host boots "
                f"so. Give it another one soon: 'mdadm {array.path} --add PARTITION' (in the host, by its name there)."
            )


def _grow_disk(job: Job, name: str) -> list[Node]:
    """Grow the chosen or last partition of a disk if its content allows; returns the node whose content follows."""
    place = next((place for place in job.request.grow_to if place.disk == name), None)
    disk = job.request.targets[name]
    whole = next(n for n in job.nodes if n.disk == name and n.kind in ("disk", "loop"))
    if job.request.point.disk(name).table.kind == "none":
        return [whole] if _why_not_growable(job, whole.path, whole.content) == "" else []
    table = read_table(disk.path)
    if table.last is None:
        return []
    number = place.number if place else table.last.number
    path = partition_path(disk.path, number)
    content = probe(path).get("TYPE", "")
    steps = growth(table, disk.size) if number == table.last.number else []
    if content == "ntfs" and not steps and ntfs.is_full(path):
        return []  # grown by an earlier run, after which it waits for Windows to check it
    if why := _why_not_growable(job, path, content):
        room = disk.size - table.last.end
        unused = f"{format_size(room)} behind {path} stay unused" if number == table.last.number else f"{path} stays"
        job.warn(f"{unused}: {why}.")
        return []
    for step in steps:
        resize_partition(disk.path, step, table.sector)
        run(["partx", "--update", "--nr", str(step.number), disk.path], check=False)
        if step.number == number:
            job.changed(f"Partition {path} grew from {format_size(step.old)} to {format_size(step.size)}.")
    return [Node(path=path, kind="part", size=0, disk=name, number=number, content=content)]


def resize_partition(disk: str, step: Growth, sector: int) -> None:
    """Write the new size into the table; start, type, UUID and boot code stay. Raises CommandError."""
    # The kernel is told by partx afterwards: it can do so while neighbours are in use, a re-read cannot.
    words = ["sfdisk", "--no-reread", "--no-tell-kernel", "--force", "--quiet", "--wipe", "never"]
    line = f"start={step.start // sector}, size={step.size // sector}\n"
    run([*words, "--wipe-partitions", "never", "-N", str(step.number), disk], input=line.encode())


def _why_not_growable(job: Job, path: str, content: str) -> str:
    """Why a partition with this content keeps its size; empty when it may grow."""
    if content == "crypto_LUKS":
        return "" if job.passphrases else "the encrypted volume on it is not opened"
    if content == "linux_raid_member":
        facts = run(["mdadm", "--examine", "--export", path], check=False).stdout
        found = dict(line.partition("=")[::2] for line in facts.splitlines())
        # Older superblocks lie at the end of the partition: in a larger one they would not be found again. It is blkid
        # that knows: mdadm tells the version of arrays that run, not of a member.
        version = probe(path).get("VERSION", "?")
        if version not in ("1.1", "1.2"):
            return f"md's superblock of version {version} lies at its end"
        return "" if found.get("MD_LEVEL") == "raid1" else f"an md array of level {found.get('MD_LEVEL')} is not grown"
    if content == "ntfs":
        return ntfs.why_not_writable(path)
    return "" if content in GROWABLE else f"{content or 'what lies on it'} is not grown"


def _grow_content(job: Job, node: Node) -> None:
    """Grow what lies on ``node``, and what lies on that. Raises CommandError."""
    if node.content == "LVM2_member":
        _grow_group(job, node)
    elif node.content == "linux_raid_member":
        _grow_array(job, node)
    elif node.content == "crypto_LUKS":
        mapping = next((n for n in job.nodes if n.kind == "crypt" and n.lies_on(node.path)), None)
        if mapping is not None:  # else it was said why it stays closed
            luks.resize(mapping, job.passphrases)
            _grow_content(job, mapping)
    elif grow_filesystem(node.path, node.content):
        job.changed(f"The {node.content} filesystem on {node.path} was grown to its partition.")


def _grow_array(job: Job, member: Node) -> None:
    array = next((n for n in job.nodes if n.kind.startswith("raid") and n.lies_on(member.path)), None)
    if array is None:
        return
    before = _size(array.path)
    run(["mdadm", "--grow", array.path, "--size=max"])
    if (after := _size(array.path)) > before:
        job.changed(f"The md array {array.path} grew from {format_size(before)} to {format_size(after)}.")
    _grow_content(job, array)


def _grow_group(job: Job, node: Node) -> None:
    stack.lvm(job.nodes, "pvresize", node.path)
    group = probe_group(job, node.path)
    volumes = [v for v in stack.volumes(job.nodes) if v.group == group]
    free = stack.group_free(job.nodes).get(group, 0)
    chosen = {place.volume for place in job.request.grow_to if place.volume.partition("/")[0] == group}
    if chosen:
        volume = next((v for v in volumes if f"{group}/{v.name}" in chosen), None)
        if volume is None and f"{group}/" in "".join(chosen):
            job.warn(f"{', '.join(sorted(chosen))} is not in volume group {group}: the room stays free there.")
        if volume is not None:  # what was free before stays free: that is how its administrator left it
            free = max(0, free - _free_before(job, group))
    else:
        volume = only_heir(volumes)
    if volume is None:
        if free:
            job.changed(f"Volume group {group} now has {format_size(free)} free; no logical volume was grown.")
        return
    if free:
        stack.lvm(job.nodes, "lvextend", "--size", f"+{free}b", f"{group}/{volume.name}")
        job.changed(f"Logical volume {group}/{volume.name} grew by {format_size(free)}.")
    if volume.segment == "thin-pool":
        return  # its volumes keep the size that they promise; the pool can now hold more of it
    # Also when the volume is full-grown already: an earlier run may have been cut off right behind lvextend.
    path = f"/dev/{group}/{volume.name}"
    content = probe(path).get("TYPE", "")
    if content == "crypto_LUKS":
        upper = next((n for n in job.nodes if path in n.lv_names), None)
        if upper is not None:
            _grow_content(job, upper)
    elif grow_filesystem(path, content):
        job.changed(f"The {content} filesystem on {path} was grown to its volume.")


def _free_before(job: Job, group: str) -> int:
    """Free bytes of a group when the host was captured."""
    return next((g.free for g in job.request.point.body.volume_groups if g.name == group), 0)


def only_heir(volumes: Sequence[stack.Volume]) -> stack.Volume | None:
    """The volume that new room of a group belongs to without a doubt: the only one if it is linear, or the only thin
    pool of a group in which everything else lies in that pool. Pure."""
    pools = [v for v in volumes if v.segment == "thin-pool"]
    if len(pools) == 1:
        return pools[0] if all(v.pool == pools[0].name for v in volumes if v != pools[0]) else None
    return volumes[0] if len(volumes) == 1 and volumes[0].segment == "linear" else None


def _size(device: str) -> int:
    return int(run(["blockdev", "--getsize64", device]).stdout)


def probe_group(job: Job, volume: str) -> str:
    """The volume group that a physical volume belongs to, or empty. Raises CommandError."""
    return stack.lvm(job.nodes, "pvs", "--noheadings", "-o", "vg_name", volume).stdout.strip()


def grow_filesystem(device: str, content: str) -> bool:
    """Grow an unmounted filesystem to the size of its device; False when its kind cannot be grown here or it was
    as large already. Raises CommandError."""
    if content in ("ext2", "ext3", "ext4"):
        if _size(device) - _ext_size(device) < 2**20:
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
    if content == "ntfs":
        return ntfs.grow_ntfs(device)
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
