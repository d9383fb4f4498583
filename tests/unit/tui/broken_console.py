"""``rekindle tui`` in front of the tests' engine, with a bug where ``PLANT`` says (empty: none): ``worker`` or
``handler``. It has what ``SECRET_LOCAL`` and ``SECRET_TEXT`` hold in a local variable and in its words."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from textual import work

from recovery.cli.main import main
from recovery.engine import client
from recovery.errors import AccessError
from recovery.tui.screens.task import TaskScreen
from tests.unit.tui.fake_engine import FakeEngine


def bug() -> None:
    """Fail as code does that was handed secrets."""
    typed = {"password": os.environ["SECRET_LOCAL"]}
    try:
        raise AccessError(os.environ["SECRET_TEXT"] + typed["password"])
    except AccessError as error:
        raise ValueError(f"{os.environ['SECRET_TEXT']} and {typed}") from error


def make_engine(socket: Path) -> FakeEngine:
    """Instead of a client of the socket."""
    return FakeEngine(address=True)


async def fail_in_worker(screen: TaskScreen) -> None:
    """On Enter."""
    bug()


def fail_in_handler(screen: TaskScreen) -> None:
    """On F1."""
    bug()


client.EngineClient = make_engine  # type: ignore[assignment,misc]
if os.environ["PLANT"] == "worker":
    TaskScreen.press_continue = work(group="ask")(fail_in_worker)  # type: ignore[method-assign]
elif os.environ["PLANT"] == "handler":
    TaskScreen.action_help = fail_in_handler  # type: ignore[method-assign,assignment]
main(["tui", *sys.argv[1:]])
