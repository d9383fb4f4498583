"""The ``rekindle`` command: finds the command's file, runs it, and turns errors into one clear message."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import click
import msgspec

from recovery import __version__
from recovery.errors import RekindleError

#: name -> (module, attribute, short help). Loaded when used, so that ``rekindle --help`` and the TUI start quickly.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "repo": ("recovery.cli.repo", "repo", "Create, describe, check and prune a repository."),
    "serve": ("recovery.cli.serve", "serve", "Serve a repository over HTTPS."),
    "servers": ("recovery.cli.servers", "servers", "Find servers on the local network."),
    "user": ("recovery.cli.user", "user", "Manage the users of a server."),
    "code": ("recovery.cli.code", "code", "Issue one-time codes of a server."),
    "reports": ("recovery.cli.reports", "reports", "Show how runs ended, as recovery media reported it."),
    "capture": ("recovery.cli.capture", "capture", "Capture disks of a host as a recovery point."),
    "agent": ("recovery.cli.agent", "agent", "Capture this running host continuously."),
    "points": ("recovery.cli.points", "points", "List hosts and recovery points."),
    "machine": ("recovery.cli.machine", "machine", "Describe this machine: disks, firmware, network."),
    "plan": ("recovery.cli.plan", "plan", "Plan a restore and check it, without writing."),
    "restore": ("recovery.cli.restore", "restore", "Restore a recovery point onto disks."),
    "extract": ("recovery.cli.extract", "extract", "Bring back the disks of one VM as files."),
    "adapt": ("recovery.cli.adapt", "adapt", "Make a restored host boot on this machine."),
    "iso": ("recovery.cli.iso", "iso", "Build the bootable recovery medium."),
    "engine": ("recovery.cli.engine", "engine", "Run the engine as a service on a unix socket."),
    "remote": ("recovery.cli.remote", "remote", "Reach this medium from another machine."),
    "unattended": ("recovery.cli.unattended", "unattended", "Restore by answers given beforehand."),
    "tui": ("recovery.cli.tui", "tui", "Open the recovery console."),
}

#: The exit code of a bug: sysexits.h EX_SOFTWARE.
BUG_EXIT_CODE = 70
_LINES = "\n\t"


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The command names in the order a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, _, help_text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rekindle")
def cli() -> None:
    """Bring a dead virtualization host back from bare metal."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code. Errors go to stderr: what, why, what to do; as JSON with --json."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # With its own threshold of 700 objects the garbage collector takes a fifth of the time of the console's tests.
    gc.set_threshold(50_000, 20, 20)
    try:
        result: Any = cli.main(arguments, prog_name="rekindle", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except RekindleError as error:
        show_error(error, as_json="--json" in arguments)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except Exception:
        click.echo(f"Bug: an unexpected error. A report is in {write_crash_report()}", err=True)
        click.echo("  Nothing that was finished is lost. Please send the report to the maintainers.", err=True)
        sys.exit(BUG_EXIT_CODE)


def show_error(error: RekindleError, *, as_json: bool) -> None:
    """One clear error on stderr."""
    if as_json:
        click.echo(msgspec.json.encode({"type": "error", **msgspec.to_builtins(error.report())}).decode(), err=True)
        return
    from recovery.cli.console import printable  # not at the start: it loads rich

    # The words may be a server's, or hold the name of a file.
    click.echo(f"Error: {printable(error.message, keep=_LINES)}", err=True)
    if error.hint:
        click.echo(f"  {printable(error.hint, keep=_LINES)}", err=True)


def write_crash_report() -> Path:
    """Keep the current exception's traceback, without local variables (they may hold secrets), readable by us only."""
    with NamedTemporaryFile("w", prefix="rekindle-crash-", suffix=".txt", delete=False) as file:
        file.write(f"rekindle {__version__}, Python {sys.version}\n\n{traceback.format_exc()}")
    return Path(file.name)


if __name__ == "__main__":
    main()
