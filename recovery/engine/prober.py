"""Look at the machine, and into its filesystems for what a person would miss."""

from __future__ import annotations

from pathlib import Path

import msgspec

from recovery.engine.api import LocalRepository
from recovery.engine.local_repositories import Inside, Looker
from recovery.machine.model import Machine
from recovery.machine.probe import probe_machine
from recovery.machine.probe_system import probe_nics


class Prober:
    """``look_inside``: mount filesystems read-only to find repositories and systems. ``loops``: also loop devices."""

    def __init__(self, *, look_inside: bool, loops: bool) -> None:
        self._looker = Looker() if look_inside else None
        self._loops = loops

    def probe(self) -> Machine:
        """The machine as it is now. Raises CommandError."""
        if self._looker is None:
            return probe_machine(loops=self._loops)
        seen = self._looker.look()
        repositories = {inside.device: r.id for inside in seen for r in inside.repositories}
        machine = probe_machine(repositories, loops=self._loops)
        return with_systems(machine, seen)

    def repositories(self, *, running: bool) -> list[LocalRepository]:
        """Repositories on disks of this machine; while a run is ``running`` nothing is mounted anew."""
        looker = self._looker or Looker()
        seen = looker.seen if running else looker.look()
        return [repository for inside in seen for repository in inside.repositories]


def with_systems(machine: Machine, seen: list[Inside]) -> Machine:
    """The machine with the systems found on its disks."""
    systems: dict[str, list[str]] = {}
    for inside in seen:
        if inside.system:
            systems.setdefault(inside.disk, []).append(inside.system)
    replaced = (msgspec.structs.replace(d, systems=tuple(systems.get(d.path, ()))) for d in machine.disks)
    return msgspec.structs.replace(machine, disks=tuple(replaced))


def with_nics(machine: Machine, sysfs: Path = Path("/sys")) -> Machine:
    """The same machine with its network as it is now: that can change during a run."""
    return msgspec.structs.replace(machine, nics=probe_nics(sysfs))
