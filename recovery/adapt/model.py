"""What adaptation is asked and what it answers, and the job that its steps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from recovery.adapt.devices import Node
from recovery.adapt.host import HostTree
from recovery.adapt.luks import Passphrases
from recovery.events import Level, Listener, Message
from recovery.format.point import Point
from recovery.layout import GrowPlace
from recovery.machine.model import Disk, Machine

#: Where the restored host is mounted while it is adapted.
TARGET = Path("/run/rekindle/target")


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Partition ``number`` of the point's disk ``disk`` was restored to byte ``start`` instead of ``old_start``."""

    disk: str
    number: int
    old_start: int
    start: int


class AdaptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Make the system of ``point`` boot on ``machine``, where ``targets`` (point's disk name -> disk) hold it.

    With ``grow`` the last partition of a disk, and what lies on it, is grown onto a larger target; on the disks that
    ``grow_to`` names the partition and volume that it says instead. ``use_swap`` allows
    to shorten a swap partition where a boot partition has no other room; ``forget_entries`` to delete the firmware's
    boot entries of the host's kind whose partition does not exist any more.
    """

    point: Point
    targets: dict[str, Disk]
    machine: Machine
    grow: bool = True
    grow_to: tuple[GrowPlace, ...] = ()
    to_gpt: tuple[str, ...] = ()
    """Disks that had an MBR and have a GPT now: their boot loader is not there yet, and their PARTUUIDs are new."""
    use_swap: bool = False
    forget_entries: bool = False
    drop_hibernation: bool = False
    """A session of Windows that sleeps on the disks may be given up: Windows starts anew."""
    moved: tuple[Moved, ...] = ()
    """The partitions that begin elsewhere than when they were captured."""


class AdaptReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed and proven (``changes``), and what a person must know (``warnings``): one sentence each."""

    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class Job:
    """One adaptation in progress: the request, and what earlier steps found for later ones.

    ``nodes`` are the block devices on the restored disks (refreshed by the steps that change them), ``host`` the
    mounted system; None until it is mounted, and for good when the disks hold no Linux system.
    """

    request: AdaptRequest
    listener: Listener
    step: str = ""
    nodes: tuple[Node, ...] = ()
    host: HostTree | None = None
    root: Node | None = None
    esp: Node | None = None
    esp_path: str = ""
    """Where the host mounts its ESP (``/boot/efi``); empty without one."""
    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    passphrases: Passphrases = Passphrases()
    """What opens the host's encrypted volumes."""
    undo: dict[str, bytes] = field(default_factory=dict)
    """What undoes changes that are no files, until it can be written to the host (``recovery.adapt.undo``)."""

    def changed(self, text: str) -> None:
        """Something was changed or proven: for the report, and told at once."""
        if text not in self.changes:
            self.changes.append(text)
        self._tell(text, "info")

    def warn(self, text: str) -> None:
        """Something a person must know; the host would still boot."""
        if text not in self.warnings:
            self.warnings.append(text)
        self._tell(text, "warning")

    def note(self, text: str) -> None:
        """A detail for the log only."""
        self._tell(text, "debug")

    def _tell(self, text: str, level: Level) -> None:
        self.listener(Message(text=text, level=level, step=self.step))
