"""``rekindle capture``: disks of a host become a recovery point."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import click

from recovery.capture.live.capture import capture_live
from recovery.capture.live.guests import GuestLimits
from recovery.capture.live.limits import FreezeLimits
from recovery.capture.live.session import LiveSession
from recovery.capture.pipeline import capture as run_capture
from recovery.capture.request import CaptureRequest, default_workers
from recovery.cli.access import open_repository, repository_options
from recovery.cli.console import PlainConsole
from recovery.cli.points import live_words, point_json
from recovery.cli.progress import progress_listener
from recovery.errors import AccessError, UsageError
from recovery.format.chunk import DEFAULT_LEVEL
from recovery.format.point import Consistency, Point
from recovery.layout import Firmware
from recovery.repository.location import open_index
from recovery.units import format_duration, format_size


@click.command()
@click.argument("location")
@click.argument("disks", nargs=-1, required=True, metavar="DISK...", type=click.Path(path_type=Path))
@click.option("--host", required=True, metavar="NAME", help="The host whose disks these are.")
@click.option(
    "--consistency",
    type=click.Choice(["crash", "filesystem", "application", "offline"]),
    help="How consistent the disks are. Default 'offline', or 'crash' for an LV, which may be a snapshot.",
)
@click.option(
    "--firmware",
    type=click.Choice(["bios", "uefi"]),
    help="How the host boots. By default decided from its boot loaders.",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["raw", "qcow2", "vhd", "vhdx", "vmdk"]),
    help="Format of the image files. By default found out; needed for an image that names a backing or data file.",
)
@click.option(
    "--live",
    is_flag=True,
    help="The host runs from these disks: whole disks, mounted read-write. Its filesystems are frozen for a moment.",
)
@click.option(
    "--freeze-limit",
    type=click.IntRange(50, 10000),
    default=500,
    show_default=True,
    metavar="MS",
    help="With --live: the most milliseconds that programs may have to wait. Then the freeze is given up.",
)
@click.option("--quiesce/--no-quiesce", default=True, show_default=True,
              help="With --live: VMs with a guest agent are frozen by it for that moment.")  # fmt: skip
@click.option("--note", default="", help="A remark to find the point by.")
@click.option(
    "--level", type=click.IntRange(1, 19), default=DEFAULT_LEVEL, show_default=True, help="zstd compression level."
)
@click.option("--workers", type=click.IntRange(1, 64), default=default_workers, help="Threads; one a core by default.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the point as JSON lines.")
@repository_options
def capture(
    location: str,
    disks: tuple[Path, ...],
    host: str,
    consistency: str | None,
    firmware: str | None,
    image_format: str | None,
    live: bool,
    freeze_limit: int,
    quiesce: bool,
    note: str,
    level: int,
    workers: int,
    as_json: bool,
    **access: Any,
) -> None:
    """Capture DISK... of a host as one recovery point in the repository at LOCATION.

    DISK is a whole block device (/dev/sda) or an image file (raw, qcow2, VHD, VHDX, VMDK) that nothing writes to:
    the disks of a host that is shut down, or snapshots. With --live it is a whole disk of the running host: it is
    copied while the host works, then its filesystems are frozen for less than --freeze-limit and the rest is read.
    Name all disks of the host, in the order that its
    firmware knows them. What the repository holds already is not sent again, also after an interruption.

    \b
    Exit codes: 3 no such disk or repository; 4 wrong passphrase or password;
    6 a disk is in use, or another capture of the host finished meanwhile;
    7 no room; 8 the server does not answer; 12 a disk cannot be read; 130 stopped.
    """
    if os.geteuid() != 0 and any(disk.is_block_device() for disk in disks):
        raise AccessError("Only root can read block devices.", hint="Run it with sudo.")
    if live and (consistency or image_format):
        raise UsageError(
            "--live finds out how consistent the point is, and captures disks only.",
            hint="Leave --consistency and --format out.",
        )
    request = CaptureRequest(
        host=host,
        disks=disks,
        consistency=cast(Consistency | None, consistency),
        firmware=cast(Firmware | None, firmware),
        note=note,
        image_format="vpc" if image_format == "vhd" else image_format,
        level=level,
        workers=workers,
    )
    repository = open_repository(location, **access)
    index = open_index(repository)
    with stop_on_signals() as cancel, progress_listener(as_json=as_json) as listener:
        if live:
            with LiveSession(
                FreezeLimits(freeze=freeze_limit / 1000), guests=GuestLimits() if quiesce else None
            ) as session:
                point = capture_live(repository, index, request, session, listener, cancel)
        else:
            point = run_capture(repository, index, request, listener, cancel)
    if as_json:
        click.echo(point_json(point))
    else:
        _show(point)


def _show(point: Point) -> None:
    console = PlainConsole(soft_wrap=True)
    body = point.body
    console.print(f"Recovery point {point.id[:12]} of {point.header.host} ({body.consistency}, {body.firmware})")
    for disk in body.disks:
        console.print(
            f"  {disk.name}  {disk.device}: {format_size(disk.size)}, {format_size(disk.used)} used, "
            f"{format_size(disk.changed)} changed, {format_size(disk.stored)} stored",
            markup=False,
        )
    if body.live is not None:
        console.print(f"  {live_words(body.live)}", markup=False)
    names = ", ".join(vm.name for vm in body.vms)
    console.print(f"  {len(body.vms)} VMs{': ' + names if names else ''}", markup=False)
    console.print(f"  in {format_duration(body.duration)}")


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An Event that the first Ctrl-C (or SIGTERM) sets; a second one interrupts at once."""
    cancel = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()
        # Not through the listener: a signal may come while it holds its lock.
        os.write(2, b"\nStopping as soon as what is on its way is stored; Ctrl-C again stops at once.\n")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
