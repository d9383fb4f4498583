"""A command that goes on while this program is still being read: on a slow medium that takes seconds of both."""

from __future__ import annotations

import shlex
import subprocess  # noqa: S404 - not recovery.commands: it owns the terminal while we go on
from collections.abc import Callable

from recovery.errors import UsageError


def meanwhile(command: str) -> Callable[[], object]:
    """Start ``command`` (words as a shell quotes them; empty: none) on our terminal; the result waits for its end.

    How it ended is its own affair: the recovery medium starts its console also when a font could not be loaded.
    Raises UsageError when it can't be started.
    """
    if not command:
        return lambda: None
    try:
        return subprocess.Popen(shlex.split(command)).wait
    except (OSError, ValueError) as error:
        raise UsageError(
            f"'{command}' can't be run: {error}.", hint="Give --meanwhile a program with its words, or leave it out."
        ) from error
