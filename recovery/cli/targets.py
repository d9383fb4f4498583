"""Options that plan and restore share: which disk of the point goes where, and what is done about damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from recovery.errors import UsageError
from recovery.format.point import Point
from recovery.machine.file_target import is_file_target
from recovery.machine.model import Machine
from recovery.plan.suggest import suggest

F = TypeVar("F", bound=Callable[..., Any])

_CARE = (
    click.option("--verify", is_flag=True,
                 help="Read back all of every disk afterwards and compare the signed root."),
    click.option("--also", "copies", multiple=True, metavar="LOCATION",
                 help="Another copy of the repository, asked for what the ones before it lack. Repeatable."),
    click.option("--skip-damaged", is_flag=True,
                 help="Leave as zeros what no copy has, and list it; exit code 5 then."),
)  # fmt: skip


swap_option = click.option(
    "--use-swap",
    is_flag=True,
    help="Another firmware mode may take the room for its boot partition from a swap partition, if there is no other.",
)


hibernation_option = click.option(
    "--drop-hibernation",
    is_flag=True,
    help="A session of Windows that sleeps on the disks (hibernation, fast start) may be given up.",
)


_GROW = (
    click.option("--grow/--no-grow", default=True, help="Grow the last partition onto a larger disk."),
    click.option("--grow-to", multiple=True, metavar="NAME",
                 help="What grows onto a larger disk instead: a mount point, device, vg/lv or volume group of the "
                      "host; 'none': nothing. 'rekindle plan' shows what can. Repeatable, once a disk."),
    click.option("--to-gpt", is_flag=True,
                 help="A disk with an MBR, which reaches only 2 TiB, gets a GPT on a larger target."),
)  # fmt: skip


def grow_options(function: F) -> F:
    """Add ``--grow/--no-grow``, ``--grow-to`` and ``--to-gpt``."""
    for option in reversed(_GROW):
        function = option(function)
    return function


def care_options(function: F) -> F:
    """Add ``--verify``, ``--also`` (argument ``copies``) and ``--skip-damaged``."""
    for option in reversed(_CARE):
        function = option(function)
    return function


#: What a terminal is asked for it with.
LUKS_PROMPT = "Passphrase of the host's encrypted volumes (LUKS)"

_LUKS = click.option(
    "--luks-secret-file", type=click.Path(path_type=Path, dir_okay=False),
    help="File with the passphrase of the host's encrypted volumes ('-': stdin), to adapt what is in them.",
)  # fmt: skip


def luks_option(function: F) -> F:
    """Add ``--luks-secret-file``."""
    return _LUKS(function)


def parse_pairs(words: Sequence[str], option: str) -> dict[str, str]:
    """``disk1=/dev/sda`` words -> {disk1: /dev/sda}. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name or not value:
            raise UsageError(f"'{word}' is not what {option} wants.", hint=f"Write {option} disk1=...")
        if name in found:
            raise UsageError(f"{option} names {name} twice.")
        found[name] = value
    return found


def parse_targets(words: Sequence[str]) -> dict[str, str]:
    """Targets by disk; a name with a dot or slash that is not absolute is a file here."""
    found = parse_pairs(words, "--target")
    return {name: _absolute(value) for name, value in found.items()}


def _absolute(value: str) -> str:
    if value.startswith("/"):
        return _device(value)
    is_id = value.startswith(("wwn:", "serial:", "path:"))
    return value if is_id or not ("/" in value or "." in value) else str(Path(value).absolute())


def _device(value: str) -> str:
    """``/dev/disk/by-id/...`` is a link to the kernel's name."""
    path = Path(value)
    return str(path.resolve()) if value.startswith("/dev/") and path.is_symlink() else value


def are_files(targets: dict[str, str]) -> bool:
    """Every target is an image file, none a disk of this machine."""
    return bool(targets) and all(is_file_target(target) for target in targets.values())


def suggested(point: Point, machine: Machine) -> dict[str, str]:
    """What would be suggested for each disk, as far as there is something."""
    return {found.disk: found.target for found in suggest(point, machine) if found.target}
