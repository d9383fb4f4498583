"""Host: which of the repository's hosts shall come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import time as now

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.errors import ErrorReport, NotFoundError, RekindleError
from recovery.format.point import PointSummary
from recovery.tui.describe import age, local
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.point import PointScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines
from recovery.tui.work import in_thread
from recovery.units import format_count


class HostScreen(ConsoleScreen):
    """The hosts this sign-in may restore."""

    NAME = "Host"
    HELP = (
        "Choose the host that shall come back onto this machine.\n\n"
        "Behind each is its newest recovery point and how many there are, as soon as\n"
        "that was read; there is no need to wait for it.\n\n"
        "The list shows the hosts your sign-in may restore. If yours is missing, go\n"
        "back with Esc and sign in as somebody who may."
    )
    HINTS = "Arrows move  Enter choose  Esc back  F1 help  F2 shell  F10 power"

    def __init__(self) -> None:
        super().__init__()
        #: Host -> what is said of its points, as far as that is known.
        self._told: dict[str, str] = {}

    def body(self) -> ComposeResult:
        """The list."""
        repository = self.session.repository
        if repository is not None:
            yield Lines(f"Repository {repository.id[:16]} at {repository.location}")
        question = "Which host ran the VM?" if self.session.mode == "vm" else "Which host shall come back?"
        yield Lines(question, classes="heading gap")
        yield ChoiceList(id="hosts")

    def buttons(self) -> Iterable[Widget]:
        """Continue."""
        return (Action("Continue", id="continue"),)

    def on_mount(self) -> None:
        """The host chosen before, or the first."""
        hosts = self._hosts()
        self.query_one("#hosts", ChoiceList).set_rows(self._rows(), self.session.fields.get("host", ""))
        self.query_one("#hosts").focus()
        if not hosts:
            self.show_error(
                ErrorReport(
                    "NotFoundError",
                    "The repository has no host that this sign-in may restore.",
                    "Go back with Esc and use another sign-in or another repository.",
                )
            )

    def on_screen_resume(self) -> None:
        """Also when coming back before all was read."""
        self.look()

    def _hosts(self) -> tuple[str, ...]:
        return self.session.repository.hosts if self.session.repository else ()

    def _rows(self) -> list[tuple[str, str]]:
        width = min(30, max((len(host) for host in self._hosts()), default=0))
        return [(host, f"{host:<{width}}  {self._told.get(host, '')}".rstrip()) for host in self._hosts()]

    @work(exclusive=True, group="points")
    async def look(self) -> None:
        """Behind each host its points, one after another: one list of names each, and there may be hundreds."""
        for host in self._hosts():
            if host in self._told:
                continue
            if not self.is_current:
                return
            try:
                points = await in_thread(self.session.engine.points, host)
            except NotFoundError:
                points = []
            except RekindleError:
                return  # choosing one tells what is wrong
            if not self.is_attached:
                return
            self._told[host] = points_words(points, now())
            self.query_one("#hosts", ChoiceList).set_rows(self._rows())

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter."""
        if not self.busy:
            self.press_continue()

    @work(exclusive=True, group="ask")
    async def press_continue(self) -> None:
        """Read the list of its points; on to it."""
        host = self.query_one("#hosts", ChoiceList).selected
        if not host:
            return
        points = await self.ask(f"Reading the recovery points of {host}", self.session.engine.points, host)
        if points is None:
            return
        if not points:
            self.show_error(
                ErrorReport(
                    "NotFoundError",
                    f"There is no recovery point of {host}.",
                    "Choose another host, or go back with Esc.",
                )
            )
            return
        self.session.fields["host"] = host
        self.session.points = list(reversed(points))
        self.session.unreadable = set()
        self.session.fields.pop("when", None)
        self.console_app.go(PointScreen())


def points_words(points: Sequence[PointSummary], today: float) -> str:
    """``newest 3 hours ago, 2026-11-20 04:00 CET; 12 points``, of points whose newest is the last."""
    if not points:
        return "no points"
    newest = points[-1].created
    count = format_count(len(points), "point")
    return f"newest {age(newest, today)}, {local(newest)}; {count}"
