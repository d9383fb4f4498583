"""Adaptation: the steps in their order, each told as events; everything is unmounted and released at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recovery.adapt import mount, stack
from recovery.adapt.devices import scan
from recovery.adapt.host import HostTree
from recovery.adapt.luks import Passphrases
from recovery.adapt.model import TARGET, AdaptReport, AdaptRequest, Job
from recovery.adapt.steps import STEPS, Step, to_run
from recovery.adapt.undo import write_down
from recovery.errors import CommandError, DeviceError, UsageError
from recovery.events import Listener, StepFinished, StepStarted, ignore

__all__ = ["STEPS", "AdaptReport", "AdaptRequest", "Step", "adapt", "mounted"]


def adapt(
    request: AdaptRequest,
    listener: Listener = ignore,
    passphrases: Passphrases = stack.NOTHING,
    only: Sequence[str] = (),
) -> AdaptReport:
    """Make the restored host boot on this machine. Runs as root on the medium, on real block devices.

    ``passphrases`` open the host's encrypted volumes; without one what is in them is not adapted. ``only`` names the
    steps to run; what they need before them is done as well.

    Raises the errors of ``recovery.errors`` when the host would not boot; what would only be worse than before is a
    warning of the report. May be run again at any time; whatever happens, nothing stays mounted.
    """
    check_request(request)
    chosen = to_run(request, only)
    job = Job(request, listener, passphrases=passphrases)
    with _released_at_end(job):
        for number, step in enumerate(chosen, 1):
            job.step = step.id
            listener(StepStarted(step=step.id, title=step.title, number=number, of=len(chosen)))
            start = time.monotonic()
            try:
                summary = step.run(job)
                if job.host is not None:
                    write_down(job, job.host)
            except OSError as error:
                raise DeviceError(
                    f"The restored system can't be read or written: {error}.",
                    hint="Check its filesystem ('fsck') and the disk ('dmesg'), then run 'rekindle adapt' again.",
                ) from error
            listener(StepFinished(step=step.id, summary=summary, seconds=time.monotonic() - start))
    return AdaptReport(changes=tuple(job.changes), warnings=tuple(job.warnings))


def check_request(request: AdaptRequest) -> None:
    """Raises UsageError when the request makes no sense."""
    known = {disk.name for disk in request.point.body.disks}
    unknown = sorted(set(request.targets) - known)
    if unknown or not request.targets:
        what = f"The recovery point has no disk {', '.join(unknown)}." if unknown else "No disk was named."
        raise UsageError(what, hint=f"Its disks are {', '.join(sorted(known)) or 'none'}.")


@contextmanager
def mounted(
    request: AdaptRequest, listener: Listener = ignore, passphrases: Passphrases = stack.NOTHING
) -> Iterator[HostTree | None]:
    """The restored system mounted for a moment, to read it or to save a log in it; None when there is none.

    Raises CommandError, NotFoundError.
    """
    job = Job(request, listener, passphrases=passphrases)
    with _released_at_end(job):
        job.nodes, _ = stack.assemble(request.targets, passphrases)
        mount.mount_system(job, TARGET)
        yield job.host


@contextmanager
def _released_at_end(job: Job) -> Iterator[None]:
    """Unmount, write back, and stop the stacks, so that a reboot at any moment finds the disks clean."""
    with mount.unmounted_at_end(Path(TARGET)):
        try:
            yield
        finally:
            mount.unmount_system(TARGET)
            try:
                stack.release(scan(job.request.targets))
            except CommandError as error:  # must not hide the error that led here
                job.note(f"The volumes of the host were not released: {error.message}")
