"""``rekindle agent``: points of a running host by the minute, as a service; ``agent status`` tells how it does."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
import msgspec

from recovery.agent.config import DEFAULT_PATH, Settings, load_settings
from recovery.agent.service import Agent
from recovery.agent.status import Summary, read_status, summarize
from recovery.cli.access import read_secret
from recovery.errors import UnreachableError, UsageError
from recovery.repository.location import Credentials, is_remote, open_store
from recovery.repository.repository import Repository
from recovery.units import format_duration, format_size

log = logging.getLogger("rekindle.agent")

#: Seconds that a server may be silent before the agent goes on without it; what waits is sent later.
_PATIENCE = 10.0
_AGAIN = 15.0

_config = click.option(
    "--config", "config", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_PATH, show_default=True,
    help="The agent's configuration.",
)  # fmt: skip


@click.group(invoke_without_command=True)
@_config
@click.option("--once", is_flag=True, help="Make one point (a full compare), wait until it is stored, and end.")
@click.option("--check", "only_check", is_flag=True, help="Only check the configuration.")
@click.pass_context
def agent(context: click.Context, config: Path, once: bool, only_check: bool) -> None:
    """Capture this running host continuously: a keyframe an hour, a journal point a minute.

    Runs in the foreground and logs to stderr, for systemd; see docs/agent.md. Ends on SIGTERM and Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        context.obj = config
        return
    settings = load_settings(config)
    if only_check:
        click.echo(f"{config} is right: {len(settings.disks)} disks of '{settings.host}'.")
        return
    _log_to_stderr()
    with _stopped_by_signals() as stop:
        repository = _open(settings, stop, once=once)
        if repository is not None:
            Agent(repository, settings, stop).run(once=once)


@agent.command()
@click.option("--config", "own_config", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="The agent's configuration.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(context: click.Context, own_config: Path | None, as_json: bool) -> None:
    """Tell how the agent of this host does. Exit code 1: it does not run, or its newest point is too old."""
    settings = load_settings(own_config or context.obj)
    told = summarize(read_status(settings.status), time.time())
    if as_json:
        click.echo(msgspec.json.encode({"type": "agent-status", **msgspec.to_builtins(told)}))
    else:
        for line in status_lines(told):
            click.echo(line)
    if not told.healthy:
        context.exit(1)


def status_lines(told: Summary) -> Iterator[str]:
    """The status for people. Pure."""

    def ago(seconds: float | None) -> str:
        return "none" if seconds is None else format_duration(seconds)

    def frozen(milliseconds: float | None) -> str:
        return "-" if milliseconds is None else f"{milliseconds:.0f} ms"

    yield f"{told.host}: {told.state}{'' if told.healthy else ' (NOT HEALTHY)'}"
    yield f"  newest point   {told.last_point[:12] or 'none'}, lag {ago(told.lag)}"
    yield f"  RPO achieved   {ago(told.rpo_24h)} over 24 h, {told.points_24h} points"
    yield f"  in 24 h        {format_size(told.changed_24h)} changed, {format_size(told.sent_24h)} sent"
    times = f"last {frozen(told.freeze_last)}, p99 {frozen(told.freeze_p99)}, longest {frozen(told.freeze_max)}"
    yield f"  freezes        {times}"
    spool = f"{format_size(told.spool_used)} of {format_size(told.spool_limit)}, {told.spool_objects} objects"
    yield f"  spool          {spool}; the server {'answers' if told.server_online else 'does not answer'}"
    counts = f"{told.keyframes} keyframes ({told.full_compares} full compares), {told.journals} journals"
    yield f"  made           {counts}, {told.failures} failures; tracked by {told.tracker or 'nothing yet'}"
    if told.next_is_full_compare:
        yield f"  next           a full compare: {told.next_is_full_compare}"
    if told.problem:
        yield f"  last problem   {told.problem}"


def _open(settings: Settings, stop: threading.Event, *, once: bool) -> Repository | None:
    """The repository; a server that is away is waited for, unless ``once``. None when stopped meanwhile."""
    where = settings.repository
    credentials = Credentials()
    if is_remote(where.location):
        if not where.user or not where.password_file:
            raise UsageError("repository.user and repository.password_file are missing: the server wants a login.")
        password = _secret(where.password_file)
        credentials = Credentials(user=where.user, password=password, ca=where.ca)
    secret = _secret(where.secret_file)
    while True:
        try:
            return Repository.open(open_store(where.location, credentials, patience=_PATIENCE), secret)
        except UnreachableError as error:
            if once:
                raise
            log.warning("%s Trying again in %.0f s.", error.message, _AGAIN)
        if stop.wait(_AGAIN):
            return None


def _secret(path: str) -> str:
    """A secret that nobody but its owner may read. Raises UsageError."""
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise UsageError(
            f"The secret in '{path}' cannot be read: {error.strerror}.", hint="Check the path."
        ) from error
    if mode & 0o077:
        raise UsageError(f"Others may read the secret in '{path}'.", hint=f"Run: chmod 600 {path}")
    return read_secret(file, "")


def _log_to_stderr() -> None:
    """Without times: the journal has its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger("rekindle.agent")
    root.addHandler(handler)
    root.setLevel(logging.INFO)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
