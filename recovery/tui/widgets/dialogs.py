"""Dialogs over a screen. Esc always answers with the harmless choice; none of them answers by itself."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen

from recovery.errors import ErrorReport
from recovery.tui.widgets.controls import SHOW, Action, Field, Row, switch_secrets
from recovery.tui.widgets.panes import Lines, Pane

#: Cells of a box where the screen has as many (``#dialog`` in console.tcss); border, edges and scrollbar take 5.
DIALOG_WIDTH = 80


class Dialog(ModalScreen[str]):
    """A titled box with text and buttons; its result is the id of the button, or empty for Esc.

    ``choices`` are ``(id, label)``; the focus is on the first one.
    """

    BINDINGS = [
        Binding("escape", "dismiss('')", show=False),
        Binding("pagedown", "scroll(1)", show=False),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, title: str, text: str, choices: Sequence[tuple[str, str]], *, kind: str = "") -> None:
        super().__init__(classes=kind)
        self._title = title
        self._text = text
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Title, text, buttons."""
        with Vertical(id="dialog"):
            yield Lines(self._title, id="dialog-title")
            with Pane(id="dialog-text"):
                yield Lines(self._text)
            with Horizontal(id="dialog-buttons"):
                for id, label in self._choices:
                    yield Action(label, id=id)

    def on_mount(self) -> None:
        """The first button has the focus."""
        self.query(Action).first().focus()

    def on_action_pressed(self, event: Action.Pressed) -> None:
        """A button ends the dialog."""
        event.stop()
        self.dismiss(event.action)

    def action_scroll(self, direction: int) -> None:
        """Page through a long text."""
        pane = self.query_one(Pane)
        pane.scroll_relative(y=direction * max(1, pane.size.height - 1), animate=False)


class SecretDialog(ModalScreen[str]):
    """Asks for one secret; its result is what was typed, or empty for Esc. Enter takes it."""

    BINDINGS = [Binding("escape", "dismiss('')", show=False)]

    def __init__(self, title: str, text: str, label: str) -> None:
        super().__init__()
        self._title, self._text, self._label = title, text, label

    def compose(self) -> ComposeResult:
        """Title, text, field."""
        with Vertical(id="dialog"):
            yield Lines(self._title, id="dialog-title")
            with Pane(id="dialog-text"):
                yield Lines(self._text)
            yield Row(self._label, Field("", id="dialog-secret", password=True))
            with Horizontal(id="dialog-buttons"):
                yield Action("OK", id="ok")
                yield Action("Cancel", id="cancel")
                yield Action(SHOW, id="show")

    def on_mount(self) -> None:
        """Typing begins at once."""
        self.query_one(Field).focus()

    def on_input_submitted(self, event: Field.Submitted) -> None:
        """Enter in the field."""
        event.stop()
        self.dismiss(event.value)

    def on_action_pressed(self, event: Action.Pressed) -> None:
        """A button ends the dialog; one shows what is typed."""
        event.stop()
        if event.action == "show":
            switch_secrets(self.query(Field), event.button)
        else:
            self.dismiss(self.query_one(Field).value if event.action == "ok" else "")


def error_dialog(error: ErrorReport) -> Dialog:
    """What happened and what to do; never a traceback."""
    text = error.message + (f"\n\n{error.hint}" if error.hint else "")
    return Dialog("Error", text, [("ok", "OK")], kind="-error")


def help_dialog(name: str, text: str) -> Dialog:
    """The help of one screen."""
    return Dialog(f"Help · {name}", text, [("ok", "OK")])
