"""Follow a run of the engine in this process until it has ended."""

from __future__ import annotations

import click

from recovery.engine.engine import Engine
from recovery.events import Listener, RunFinished


def follow(engine: Engine, listener: Listener) -> RunFinished:
    """Tell the events until the run has ended. Ctrl-C stops the run, and its end is awaited all the same."""
    since = 0
    while True:
        try:
            for number, event in engine.event_log().read(since, timeout=1.0):
                since = number + 1
                listener(event)
                if isinstance(event, RunFinished):
                    return event
        except KeyboardInterrupt:
            click.echo("Stopping ...", err=True)
            engine.cancel()
