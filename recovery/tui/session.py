"""What the operator chose and typed so far. Kept when going back; forgotten when the console ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from recovery.engine.api import EngineApi, Medium, RepositoryInfo
from recovery.format.point import Point, PointSummary
from recovery.machine.model import Machine
from recovery.machine.place import Place
from recovery.plan.model import Choices, RestorePlan, Suggestion
from recovery.plan.vm import VM_NAME, VmChoices, VmPlan

#: What shall be done: all of a host, some of its disks, one VM's disks as files, its own disks to another point, or
#: only its boot.
Mode = Literal["restore", "some", "vm", "rollback", "repair"]


@dataclass
class Session:
    """The state of one console. ``fields`` and ``toggles`` hold forms by widget id."""

    engine: EngineApi
    medium: Medium = field(default_factory=Medium)
    machine: Machine = field(default_factory=Machine)
    mode: Mode = "restore"
    notice: str = ""
    """What the first screen says besides: how an unattended restore ended, ``crash``."""
    crash: str = ""
    """What is to be said of the console before this one, which a bug ended."""
    fields: dict[str, str] = field(default_factory=dict)
    toggles: dict[str, bool] = field(default_factory=dict)
    trusted: dict[str, str] = field(default_factory=dict)
    """Server address -> certificate fingerprint that the operator compared and confirmed."""
    repository: RepositoryInfo | None = None
    points: list[PointSummary] = field(default_factory=list)
    details: dict[str, Point] = field(default_factory=dict)
    """Points read so far, by id."""
    unreadable: set[str] = field(default_factory=set)
    """Ids of points that could not be read."""
    point: Point | None = None
    suggestions: list[Suggestion] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    """A disk's name in the point -> ``Disk.id``; a disk that is missing is not restored."""
    grow_to: tuple[str, ...] = ()
    """Names of what gets the room of larger disks; none: as usual."""
    vm: str = ""
    vm_disks: set[str] = field(default_factory=set)
    """The disks of ``vm`` that are restored, by their target."""
    places: list[Place] = field(default_factory=list)
    place: str = ""
    """The device of the filesystem that gets them; empty: the directory that was typed."""
    copies: list[str] = field(default_factory=list)
    """Where the other copies of the repository are that are asked too."""
    plan: RestorePlan | VmPlan | None = None
    confirmations: dict[str, str] = field(default_factory=dict)
    """``Disk.id`` -> what was typed for it, for the plan above."""

    def begin(self, mode: Mode) -> None:
        """A task was chosen: what was chosen for another one is forgotten, and the defaults are its own."""
        if mode != self.mode:
            self.mode = mode
            self.forget_choices()
            self.toggles["adapt"] = self.toggles["grow"] = mode == "restore"
            self.toggles["overwrite"] = self.toggles["to_gpt"] = self.toggles["skip_damaged"] = False

    def make_plan(self) -> RestorePlan | VmPlan:
        """Ask the engine for the plan of the task; blocks."""
        if self.mode == "vm":
            return self.engine.plan_vm(self.vm_choices())
        if self.mode == "repair":
            return self.engine.plan_repair(tuple(self.targets.values()), self.toggles.get("grow", False))
        return self.engine.plan(self.choices())

    def choose_point(self, point: Point) -> None:
        """Select a point; choices made for another one are forgotten."""
        if self.point is None or self.point.id != point.id:
            self.targets, self.suggestions, self.plan, self.confirmations, self.grow_to = {}, [], None, {}, ()
            self.choose_vm("")
            self.toggles["skip_damaged"] = False
        self.point = point

    def choose_vm(self, name: str) -> None:
        """Select a VM with all its disks; a folder of its own is named after it and the point."""
        if name == self.vm:
            return
        self.vm, self.vm_disks = name, set()
        self.fields.pop("folder", None)
        for vm in self.point.body.vms if self.point else ():
            if vm.name == name:
                self.vm_disks = {disk.target for disk in vm.disks}

    def take_plan(self, plan: RestorePlan | VmPlan | None) -> None:
        """A new plan. What was typed before holds only for disks that have a name of their own: a name like /dev/sdb,
        and a size that was typed, may mean another disk by now."""
        self.plan = plan
        lasting = {id: text for id, text in self.confirmations.items() if not id.startswith("path:")}
        lasting.pop(VM_NAME, None)
        self.confirmations = lasting

    def choices(self) -> Choices:
        """What was chosen, as the engine plans it."""
        return Choices(
            host=self.point.header.host if self.point else "",
            point=self.point.id if self.point else "",
            targets=dict(self.targets),
            adapt=self.toggles.get("adapt", True),
            grow=self.toggles.get("grow", True),
            grow_to=self.grow_to if self.toggles.get("grow", True) else (),
            to_gpt=self.toggles.get("to_gpt", False),
            compare=self.mode == "rollback",
            skip_damaged=self.toggles.get("skip_damaged", False),
        )

    def vm_choices(self) -> VmChoices:
        """What was chosen for one VM, as the engine plans it."""
        folder = self.fields.get("folder" if self.place else "directory", "").strip()
        every = next((vm.disks for vm in self.point.body.vms if vm.name == self.vm), ()) if self.point else ()
        some = tuple(disk.target for disk in every if disk.target in self.vm_disks)
        return VmChoices(
            host=self.point.header.host if self.point else "",
            point=self.point.id if self.point else "",
            vm=self.vm,
            disks=() if len(some) == len(every) else some,
            device=self.place,
            folder=folder,
            overwrite=self.toggles.get("overwrite", False),
            skip_damaged=self.toggles.get("skip_damaged", False),
        )

    def confirmed(self) -> bool:
        """There is a plan, and what was typed for each of its targets is right."""
        if isinstance(self.plan, VmPlan):
            return self.confirmations.get(VM_NAME, "") == self.plan.confirmation
        return self.plan is not None and all(
            self.confirmations.get(assignment.target.id) == assignment.target.confirmation
            for assignment in self.plan.assignments
        )

    def start(self) -> bool:
        """Start the plan; blocks. Returns True; raises what ``EngineApi.start`` raises."""
        if self.plan is None:
            return False
        if isinstance(self.plan, VmPlan):
            self.engine.start(self.plan.id, {VM_NAME: self.confirmations.get(VM_NAME, "")})
            return True
        ids = [assignment.target.id for assignment in self.plan.assignments]
        self.engine.start(self.plan.id, {id: self.confirmations.get(id, "") for id in ids})
        return True

    def forget_choices(self) -> None:
        """Start anew with the same network and sign-in."""
        self.point, self.plan, self.points = None, None, []
        self.unreadable = set()
        self.fields.pop("when", None)
        self.targets, self.suggestions, self.confirmations, self.grow_to = {}, [], {}, ()
        self.choose_vm("")
        self.toggles["overwrite"] = self.toggles["skip_damaged"] = False
