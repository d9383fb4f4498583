"""Leave the console, restart or switch off; with what runs now, and what leaving means on this terminal."""

from __future__ import annotations

from textual import work

from recovery.engine.api import EngineApi
from recovery.errors import RekindleError
from recovery.tui.widgets.dialogs import Dialog
from recovery.tui.widgets.panes import Lines
from recovery.tui.work import in_thread


class PowerDialog(Dialog):
    """It comes at once, and the engine is asked meanwhile: keys that follow F10 are for it."""

    def __init__(self, engine: EngineApi, *, comes_back: bool) -> None:
        """``comes_back``: systemd starts the console again whenever it ends, on the medium's own screens."""
        leave = "Restart console" if comes_back else "Leave console"
        choices = [("stay", "Stay"), ("quit", leave), ("reboot", "Restart"), ("off", "Switch off")]
        super().__init__("Power", "Asking what runs ...\n", choices)
        self._engine = engine
        self._leave = leave

    def on_mount(self) -> None:
        """Ask the engine."""
        self.ask()

    @work(exclusive=True)
    async def ask(self) -> None:
        """Say what is running."""
        try:
            running = (await in_thread(self._engine.state)).phase == "running"
        except RekindleError as error:
            self._say(f"Whether a restore is running is not known: {error.message}")
            return
        self._say(
            f"A restore is running, and goes on after '{self._leave}'.\n"
            "'Restart' and 'Switch off' are refused until it has ended or was stopped."
            if running
            else "No restore is running.\nWhat is only in this medium's memory is lost by 'Restart' and 'Switch off'."
        )

    def _say(self, text: str) -> None:
        self.query_one("#dialog-text Lines", Lines).update(text)
