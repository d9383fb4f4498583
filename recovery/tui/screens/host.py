"""Host: which of the repository's hosts shall come back."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.errors import ErrorReport
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.point import PointScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines


class HostScreen(ConsoleScreen):
    """The hosts this sign-in may restore."""

    NAME = "Host"
    HELP = (
        "Choose the host that shall come back onto this machine.\n\n"
        "The list shows the hosts your sign-in may restore. If yours is missing, go\n"
        "back with Esc and sign in as somebody who may."
    )
    HINTS = "Arrows move  Enter choose  Esc back  F1 help  F2 shell  F10 power"

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
        hosts = self.session.repository.hosts if self.session.repository else ()
        chosen = self.session.fields.get("host", "")
        self.query_one("#hosts", ChoiceList).set_rows([(host, host) for host in hosts], chosen)
        self.query_one("#hosts").focus()
        if not hosts:
            self.show_error(
                ErrorReport(
                    "NotFoundError",
                    "The repository has no host that this sign-in may restore.",
                    "Go back with Esc and use another sign-in or another repository.",
                )
            )

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
