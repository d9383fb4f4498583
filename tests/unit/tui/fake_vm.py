"""What the double of the engine knows of places, and of plans and reports for one VM."""

from __future__ import annotations

from recovery.engine.again import vm_command
from recovery.engine.api import Report, VmFileReport, VmReport
from recovery.errors import NotFoundError
from recovery.format.point import Point
from recovery.machine.place import Place
from recovery.plan.model import Problem
from recovery.plan.vm import VmChoices, VmFile, VmPlan
from recovery.plan.vm_build import build_vm_plan
from recovery.units import GIB, MIB

STICK = Place(device="/dev/sdc1", kind="ext4", label="RESCUE", size=466 * GIB, free=311 * GIB, disk="/dev/sdc",
              model="Extreme SSD", bus="usb")  # fmt: skip
FAT = Place(device="/dev/sdd1", kind="vfat", label="STICK", size=29 * GIB, free=28 * GIB, disk="/dev/sdd",
            model="Cruzer Blade", bus="usb")  # fmt: skip
SYSTEM = Place(device="/dev/sda2", kind="ext4", label="archive", size=400 * GIB, free=90 * GIB, disk="/dev/sda",
               model="ST480 Nytro 1351", bus="sata", system="'hv3' (Debian GNU/Linux 12)")  # fmt: skip
BACKUPS = Place(device="/dev/sdb1", kind="ext4", size=1862 * GIB, disk="/dev/sdb", model="WDC Elements", bus="usb",
                unavailable="It holds a repository, which is only ever read.")  # fmt: skip
LOCKED = Place(
    device="/dev/sde1", kind="crypto_LUKS", size=100 * GIB, disk="/dev/sde", model="MZ7L3", bus="sata",
    unavailable="It is encrypted. Open it in a shell (F2: cryptsetup open DEVICE NAME), then look again.",
)  # fmt: skip
PLACES = [SYSTEM, BACKUPS, STICK, FAT, LOCKED]
DIRECTORY = Place(path="/mnt/vms", kind="nfs4", size=900 * GIB, free=500 * GIB)
#: The folder in which the files are already.
FULL = "full"
NAMES = {"web1": ("web1-vda.qcow2",), "db1": ("db1-vda.raw",)}


def plan_of(point: Point, choices: VmChoices, problems: tuple[Problem, ...]) -> VmPlan:
    """As the engine does it, with content that is always found."""
    vm = next((vm for vm in point.body.vms if vm.name == choices.vm), None)
    if vm is None:
        raise NotFoundError(f"There is no VM '{choices.vm}'.")
    if not choices.device and choices.folder != DIRECTORY.path:
        raise NotFoundError(
            f"The directory {choices.folder} is not there.", hint="Make it, or mount what shall be there (F2)."
        )
    files = [
        VmFile(target=disk.target, name=f"{vm.name}-{disk.target}.{disk.format}", source=disk.source,
               format=disk.format, size=disk.size or 0, stored=(disk.size or 0) // 3)
        for disk in vm.disks
        if not choices.disks or disk.target in choices.disks
    ]  # fmt: skip
    place = next((place for place in PLACES if place.device == choices.device), DIRECTORY)
    existing = [file.name for file in files] if choices.folder == FULL else []
    return build_vm_plan(choices, vm, files, place, point.body.consistency, existing=existing, asked=problems)


def report_of(plan: VmPlan, created: float, now: float, *, failed: bool = False) -> Report:
    """A run that ended well, or with something lost where that was allowed; or that failed."""
    folder = f"/{plan.choices.folder}" if plan.choices.device else plan.choices.folder
    files = tuple(
        VmFileReport(
            target=file.target, path=f"{folder}/{file.name}", source=file.source, format=file.format, size=file.size,
            written=file.stored, seconds=60.0, damaged=((7 * MIB, MIB),) if plan.choices.skip_damaged else (),
        )
        for file in plan.files
        if not failed
    )  # fmt: skip
    return Report(
        host=plan.choices.host,
        point=plan.choices.point,
        point_created=created,
        started=now,
        finished=now + 62,
        steps=tuple((step.id, 3.0) for step in plan.steps),
        log_path="/var/log/rekindle/restore.log",
        go_on=vm_command(plan.choices, ["https://backup.example.org:8460"]) if failed else "",
        vm=VmReport(
            name=plan.vm.name,
            place=plan.goes_to,
            files=files,
            definition=f"{folder}/{plan.definition}" if plan.definition and not failed else "",
            device=plan.choices.device,
        ),
    )
