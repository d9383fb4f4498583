"""How an interrupted restore is gone on with: the command to type. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from recovery.plan.model import Choices
from recovery.plan.vm import VmChoices

#: Digits of a point's id that are shown, and typed from a screen.
_DIGITS = 12


def _point(text: str) -> str:
    return text[:_DIGITS] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def command(choices: Choices, locations: Sequence[str]) -> str:
    """The command that completes what a run with these choices began, from the copies at ``locations``.

    The point is named by its id, as far as one types it: meanwhile there may be a later one. How to log in is not in
    it.
    """
    words = ["rekindle", "restore", *locations[:1], "--host", choices.host, "--point", _point(choices.point)]
    for disk, target in sorted(choices.targets.items()):
        words += ["--target", f"{disk}={target}"]
    for location in locations[1:]:
        words += ["--also", location]
    words += ["--adapt" if choices.adapt else "--no-adapt"]
    words += [] if choices.grow else ["--no-grow"]
    for name in choices.grow_to:
        words += ["--grow-to", name]
    words += ["--to-gpt"] if choices.to_gpt else []
    words += ["--use-swap"] if choices.use_swap else []
    words += ["--drop-hibernation"] if choices.drop_hibernation else []
    words += ["--verify"] if choices.verify else []
    words += ["--skip-damaged"] if choices.skip_damaged else []
    return shlex.join(words)


def vm_command(choices: VmChoices, locations: Sequence[str]) -> str:
    """The command that restores the same disks of a VM to the same place. How to log in is not in it."""
    words = ["rekindle", "extract", *locations[:1], "--host", choices.host, "--point", _point(choices.point)]
    words += ["--vm", choices.vm, *(word for disk in choices.disks for word in ("--disk", disk))]
    words += ["--onto", choices.device] if choices.device else []
    words += ["--into", choices.folder] if choices.folder else []
    for location in locations[1:]:
        words += ["--also", location]
    words += ["--overwrite"] if choices.overwrite else []
    words += ["--skip-damaged"] if choices.skip_damaged else []
    return shlex.join(words)


def with_access(text: str, given: Mapping[str, str | Path | bool | None]) -> str:
    """The same with the options that said who asks (``user="x"`` -> ``--user x``), as far as they were given."""
    words: list[str] = []
    for name, value in given.items():
        if value:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return f"{text} {shlex.join(words)}" if words else text
