"""``rekindle iso write``, ``verify`` and ``netboot``: what is done with a finished medium."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import msgspec

from recovery.cli.progress import progress_listener
from recovery.errors import CancelledError, IntegrityError, NotFoundError, UnsafeTargetError
from recovery.events import Listener, StepFinished, StepStarted
from recovery.machine.model import Disk
from recovery.plan.names import short_name
from recovery.units import format_size


@click.command()
@click.argument("image", metavar="ISO", type=click.Path(path_type=Path))
@click.argument("drive", metavar="DRIVE")
@click.option("--serial", default="", help="Serial number of a drive that is not removable, to say you mean it.")
@click.option(
    "--confirm", metavar="SERIAL", help="The drive's serial number (or size in bytes), instead of typing it."
)
@click.option("--loops", is_flag=True, help="Loop devices may be targets.")
@click.option("--json", "as_json", is_flag=True, help="Events and result as JSON lines.")
def write(image: Path, drive: str, serial: str, confirm: str | None, loops: bool, as_json: bool) -> None:
    """Write a medium to a USB stick, and read all of it back.

    DRIVE is /dev/sdX, an id or a serial number. Drives that are mounted, in use, hold a repository, or are the medium
    this system runs from are refused; so are built-in ones that are not named by --serial.
    """
    from recovery.engine.prober import Prober
    from recovery.medium import write as writing

    size = _image_size(image)
    with progress_listener(as_json=as_json) as listener, _stopped_by_ctrl_c() as stopped:
        with _step(listener, "check", f"Checking {image.name}"):
            damages = _check(image, listener, stopped)
            if damages:
                raise IntegrityError(
                    f"'{image}' is damaged: {'; '.join(damages)}. Nothing was written.",
                    hint="Build it anew, or copy it again.",
                )
        prober = Prober(look_inside=True, loops=loops)
        machine = prober.probe()
        target = writing.find_drive(machine, drive)
        found = writing.problems(target, machine, size, serial=serial, on_medium=writing.runs_from_medium())
        writing.refuse(found)
        for problem in found:
            click.echo(f"{problem.what} {problem.why}".strip(), err=True)
        _confirm(target, confirm)
        writing.check_same(target, prober.probe())
        with _step(listener, "write", f"Writing {writing.describe(image)} to {short_name(target)}"):
            writing.write_medium(image, target.path, listener, stopped.is_set)
    if as_json:
        click.echo(
            msgspec.json.encode({"type": "written", "drive": target.path, "serial": target.serial, "size": size})
        )
    else:
        click.echo(f"{target.path} holds the medium, every byte read back. It may be pulled.")


@click.command()
@click.argument("medium", metavar="ISO|DRIVE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Events and result as JSON lines.")
def verify(medium: Path, as_json: bool) -> None:
    """Check a medium, as a file or in a drive, against the checksums that it carries; say what is damaged."""
    with (
        progress_listener(as_json=as_json) as listener,
        _stopped_by_ctrl_c() as stopped,
        _step(listener, "check", f"Checking {medium}"),
    ):
        damages = _check(medium, listener, stopped)
    if as_json:
        click.echo(msgspec.json.encode({"type": "checked", "medium": str(medium), "damages": damages}))
    if damages:
        if not as_json:
            for damage in damages:
                click.echo(damage)
        raise IntegrityError(
            f"{medium} is damaged in {len(damages)} place{'s' * (len(damages) != 1)}.",
            hint="Write it anew, on another stick if it was written well: rekindle iso write",
        )
    if not as_json:
        click.echo(f"{medium} is whole.")


@click.command()
@click.argument("image", metavar="ISO", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--url", required=True, help="The address of DIR as the machines reach it: http://HOST[:PORT][/DIR].")
@click.option("--serial", default="ttyS0", show_default=True, help="The serial line that gets a console (iPXE).")
def netboot(image: Path, folder: Path, url: str, serial: str) -> None:
    """Lay out DIR for starting the medium over the network: PXE (BIOS and UEFI), UEFI HTTP boot, iPXE.

    DIR becomes the root of a TFTP server and stands at URL on a web server; DIR/dnsmasq.conf is a configuration of
    dnsmasq for it. Secure Boot stays on.
    """
    try:
        from rekindle_image.netboot import lay_netboot
        from rekindle_image.request import parse_netboot_url, parse_serial
    except ModuleNotFoundError as error:
        raise NotFoundError("The image builder is not installed.", hint="Run from a checkout.") from error

    files = lay_netboot(image, folder, parse_netboot_url(url), parse_serial(serial))
    total = sum(file.stat().st_size for file in files)
    click.echo(f"{len(files)} files, {format_size(total)}, in {folder.resolve()}", err=True)
    click.echo(folder.resolve() / "dnsmasq.conf")


def _image_size(image: Path) -> int:
    try:
        if not image.is_file():
            raise FileNotFoundError
        return image.stat().st_size
    except OSError as error:
        raise NotFoundError(f"The ISO '{image}' does not exist.", hint="Build one: rekindle iso build") from error


def _check(medium: Path, listener: Listener, stopped: threading.Event) -> list[str]:
    """What is damaged. A file is also compared with the checksum beside it: is it that image, and all of it?"""
    from recovery.medium.manifest import Image, check, read_manifest

    with Image(medium) as image:
        manifest = read_manifest(image.read, f"'{medium}'")
        damages = [str(damage) for damage in check(image.read, manifest, listener, stopped.is_set)]
    beside = medium.with_name(medium.name + ".sha256")
    if not damages and medium.is_file() and beside.is_file():
        with medium.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != beside.read_text().split(" ", 1)[0].strip().lower():
            damages.append(f"it is not the image that {beside.name} was made for")
    return damages


def _confirm(drive: Disk, given: str | None) -> None:
    """The operator types what names the drive, as for a restore. Raises UnsafeTargetError."""
    what = "serial number" if drive.serial else "size in bytes"
    if given is None:
        if not sys.stdin.isatty():
            raise UnsafeTargetError(
                f"{short_name(drive)} was not confirmed, and there is no terminal to ask on. Nothing was written.",
                hint=f"Give --confirm with its {what}.",
            )
        click.echo(f"\nEverything on {short_name(drive)} will be overwritten.", err=True)
        prompt = what if drive.serial else f"{what}, {drive.size},"
        given = click.prompt(f"Type its {prompt} to go on", err=True)
    if given != drive.confirmation:
        raise UnsafeTargetError(
            f"{drive.path} was not confirmed: what was typed is not its {what}. Nothing was written.",
            hint=f"Type the {what} of the drive that may be overwritten exactly as it is shown.",
        )


@contextlib.contextmanager
def _step(listener: Listener, step: str, title: str) -> Iterator[None]:
    listener(StepStarted(step=step, title=title))
    yield
    listener(StepFinished(step=step))


@contextlib.contextmanager
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """Ctrl-C stops between two pieces, with a word about the state of the drive; pressed again it stops at once."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise CancelledError("Stopped.")
        stopped.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
