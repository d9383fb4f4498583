"""Step: SELinux labels the changed files at the first boot. Files written from here carry no label, and an
enforcing host whose fstab or initramfs configuration has none does not let anybody in."""

from __future__ import annotations

import re

from recovery.adapt.model import Job

TITLE = "Ask SELinux for new labels"


def relabel(job: Job) -> str:
    """``/.autorelabel`` on a host where SELinux is on. Raises SpaceError."""
    host = job.host
    if host is None:
        return "No system to adapt."
    if not uses_selinux(host.read("/etc/selinux/config") or ""):
        return "The host does not use SELinux."
    if not job.changes:
        return "No file was changed."
    if host.write("/.autorelabel", ""):
        job.changed("SELinux will label all files anew at the first boot; it takes some minutes and restarts once.")
    return "Labels are renewed at the first boot."


def uses_selinux(config: str) -> bool:
    """Whether /etc/selinux/config switches it on (a permissive host complains, and may be made enforcing). Pure."""
    return bool(re.search(r"(?m)^\s*SELINUX\s*=\s*(enforcing|permissive)\b", config))
