"""The engine in front of a recorded machine: everything up to the plan is real, and nothing can be written.

``rekindle engine --machine FILE`` lets people try the whole way of the console before the day of the fire, and shows
what the plan says about hardware that is not here yet (``rekindle machine --json`` on it makes the record).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from recovery.engine import preflight
from recovery.engine.api import FoundAnswers, LocalRepository, NetworkConfig, RemoteAccess
from recovery.engine.engine import Engine
from recovery.engine.places import recorded_places
from recovery.engine.prober import Prober, with_nics
from recovery.engine.vm_plan import FoundVm, plan_vm
from recovery.errors import UsageError
from recovery.format.point import Point
from recovery.machine.model import Machine
from recovery.machine.place import Place
from recovery.plan.model import Problem, RestorePlan
from recovery.plan.vm import VmChoices, VmPlan
from recovery.repository.identity import RepositoryFile
from recovery.repository.repository import Repository

_REFUSED = "This is a rehearsal in front of a recorded machine"
_HINT = "On the recovery medium, in front of the machine itself, the same keys do it."


class RecordedProber(Prober):
    """Sees the recorded machine, with the network cards of the machine it runs on: those reach the server.

    ``repository`` is a directory that stands for a repository on a disk of the machine.
    """

    def __init__(self, machine: Machine, repository: Path | None = None) -> None:
        super().__init__(look_inside=False, loops=False)
        self._recorded = machine
        self._repository = repository

    def probe(self) -> Machine:
        """The same each time, but for the network."""
        return with_nics(self._recorded)

    def repositories(self, *, running: bool) -> list[LocalRepository]:
        """The one that was named, if one was. Nothing is mounted."""
        if self._repository is None:
            return []
        try:
            file = msgspec.json.decode((self._repository / "repo.json").read_bytes(), type=RepositoryFile)
        except (OSError, msgspec.MsgspecError):
            return []
        return [LocalRepository(id=file.id, path=str(self._repository), device=str(self._repository), size=0)]


class Rehearsal(Engine):
    """See the module. What would change anything raises UsageError."""

    def __init__(self, prober: RecordedProber, *, log_directory: Path | None = None) -> None:
        super().__init__(log_directory=log_directory, look_inside=False)
        self._prober = prober

    def _ask(self, repository: Repository | None, point: Point, plan: RestorePlan) -> list[Problem]:
        """The packs are looked for; rights, memory and room of this machine say nothing about the recorded one."""
        if repository is None:
            return []
        disks = [assignment.source.name for assignment in plan.assignments]
        return list(preflight.check_packs(repository, point, disks, skip_damaged=plan.choices.skip_damaged))

    def _places(self, only: str = "") -> list[Place]:
        """Those of the recorded machine, as far as its record tells."""
        return [place for place in recorded_places(self._prober.probe()) if only in ("", place.device)]

    def _plan_vm(self, repository: Repository, point: Point, choices: VmChoices) -> tuple[VmPlan, FoundVm]:
        """The place is not looked into: which names are taken there is not known."""
        return plan_vm(repository, point, choices, self._places(choices.device), ask=False)

    def start(self, plan_id: str, confirmations: dict[str, str], countdown: int = 0) -> None:
        """Refused."""
        raise UsageError(f"{_REFUSED}: nothing is written.", hint=_HINT)

    def configure_network(self, config: NetworkConfig) -> Machine:
        """Refused."""
        raise UsageError(f"{_REFUSED}: its network is this machine's own, and stays as it is.", hint=_HINT)

    def reboot(self, power_off: bool = False) -> None:
        """Refused."""
        raise UsageError(f"{_REFUSED}: this machine is not restarted.", hint="F10 and 'Leave console' end it.")

    def answers(self) -> FoundAnswers:
        """None: no disk is looked into."""
        return FoundAnswers()

    def remote_access(self, ssh: bool | None = None, status: bool | None = None) -> RemoteAccess:
        """Off; turning it on is refused."""
        if ssh or status:
            raise UsageError(f"{_REFUSED}: nothing listens on the network.", hint=_HINT)
        return super().remote_access()
