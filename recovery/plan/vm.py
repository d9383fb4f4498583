"""What a plan to restore the disks of one VM as files is: plain data, printed, checked and then executed."""

from __future__ import annotations

import msgspec

from recovery.layout import VirtualMachine
from recovery.machine.place import Place
from recovery.plan.model import PlanStep, Problem

#: The key of what is typed when files are overwritten, among the confirmations of ``EngineApi.start``.
VM_NAME = "vm"


class VmChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator chose. ``disks`` are the VM's disks by their target (``vda``); none: all of them.

    The files go below ``folder`` of the filesystem on ``device`` (made there when it is missing), or without a
    ``device`` into the directory ``folder``, which is there already.
    """

    host: str
    point: str
    vm: str
    disks: tuple[str, ...] = ()
    device: str = ""
    folder: str = ""
    overwrite: bool = False
    """Files of these names that are there already are replaced, each when the new one is complete."""
    skip_damaged: bool = False
    """Leave as zeros what no copy of the repository has, and tell where that was, instead of stopping."""


class VmFile(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the VM and the file that it becomes: ``size`` bytes, of which ``stored`` lie in chunks with content.

    ``source`` is where it was on its host; ``backing`` the file that a qcow2 overlay needs beside it; ``exists``: a
    file of this name is there already.
    """

    target: str
    name: str
    source: str
    format: str
    size: int
    stored: int
    backing: str = ""
    exists: bool = False


class VmPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole plan. ``id`` is a digest of the content, so that what was confirmed is what is run.

    ``definition`` is the name of the file with the VM's libvirt XML, empty when the point has none; ``needed`` the
    room that the new files take, bytes.
    """

    id: str
    choices: VmChoices
    vm: VirtualMachine
    files: tuple[VmFile, ...]
    definition: str
    definition_exists: bool
    place: Place
    steps: tuple[PlanStep, ...]
    problems: tuple[Problem, ...]
    needed: int

    @property
    def allowed(self) -> bool:
        """No problem forbids the first write."""
        return not any(problem.severity == "error" for problem in self.problems)

    @property
    def logical(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def overwritten(self) -> tuple[str, ...]:
        """The names of the files that will be replaced."""
        names = [file.name for file in self.files if file.exists]
        return tuple(names + [self.definition] * self.definition_exists)

    @property
    def confirmation(self) -> str:
        """What is typed to allow replacing files: the VM's name; empty when nothing is replaced."""
        return self.vm.name if self.overwritten else ""

    @property
    def goes_to(self) -> str:
        """Where the files go, for people: ``web1 on sdb1 'BACKUP'``, or the directory."""
        if not self.choices.device:
            return self.choices.folder
        folder = self.choices.folder.strip("/")
        return f"/{folder} on {self.place.name}"
