"""What a plan is: plain data that is printed, checked and then executed."""

from __future__ import annotations

from typing import Literal

import msgspec

from recovery.format.point import PointDisk
from recovery.layout import GrowPlace, Landing
from recovery.machine.model import Disk

Severity = Literal["error", "warning", "info"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something found wrong before the first write. An ``error`` forbids the restore.

    ``code`` is stable (``target-too-small``); ``what`` and ``why`` are sentences, ``todo`` says what to do next.
    """

    severity: Severity
    code: str
    what: str
    why: str = ""
    todo: str = ""


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose. ``targets`` maps a point's disk name to a ``Disk.id`` of the machine; a disk of the
    point that is not in it is not restored."""

    host: str
    point: str
    targets: dict[str, str]
    adapt: bool = True
    grow: bool = True
    """Grow the last partition, and what lies on it, onto a larger disk."""
    grow_to: tuple[str, ...] = ()
    """Where growth goes instead, by names of ``GrowthCandidate``; a disk that none of them is on grows as usual."""
    to_gpt: bool = False
    """A disk with an MBR gets a GPT where an MBR would not reach all of its target (2 TiB)."""
    use_swap: bool = False
    """Where another firmware mode needs a boot partition and there is no room, shorten a swap partition for it."""
    drop_hibernation: bool = False
    """A session of Windows that sleeps on the disks may be given up: Windows starts anew."""
    verify: bool = False
    """Read back all of every disk afterwards, and compare its Merkle root with the signed one."""
    skip_damaged: bool = False
    """Leave as zeros what no copy of the repository has, and tell what that was, instead of stopping."""
    compare: bool = False
    """Compare the targets with the point in any case, and fetch only what differs; else a sample decides."""
    luks_secret: bool = False
    """A passphrase for the host's encrypted volumes was given. It is never in here itself."""
    restore: bool = True
    """False: what lies on the targets stays, and only the adaptation runs."""


class DiskAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of the point and the target disk that it goes to. ``losses`` says in sentences what is lost."""

    source: PointDisk
    target: Disk
    losses: tuple[str, ...] = ()
    landing: Landing | None = None
    """How it is laid out on a target of another size or sector size; None: byte for byte as it was captured."""


class GrowthCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """Something that could take the room of a larger target: a filesystem, a partition, a logical volume, the free
    room of a volume group, a mirror. ``name`` is what it is shown as, ``names`` what it may be called too.

    ``before`` and ``after`` are bytes, ``after`` to a few MiB. ``places`` are the partitions that grow for it;
    ``moved`` those that move out of the way (``disk1:3``). ``chosen``: it was asked for; ``usual``: it grows where
    nothing else is asked for. ``why_not``: it cannot be chosen, as a clause.
    """

    name: str
    what: str
    before: int
    after: int
    names: tuple[str, ...] = ()
    places: tuple[GrowPlace, ...] = ()
    moved: tuple[str, ...] = ()
    chosen: bool = False
    usual: bool = False
    why_not: str = ""


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that the engine will take; ``id`` is what its progress events are tagged with."""

    id: str
    title: str
    detail: str = ""
    destructive: bool = False


class RestorePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole plan. ``id`` is a digest of the content, so that what was confirmed is what is run.

    ``logical`` is bytes of all disks, ``used`` the bytes that are not zero in the point.
    """

    id: str
    choices: Choices
    assignments: tuple[DiskAssignment, ...]
    steps: tuple[PlanStep, ...]
    problems: tuple[Problem, ...]
    logical: int
    used: int
    growth: tuple[GrowthCandidate, ...] = ()
    """What could grow onto larger targets, with what becomes of it."""

    @property
    def allowed(self) -> bool:
        """No problem forbids the first write."""
        return not any(problem.severity == "error" for problem in self.problems)


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """The target suggested for a disk of the point and why; ``target`` is empty when nothing fits."""

    disk: str
    target: str
    reason: str
