"""A restored disk that is laid out anew is finished: shrunk, made anew where needed, and given its partition table."""

from __future__ import annotations

import threading

from recovery.adapt.land import Land
from recovery.errors import UsageError
from recovery.events import Level, Listener, Message
from recovery.format.point import Point
from recovery.plan.model import DiskAssignment
from recovery.repository.attention import RetryTeller, attended
from recovery.repository.repository import Repository
from recovery.restore.disk import RestoreOptions
from recovery.restore.view import PointView


def land(
    repository: Repository,
    point: Point,
    assignment: DiskAssignment,
    listener: Listener,
    cancel: threading.Event,
    options: RestoreOptions,
) -> list[str]:
    """Do it, and return what was changed, in sentences. Raises what Land.finish raises, CancelledError."""
    name = assignment.source.name
    step, changes = f"stream:{name}", list[str]()
    if assignment.landing is None:
        raise UsageError(f"{name} is not laid out anew.")

    def say(text: str, level: Level = "info") -> None:
        listener(Message(text=text, level=level, step=step))

    def tell(text: str) -> None:
        changes.append(text)
        say(text)

    with attended(repository.store, RetryTeller(listener, step), cancel, options.patience):
        view = PointView(repository, repository.chunk_map(point, name), cancel, skip_damaged=options.skip_damaged)
        Land(
            source=assignment.source, landing=assignment.landing, view=view, target=assignment.target.path,
            size=assignment.target.size, tell=tell, begin=say, note=lambda text: say(text, "debug"),
        ).finish()  # fmt: skip
    return changes
