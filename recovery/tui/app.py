"""The console application: its session, the way from screen to screen, and the keys that work everywhere."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess  # noqa: S404 - a shell for the operator lives as long as they want and owns the terminal
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from textual import events
from textual.app import App, SuspendNotSupported
from textual.binding import Binding
from textual.driver import Driver
from textual.filter import LineFilter
from textual.geometry import Size
from textual.screen import Screen
from textual.worker import WorkerFailed

from recovery.engine.api import EngineApi
from recovery.errors import ErrorReport, RekindleError
from recovery.systemd import is_service, notify
from recovery.tui.describe import NO_ADDRESS, network_line
from recovery.tui.glyphs import CHARSETS
from recovery.tui.remote import remote_dialog
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.start import StartScreen
from recovery.tui.screens.task import TaskScreen
from recovery.tui.session import Session
from recovery.tui.terminal import CLEAR
from recovery.tui.theme import CONSOLE_THEME, GlyphFilter, install
from recovery.tui.widgets.controls import Field
from recovery.tui.widgets.dialogs import Dialog, error_dialog
from recovery.tui.widgets.power_dialog import PowerDialog
from recovery.tui.work import in_thread

#: It imports the screens from the choice of a host to the result; the first one would come later by them, on a slow
#: machine by seconds.
LATER = "recovery.tui.screens.host"
#: At the top of the shell's screen, instead of what the medium's login shells say.
SHELL_SAYS = """\033[2J\033[HA root shell. The restore, if one runs, goes on. Type exit to return to the console.

  journalctl -u rekindle-engine   the log of the engine      lsblk -f     disks and what is on them
  rekindle --help                 all commands               ip address   network
  dmesg | tail                    what the kernel says

"""
#: Keys that move on from a text field.
LEAVE_FIELD = ("enter", "tab", "shift+tab", "up", "down")


class ConsoleApp(App[None]):
    """``rekindle tui``: a client of ``engine``; it never touches a disk, and ending it does not touch a run."""

    CSS_PATH = Path(__file__).with_name("console.tcss")
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("f2", "shell", show=False, priority=True),
        Binding("f8", "remote", show=False, priority=True),
        Binding("f9", "charset", show=False, priority=True),
        Binding("ctrl+l", "draw_again", show=False, priority=True),
        Binding("f10,ctrl+q,ctrl+c", "power", show=False, priority=True),
    ]

    def __init__(self, engine: EngineApi, driver_class: type[Driver] | None = None, charset: str = "full") -> None:
        super().__init__(ansi_color=True, driver_class=driver_class)
        install()
        self.register_theme(CONSOLE_THEME)
        self.theme = CONSOLE_THEME.name
        self.session = Session(engine)
        self.glyph_filter = GlyphFilter(charset)
        #: Of the terminal, from the first screen on.
        self._drawn_size: Size | None = None
        #: The way so far is being forgotten: a screen that comes up on that way is gone in a moment.
        self.leaving = False

    @property
    def failure(self) -> Exception | None:
        """The bug that ended the console, if one did; ``rekindle tui`` reports it."""
        error = self._exception
        # Textual wraps what a worker raises, and only the error within knows where it came from.
        return error.error if isinstance(error, WorkerFailed) and isinstance(error.error, Exception) else error

    def _print_error_renderables(self) -> None:
        """Textual prints a traceback here; the operator gets one sentence from ``rekindle tui`` instead."""

    async def on_event(self, event: events.Event) -> None:
        """Keys that leave a text field are handled here, in order with the characters typed before and after them.

        Textual lets a key bubble from the field up to the app before its binding runs; of 'name<Enter>password' in
        one burst (a slow serial line, a paste, a busy machine) the password would land in the field of the name.
        """
        screen = self.screen_stack[-1] if self.screen_stack else None
        field = screen.focused if screen else None
        if isinstance(event, events.Key) and not event.is_forwarded and self._meant_for_another(event, screen):
            pass
        elif (
            isinstance(event, events.Key)
            and not event.is_forwarded
            and event.key in LEAVE_FIELD
            and isinstance(field, Field)
            and isinstance(screen, ConsoleScreen)
        ):
            arrived = asyncio.Event()
            if field.call_later(arrived.set):
                with contextlib.suppress(TimeoutError):  # a field that is just being removed never answers
                    await asyncio.wait_for(arrived.wait(), timeout=1.0)
            screen.leave_field(field, event.key)
        elif (
            isinstance(event, events.Key)
            and not event.is_forwarded
            and isinstance(screen, ConsoleScreen)
            and event.character
            and screen.type_ahead(event.character)
        ):
            pass
        else:
            await super().on_event(event)
            if isinstance(event, events.Resize) and self._drawn_size is not None:
                # The same size as before: somebody wants it drawn again (the medium's script "screen": a font that
                # comes after the first frame changes what was drawn).
                if event.size == self._drawn_size:
                    self.action_draw_again()
                self._drawn_size = event.size

    def _meant_for_another(self, key: events.Key, screen: Screen[object] | None) -> bool:
        """Whether what is on the screen now is not what the operator saw when they pressed this key."""
        return self.leaving or (isinstance(screen, ConsoleScreen) and screen.too_early(key))

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, and ours last."""
        filters = list(super().get_line_filters())
        return [*filters, self.glyph_filter] if self.glyph_filter.enabled else filters

    def on_mount(self) -> None:
        """Ask the engine where things are, then show the right screen."""
        self.push_screen(StartScreen())

    # --- the way ----------------------------------------------------------------------------------------------

    def go(self, screen: Screen[None]) -> None:
        """Forward: the screen before stays below, as it is."""
        self.push_screen(screen)

    def go_back(self) -> None:
        """Back to the screen before; below the first of ours is Textual's blank one."""
        if len(self.screen_stack) > 2:
            self.pop_screen()

    def start_with(self, *screens: Screen[None]) -> None:
        """Forget the way so far and show the last of ``screens``, with the others to go back to.

        A worker of the app, because the screen that calls this is among those that go.
        """
        self.run_worker(self._replace(screens), group="way", exclusive=True)

    async def _replace(self, screens: Sequence[Screen[None]]) -> None:
        self.leaving = True
        try:
            while len(self.screen_stack) > 1:
                await self.pop_screen()
        finally:
            self.leaving = False
        for screen in screens:
            await self.push_screen(screen)
        self._drawn_size = self.size
        # The console stands: what else the machine's start has to do may go on now.
        notify("READY=1")

    def start_tasks(self) -> None:
        """Begin with the choice of what shall be done."""
        self.start_with(TaskScreen())
        # All later screens, while the operator reads the first: imported when they come, keys would wait for them.
        threading.Thread(target=import_module, args=(LATER,), daemon=True, name="screens").start()

    def go_to_repository(self) -> None:
        """On to the network, or behind it when it works already (Esc shows it)."""
        # Here and below: not at the start (see LATER).
        from recovery.tui.screens.network import NetworkScreen
        from recovery.tui.screens.repository import RepositoryScreen

        self.push_screen(NetworkScreen())
        if network_line(self.session.machine) != NO_ADDRESS:
            self.push_screen(RepositoryScreen())

    def back_to_plan(self) -> None:
        """After a run that failed: to the plan when this console made it, else to the beginning."""
        from recovery.tui.screens.plan import PlanScreen

        if any(isinstance(screen, PlanScreen) for screen in self.screen_stack):
            while not isinstance(self.screen, PlanScreen):
                self.pop_screen()
        else:
            self.start_tasks()

    # --- keys that work everywhere ----------------------------------------------------------------------------

    def action_shell(self) -> None:
        """F2: a root shell on this terminal; 'exit' comes back."""
        try:
            with self.suspend():
                run_shell()
        except SuspendNotSupported:
            self.push_screen(error_dialog(ErrorReport("UsageError", "This terminal cannot be lent to a shell.")))
        self.refresh(layout=True)

    def action_remote(self) -> None:
        """F8: how this medium is reached from elsewhere. Not over a dialog, nor while the screen awaits an answer.

        Looked at before there is a worker: a second one would end the first, and leave its dialog without effect.
        """
        screen = self.screen
        if isinstance(screen, ConsoleScreen) and not screen.busy:
            self.run_worker(remote_dialog(screen), group="remote", exclusive=True)

    def action_charset(self) -> None:
        """F9: the next set of characters, for a terminal whose font lacks what is drawn."""
        names = list(CHARSETS)
        self.glyph_filter.charset = names[(names.index(self.glyph_filter.charset) + 1) % len(names)]
        self._draw_all()
        if isinstance(self.screen, ConsoleScreen):
            self.screen.status(f"Characters: {self.glyph_filter.charset} (F9 changes them).")

    def action_draw_again(self) -> None:
        """Ctrl+L: everything anew, for a terminal that came late or shows what is not the console's."""
        if self._driver is not None:
            self._driver.write(CLEAR)
        self._draw_all()

    def _draw_all(self) -> None:
        for screen in self.screen_stack:
            for widget in (screen, *screen.query("*")):
                widget._styles_cache.clear()  # filtered lines are kept there
        self.refresh(layout=True)

    def action_power(self) -> None:
        """F10: leave the console, restart or switch off. Not over a dialog; see ``action_remote``."""
        if isinstance(self.screen, ConsoleScreen):
            self.run_worker(self._choose_power(), group="power", exclusive=True)

    async def _choose_power(self) -> None:
        chosen = await self.push_screen_wait(PowerDialog(self.session.engine, comes_back=is_service()))
        if chosen == "quit":
            self.exit()
        elif chosen in ("reboot", "off"):
            await self.power(off=chosen == "off")

    async def power(self, *, off: bool) -> None:
        """Restart or switch off, unless a restore is running, or the screen has something to be done before."""
        engine = self.session.engine
        if not off and isinstance(self.screen, ConsoleScreen) and not await self.screen.may_restart():
            return
        try:
            if (await in_thread(engine.state)).phase == "running":
                await self.push_screen_wait(
                    Dialog("A restore is running", "Stop the restore first, or wait for its end.", [("ok", "OK")])
                )
                return
            if isinstance(self.screen, ConsoleScreen):
                self.screen.status("Switching off ..." if off else "Restarting ...")
            await in_thread(engine.reboot, power_off=off)
        except RekindleError as error:
            await self.push_screen(error_dialog(error.report()))


def run_shell() -> None:
    """A login shell on the terminal; its output goes where the console draws (stderr), not to a journal."""
    shell = 'printf "%s" "$0" >&2; export REKINDLE_GREETED=1; exec /bin/bash -l 1>&2'
    subprocess.run(["/bin/sh", "-c", shell, SHELL_SAYS], check=False)
