"""Step: Windows' drive letters mean the partitions that they meant. It knows a partition of a GPT by its GUID, and one
of an MBR by the disk's signature and the byte where it starts: only where that one was moved is it written anew."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from recovery.adapt.model import Job
from recovery.adapt.windows_system import Found, change_registry, in_each
from recovery.windows.hives import BINARY, Hive
from recovery.windows.system import Installed

TITLE = "Keep Windows' drive letters"

#: The key of the SYSTEM hive. An entry of a GPT is ``DMIO:ID:`` and a GUID: it is as long as no other.
KEY = "MountedDevices"


def keep_letters(job: Job) -> str:
    """Raises IntegrityError, CommandError, SpaceError."""
    count = in_each(job, lambda found: _keep(job, found))
    return "Drive letters mean the same partitions." if count else "No Windows on these disks."


def _keep(job: Job, found: Found) -> None:
    moved = moves_of(job)

    def change(hive: Hive, installed: Installed) -> list[str]:
        entries = {name: data for name, (_, data) in hive.values(KEY).items()}
        new = renewed(entries, moved)
        for name, data in new.items():
            hive.set_value(KEY, name, BINARY, data)
        return [f"{name} means the same partition as before, which was moved." for name in new]

    for text in change_registry(job, found, change):
        job.changed(f"{found.name} on {found.node.path}: {text}")


def moves_of(job: Job) -> dict[bytes, bytes]:
    """What an entry of a moved partition of an MBR was -> what it is now."""
    moves: dict[bytes, bytes] = {}
    for one in job.request.moved:
        table = job.request.point.disk(one.disk).table
        if table.kind == "mbr" and table.uuid:
            moves[mbr_entry(table.uuid, one.old_start)] = mbr_entry(table.uuid, one.start)
    return moves


def mbr_entry(signature: str, start: int) -> bytes:
    """The entry of the partition that starts at byte ``start`` of the disk with this signature (hex). Pure."""
    return struct.pack("<IQ", int(signature, 16), start)


def renewed(entries: Mapping[str, bytes], moved: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """The entries that a move made stale, with what they have to be. What is kept by a GUID, and what is of other
    disks, stays. Pure.

    One partition may lie now where another one lay, so an entry alone does not tell whether it was renewed already.
    All are renewed at once, so an entry of a place where nothing begins any more tells that none was.
    """
    gone = set(moved) - set(moved.values())
    if not gone.intersection(entries.values()):
        return {}
    return {name: moved[data] for name, data in entries.items() if data in moved}
