"""What every screen has: the title line, a body, a status line, buttons, key hints, Esc, help, and engine calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from recovery.errors import ErrorReport, RekindleError
from recovery.tui.session import Session
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Field, FieldLabel, Toggle
from recovery.tui.widgets.dialogs import Dialog, error_dialog, help_dialog
from recovery.tui.widgets.panes import Lines, Pane
from recovery.tui.work import in_thread
from recovery.units import format_count

if TYPE_CHECKING:
    from recovery.tui.app import ConsoleApp

P = ParamSpec("P")
T = TypeVar("T")

#: Screens of the way, for "step 3 of 8" in the title line.
STEPS = ("Network", "Repository", "Host", "Point", "Target disks", "Plan", "Confirm", "Restore")
#: The same for one VM; 'Confirm' comes only where files are overwritten, and has no number.
VM_STEPS = ("Network", "Repository", "Host", "Point", "VM", "Place", "Plan", "Restore")
#: Seconds for which a screen that came by itself has to be in sight before its buttons can be pressed.
LOOK_SECONDS = 1.0
#: Keys that press a button.
PRESS = ("enter", "space")


class ConsoleScreen(Screen[None]):
    """A screen of the console. Subclasses give ``NAME``, ``HELP``, ``HINTS``, ``body()`` and ``buttons()``.

    The line at the top is always ``Rekindle · NAME``, the one at the bottom the keys that work here.
    """

    NAME: ClassVar[str] = ""
    HELP: ClassVar[str] = ""
    HINTS: ClassVar[str] = "Tab/arrows move  Enter select  Esc back  F1 help  F2 shell  F10 power"

    AUTO_FOCUS = ""
    #: From 36 rows up there is room for air (``console.tcss``).
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]
    BINDINGS = [
        Binding("escape", "back", show=False),
        Binding("f1", "help", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("pagedown", "scroll_pane(1)", show=False),
        Binding("pageup", "scroll_pane(-1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.busy = False
        self._status = ""
        self._pressed_from = 0.0

    @property
    def console_app(self) -> ConsoleApp:
        """The app, typed."""
        return cast("ConsoleApp", self.app)

    @property
    def session(self) -> Session:
        """What was chosen so far."""
        return self.console_app.session

    def compose(self) -> ComposeResult:
        """The frame around ``body`` and ``buttons``."""
        steps = VM_STEPS if self.session.mode == "vm" else STEPS
        counted = self.NAME in steps and self.session.mode != "repair"
        step = f"step {steps.index(self.NAME) + 1} of {len(steps)}" if counted else ""
        with Horizontal(id="title"):
            yield Lines(f"Rekindle · {self.NAME}", id="title-name")
            yield Lines(step, id="title-step")
        with Vertical(id="body"):
            yield from self.body()
        yield Lines("", id="status")
        with Horizontal(id="buttons"):
            yield from self.buttons()
        yield Lines(self.HINTS, id="hints")

    def body(self) -> ComposeResult:
        """The widgets between title and buttons."""
        yield from ()

    def buttons(self) -> Iterable[Widget]:
        """The buttons, the one that continues first."""
        return ()

    def on_screen_suspend(self) -> None:
        """Below a dialog nothing is marked as what keys go to."""
        self._draw_marks()

    def on_screen_resume(self) -> None:
        """The mark comes back."""
        self._draw_marks()

    def _draw_marks(self) -> None:
        for kind in (Action, Toggle, FieldLabel, ChoiceList):
            for widget in self.query(kind):
                widget.refresh()

    # --- keys -------------------------------------------------------------------------------------------------

    def came_by_itself(self) -> None:
        """No key brought the operator here: what they press in the first moment is meant for the screen before."""
        self._pressed_from = math.inf
        self.call_after_refresh(self._in_sight)

    def _in_sight(self) -> None:
        self._pressed_from = time.monotonic() + LOOK_SECONDS

    def too_early(self, key: events.Key) -> bool:
        """Whether this key would press a button that the operator cannot have seen when they pressed it."""
        return key.key in PRESS and isinstance(self.focused, Action) and key.time < self._pressed_from

    def action_back(self) -> None:
        """To the screen before; what was typed here is kept."""
        self.console_app.go_back()

    def action_help(self) -> None:
        """The help of this screen."""
        self.app.push_screen(help_dialog(self.NAME, self.HELP))

    def action_scroll_pane(self, direction: int) -> None:
        """Page the screen's first scrolling pane, wherever the focus is."""
        for pane in self.query(Pane):
            pane.scroll_relative(y=direction * max(1, pane.size.height - 1), animate=False)
            break

    async def may_restart(self) -> bool:
        """Whether the machine may be restarted from here; asks the operator where something is to be done before."""
        return True

    # --- forms ------------------------------------------------------------------------------------------------

    def leave_field(self, field: Field, key: str) -> None:
        """A key that leaves a field; the app calls this when all that was typed before has arrived in it."""
        self.field_changed(field.id or "", field.value)
        if key == "enter":
            self.field_done(field.id or "")
        elif key in ("tab", "down"):
            self.focus_next()
        else:
            self.focus_previous()

    def type_ahead(self, character: str) -> bool:
        """A character typed where no field has the focus; True when the screen has taken it. At once, so that what
        follows in the same burst comes behind it."""
        return False

    # Textual calls the handler of every class of the hierarchy; screens that differ override these instead.

    def field_changed(self, id: str, value: str) -> None:
        """Remember what is typed, so that going back and forth loses nothing."""
        self.session.fields[id] = value

    def field_done(self, id: str) -> None:
        """Enter in a field goes on to the next one."""
        self.focus_next()

    def toggle_changed(self, id: str, value: bool) -> None:
        """Remember check boxes too."""
        self.session.toggles[id] = value

    def on_input_changed(self, event: Input.Changed) -> None:
        """A field was typed into."""
        self.field_changed(event.input.id or "", event.value)

    def on_toggle_changed(self, event: Toggle.Changed) -> None:
        """A box was checked or cleared."""
        self.toggle_changed(event.toggle.id or "", event.toggle.value)

    def on_action_pressed(self, event: Action.Pressed) -> None:
        """Call ``press_<id>`` of the screen; not while an answer of the engine is awaited."""
        event.stop()
        if not self.busy:
            handler: Callable[[], object] = getattr(self, f"press_{event.action.replace('-', '_')}")
            handler()

    # --- the engine -------------------------------------------------------------------------------------------

    def status(self, text: str) -> None:
        """Say something on the line above the buttons. Without a text it says how much is out of sight below."""
        self._status = text
        pane = next(iter(self.query(Pane)), None)
        if not text and pane is not None and pane.below:
            text = f"↓ {format_count(pane.below, 'more line')} below: PgDn"
        for line in self.query("#status").results(Lines):
            line.update(text)

    def on_pane_moved(self) -> None:
        """More or less of it is out of sight."""
        self.status(self._status)

    async def ask(self, doing: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call the engine without freezing the console. An error becomes one dialog and the result None."""
        self.busy = True
        self.status(f"{doing} ...")
        try:
            return await in_thread(function, *args, **kwargs)
        except RekindleError as error:
            self.show_error(error.report())
        finally:
            self.busy = False
            self.status("")
        return None

    def show_error(self, error: ErrorReport) -> None:
        """One clear dialog: what happened, what to do."""
        self.app.push_screen(error_dialog(error))

    async def choose(self, title: str, text: str, choices: list[tuple[str, str]], kind: str = "") -> str:
        """Ask the operator; empty for Esc. Only from a worker."""
        return await self.app.push_screen_wait(Dialog(title, text, choices, kind=kind)) or ""
