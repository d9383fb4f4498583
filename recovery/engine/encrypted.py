"""Does the passphrase open the host's encrypted volumes? Asked before the first write: their headers are in the
repository, or on the disks that are to be repaired."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recovery.adapt.devices import partition_path
from recovery.adapt.luks import NO_MEMORY, Passphrases, opens, why_not
from recovery.commands import Completed
from recovery.format.point import Point
from recovery.plan.check_stack import LUKS, luks_volumes, root_is_encrypted
from recovery.plan.model import Problem, RestorePlan
from recovery.repository.repository import Repository
from recovery.restore.peek import read_captured
from recovery.units import MIB

#: What cryptsetup lays before the content by default (LUKS2), where the header itself was not read at capture.
_HEADER = 16 * MIB
#: A header that claims to be larger than this is not believed.
_LARGEST_HEADER = 256 * MIB


def check_restored(repository: Repository, point: Point, plan: RestorePlan, passphrases: Passphrases) -> list[Problem]:
    """Try the passphrases on the headers as they were captured. Raises IntegrityError, UnreachableError,
    CommandError (no cryptsetup here)."""
    if not (passphrases and plan.choices.adapt) or root_is_encrypted(point) is False:
        return []
    chosen = {assignment.source.name: assignment.source.size for assignment in plan.assignments}
    answers: dict[str, Completed | None] = {}
    for volume in luks_volumes(point):
        if volume.disk not in chosen:
            continue
        length = min(volume.header or _HEADER, _LARGEST_HEADER)
        header = read_captured(repository, point, volume.disk, volume.offset, length)
        with tempfile.NamedTemporaryFile(prefix="rekindle-header-") as file:
            file.write(header)
            file.flush()
            # Sparse: cryptsetup wants to see a device that is large enough for content behind the header.
            os.truncate(file.name, max(len(header), chosen[volume.disk] - volume.offset))
            answers[volume.on] = opens(file.name, passphrases)
    return list(_problems(answers))


def check_here(plan: RestorePlan, passphrases: Passphrases) -> list[Problem]:
    """The same for disks that are here already. Raises CommandError (no cryptsetup here)."""
    answers: dict[str, Completed | None] = {}
    for assignment in plan.assignments if passphrases else ():
        disk = assignment.target
        places = [partition_path(disk.path, p.number) for p in disk.table.partitions if p.content.kind == LUKS]
        places += [disk.path] if disk.content.kind == LUKS else []
        answers |= {place: opens(place, passphrases) for place in places if Path(place).exists()}
    return list(_problems(answers))


def _problems(answers: dict[str, Completed | None]) -> Iterator[Problem]:
    closed = {place: failed for place, failed in answers.items() if failed is not None}
    if not closed:
        return
    memory = any(failed.returncode == NO_MEMORY for failed in closed.values())
    what = "; ".join(f"{place}: {why_not(failed)}" for place, failed in closed.items())
    yield Problem(
        # One that opens may well be the one with the root.
        severity="error" if len(closed) == len(answers) else "warning",
        code="luks-secret-wrong",
        what=f"Encrypted volumes that cannot be opened: {what}.",
        why="The host's system cannot be adapted to this machine while what it lies on is closed."
        if len(closed) == len(answers)
        else f"{', '.join(place for place in answers if place not in closed)} can be opened; the host's system is "
        "adapted if it lies there.",
        todo="Use a machine with more memory." if memory else "Type the passphrase again: mind the keyboard layout.",
    )
