"""Step: names of disks in the host's configuration survive the move to other disks, buses and ports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from recovery.adapt.devices import Node, is_unstable, resolve
from recovery.adapt.loader_entries import pin_command_line
from recovery.adapt.mdconf import rewrite_mdadm
from recovery.adapt.model import Job
from recovery.adapt.names import (
    Rewrite,
    allow_uuid_root,
    parse_fstab,
    rewrite_crypttab,
    rewrite_fstab,
    rewrite_parameters,
    rewrite_resume,
)
from recovery.commands import run

TITLE = "Replace disk names that changed"

#: Files with kernel command lines.
_COMMAND_LINES = ("/etc/kernel/cmdline", "/etc/default/grub")


def rename(job: Job) -> str:
    """Rewrite fstab, crypttab, command lines; put aside files that pin old disks. Raises SpaceError."""
    host = job.host
    if host is None:
        return "No system to adapt."
    before = len(job.changes)

    mounts = parse_fstab(host.read("/etc/fstab") or "")
    root_specs = {m.spec for m in mounts if m.point == "/"}

    def lookup(spec: str, content: str) -> str | None:
        if spec in root_specs and job.root is not None:
            return stable_name(job.root)  # what was found and mounted as the root is no guess
        node = resolve(spec, job.nodes, job.request.point.body.disks, content)
        return stable_name(node) if node else None

    def exists(spec: str) -> bool:
        # What lies in an encrypted volume that stays closed cannot be seen from here.
        closed = any(n.content == "crypto_LUKS" and not _has_child(n, job.nodes) for n in job.nodes)
        return closed or resolve(spec, job.nodes, job.request.point.body.disks) is not None

    def lost(spec: str) -> bool:
        # A PARTUUID of an MBR that is a GPT now still finds its partition here, but not when the host starts.
        former = (
            resolve(spec, job.nodes) is None and resolve(spec, job.nodes, job.request.point.body.disks) is not None
        )
        return is_unstable(spec) or (former and "PARTUUID" in spec.upper())

    _end_hibernation(job)
    pin_command_line(job, host)
    _apply(job, "/etc/fstab", lambda text: rewrite_fstab(text, lookup, lost))
    _apply(job, "/etc/crypttab", lambda text: rewrite_crypttab(text, lookup, lost))
    _apply(job, "/etc/initramfs-tools/conf.d/resume", lambda text: rewrite_resume(text, lookup, exists, lost))
    folders = dict.fromkeys(("/boot", job.esp_path or "/boot"))
    files = [*_COMMAND_LINES, *host.glob("/etc/default/grub.d/*.cfg"), *host.glob("/etc/dracut.conf.d/*.conf")]
    files += [file for folder in folders for file in host.glob(f"{folder}/loader/entries/*.conf")]
    root = stable_name(job.root) if job.root else None
    for file in files:
        _apply(job, file, lambda text, file=file: rewrite_parameters(text, lookup, file, exists, root, lost))  # type: ignore[misc]
    _apply(job, "/etc/default/grub", allow_uuid_root)
    for file in ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"):
        _apply(job, file, rewrite_mdadm)
    for folder in ("/boot/grub", "/boot/grub2"):
        if host.move_aside(f"{folder}/device.map"):
            job.changed(f"{folder}/device.map named the old disks; GRUB looks for itself now.")
    if host.move_aside("/etc/lvm/devices/system.devices"):
        job.changed("LVM's devices file allowed the old disks only; it was put aside, LVM looks at all disks.")
    if host.exists("/etc/multipath/wwids") and any(m.spec.startswith("/dev/mapper/mpath") for m in mounts):
        job.warn("fstab uses multipath names (/dev/mapper/mpath...), which the new disks may not get.")
    return "Disk names are stable." if len(job.changes) > before else "All disk names were stable."


def _end_hibernation(job: Job) -> None:
    """A session that sleeps in swap remembers filesystems as they were: woken, it would write over what is adapted.
    Its image goes, and the swap area keeps its UUID and label."""
    for number, node in enumerate(job.nodes):
        if node.content != "swsuspend":
            continue
        names = [
            word for option, value in (("-U", node.uuid), ("-L", node.label)) if value for word in (option, value)
        ]
        run(["mkswap", *names, node.path])
        job.nodes = (*job.nodes[:number], dataclasses.replace(node, content="swap"), *job.nodes[number + 1 :])
        job.changed(f"The session that slept in {node.path} (hibernation) was given up: the host starts anew.")


def _has_child(node: Node, nodes: tuple[Node, ...]) -> bool:
    return any(other.lies_on(node.path) for other in nodes)


def stable_name(node: Node) -> str | None:
    """A name for a device that holds on every machine."""
    if node.uuid and node.content not in ("LVM2_member", "linux_raid_member"):
        return f"UUID={node.uuid}"
    return f"PARTUUID={node.part_uuid}" if node.part_uuid else None


def _apply(job: Job, file: str, rewrite: Callable[[str], Rewrite]) -> None:
    assert job.host is not None  # noqa: S101 - checked by the caller
    text = job.host.read(file)
    if text is None:
        return
    result = rewrite(text)
    if result.changes:
        job.host.write(file, result.text)
    for sentence in result.changes:
        job.changed(sentence)
    for sentence in result.unresolved:
        job.warn(sentence)
