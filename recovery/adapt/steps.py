"""The steps of adaptation in their order: what each is called, whether it applies, what it may change, and what
runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recovery.adapt import (
    bootloader,
    esp_mount,
    gpt,
    grow,
    initramfs,
    make_room,
    mount,
    network,
    prove,
    rename,
    selinux,
    settle,
    stack,
    vms,
    windows_drivers,
    windows_hibernation,
    windows_letters,
    windows_loader,
)
from recovery.adapt.make_room import firmware_of
from recovery.adapt.model import TARGET, AdaptRequest, Job
from recovery.adapt.windows_system import is_linux, is_windows, may_have_windows
from recovery.errors import UsageError


def _always(request: AdaptRequest) -> bool:
    return True


@dataclass(frozen=True)
class Step:
    """One step. ``run`` changes the job's host, says what it did in one line, and may be run again; ``changes``
    says what it may change (for the plan); ``applies`` whether there is anything to do for it, as far as the
    request tells."""

    id: str
    title: str
    run: Callable[[Job], str]
    changes: str = ""
    applies: Callable[[AdaptRequest], bool] = _always

    @property
    def name(self) -> str:
        """What a person types: ``bootloader``."""
        return self.id.removeprefix("adapt.")


def _mount(job: Job) -> str:
    return mount.mount_system(job, TARGET)


def _assemble(job: Job) -> str:
    job.nodes, warnings = stack.assemble(job.request.targets, job.passphrases)
    for warning in warnings:
        job.warn(warning)
    return "RAID, encrypted volumes and volume groups are started."


def _may_convert(request: AdaptRequest) -> bool:
    """Without a point nobody knows in which mode the host was started: its disks have to tell."""
    return is_linux(request) and (not request.point.id or request.point.body.firmware != firmware_of(request))


def _uefi(request: AdaptRequest) -> bool:
    return is_linux(request) and firmware_of(request) == "uefi"


def _linux_of_a_point(request: AdaptRequest) -> bool:
    """In a repair nothing moved, and every name means what it meant."""
    return is_linux(request) and bool(request.point.id)


def _windows_by_uefi(request: AdaptRequest) -> bool:
    return is_windows(request) and firmware_of(request) == "uefi"


#: Windows before growing, after which its volume waits for a check. Names before NICs before initramfs before
#: bootloader: each uses what the ones before wrote.
STEPS: tuple[Step, ...] = (
    Step("adapt.settle", settle.TITLE, settle.settle),
    Step("adapt.tables", gpt.TITLE, gpt.check_tables, "The backup GPT, where the disk is larger"),
    Step(
        "adapt.room", make_room.TITLE, make_room.make_room, "A partition, where this firmware needs one", _may_convert
    ),
    Step(
        "adapt.windows-hibernation",
        windows_hibernation.TITLE,
        windows_hibernation.end_hibernation,
        "hiberfil.sys, where a session sleeps in it and may be dropped",
        may_have_windows,
    ),
    Step(
        "adapt.windows-drivers",
        windows_drivers.TITLE,
        windows_drivers.enable_drivers,
        "Start types of storage drivers in the registry (SYSTEM)",
        may_have_windows,
    ),
    Step(
        "adapt.windows-letters",
        windows_letters.TITLE,
        windows_letters.keep_letters,
        "Drive letters of partitions that were moved (SYSTEM, MountedDevices)",
        may_have_windows,
    ),
    Step(
        "adapt.windows-loader",
        windows_loader.TITLE,
        windows_loader.keep_loader,
        "\\EFI\\BOOT\\BOOTX64.EFI, where Windows' copy of its boot manager is gone",
        _windows_by_uefi,
    ),
    Step("adapt.grow", grow.TITLE, grow.grow, "The size of the last partition and of what lies on it"),
    Step("adapt.mount", mount.TITLE, _mount, applies=is_linux),
    Step("adapt.esp", esp_mount.TITLE, esp_mount.mount_esp, "A line in fstab, where the host knew no ESP", _uefi),
    Step("adapt.names", rename.TITLE, rename.rename, "fstab, crypttab, kernel command lines", is_linux),
    Step("adapt.network", network.TITLE, network.bring_up, "Names and addresses of network cards", is_linux),
    Step(
        "adapt.initramfs",
        initramfs.TITLE,
        initramfs.rebuild,
        "The initramfs of every kernel, and its settings",
        is_linux,
    ),
    Step(
        "adapt.bootloader",
        bootloader.TITLE,
        bootloader.install,
        "Boot sectors or ESP, the firmware's list, the menu",
        is_linux,
    ),
    Step("adapt.selinux", selinux.TITLE, selinux.relabel, "/.autorelabel, where SELinux is on", is_linux),
    Step(
        "adapt.vms",
        vms.TITLE,
        vms.see_to_vms,
        "Device names in VMs' definitions; which start by themselves",
        _linux_of_a_point,
    ),
    Step("adapt.prove", prove.TITLE, prove.prove, applies=is_linux),
)

#: Instead of growing, where only later steps were asked for: what the host lies on is started.
_ASSEMBLE = Step("adapt.assemble", "Start RAID and volume groups", _assemble)
_FIRST_MOUNTED = "adapt.mount"


def find(name: str) -> Step:
    """The step that a person means. Raises UsageError."""
    for step in STEPS:
        if name in (step.id, step.name):
            return step
    raise UsageError(f"There is no step '{name}'.", hint=f"The steps are {', '.join(step.name for step in STEPS)}.")


def to_run(request: AdaptRequest, names: Sequence[str] = ()) -> tuple[Step, ...]:
    """The steps that run, in their order: all that apply, or those named and what they need before them. Pure.

    Raises UsageError for a name that is none.
    """
    if not names:
        return tuple(step for step in STEPS if step.applies(request))
    chosen = {find(name).id for name in names}
    order = [step.id for step in STEPS]
    mounted = any(order.index(id) >= order.index(_FIRST_MOUNTED) for id in chosen)
    needed = {"adapt.settle"} | ({_FIRST_MOUNTED} if mounted else set())
    found: list[Step] = []
    for step in STEPS:
        if step.id == "adapt.grow" and step.id not in chosen and mounted:
            found.append(_ASSEMBLE)
        elif step.id in chosen | needed:
            found.append(step)
    return tuple(found)
