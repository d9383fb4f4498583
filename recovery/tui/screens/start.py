"""The first moment: wait for the engine, then show where things are."""

from __future__ import annotations

from textual import work
from textual.app import ComposeResult

from recovery.engine.api import Medium, RunState
from recovery.errors import RekindleError
from recovery.machine.model import Machine
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.widgets.panes import Lines
from recovery.tui.work import in_thread, unexpected

#: Seconds between two attempts to reach the engine.
RETRY_SECONDS = 2.0


class StartScreen(ConsoleScreen):
    """Shown for a moment, or as long as the engine does not answer."""

    NAME = "Start"
    HELP = (
        "The console waits for the recovery engine of this medium.\n\n"
        "It tries again by itself. If it stays, open a shell with F2 and look at\n"
        "'systemctl status rekindle-engine' and 'journalctl -b'."
    )
    HINTS = "F1 help  F2 shell  F10 power"

    def body(self) -> ComposeResult:
        """One sentence, and why it takes long when it does."""
        yield Lines("Looking at this machine ...", classes="gap")
        yield Lines("", id="trouble", classes="gap")

    def action_back(self) -> None:
        """There is nothing before."""

    def on_mount(self) -> None:
        """Try at once."""
        self.begin()

    @work(exclusive=True)
    async def begin(self) -> None:
        """Ask for medium, machine and state; again after a while when there is no answer."""
        try:
            medium, machine, state, notice = await in_thread(self._look)
        except Exception as error:
            report = error.report() if isinstance(error, RekindleError) else unexpected(error).report()
            for line in self.query("#trouble").results(Lines):  # none when the console ends meanwhile
                line.update(f"{report.message}\n{report.hint}\n\nTrying again ...")
            self.set_timer(RETRY_SECONDS, self.begin)
            return
        self.session.medium, self.session.machine = medium, machine
        self.session.fields.setdefault("server", medium.server)
        if state.phase != "idle":
            from recovery.tui.screens.restore import RestoreScreen

            self.console_app.start_with(RestoreScreen())
        else:
            self.session.notice = "\n".join(part for part in (notice, self.session.crash) if part)
            self.console_app.start_tasks()

    def _look(self) -> tuple[Medium, Machine, RunState, str]:
        engine = self.session.engine
        unattended = engine.unattended()
        notice = ""
        if unattended.phase in ("refused", "stopped", "failed"):
            reasons = "".join(f"\n  {reason}" for reason in unattended.reasons)
            notice = f"The unattended restore was {unattended.phase}: {unattended.message}{reasons}"
        return engine.medium(), engine.machine(), engine.state(), notice
