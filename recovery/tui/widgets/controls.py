"""Buttons, check boxes and text fields: one line high; focus, and what is disabled, visible as colour and as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input

#: What the button for it says, while secrets are hidden and while they are shown.
SHOW, _HIDE = "Show secrets", "Hide secrets"
#: Cells of the line that an empty field shows.
_EMPTY = 24
#: Before what keys go to.
FOCUS = ">"


def gets_keys(widget: Widget) -> bool:
    """Whether keys go to it now: a dialog leaves the focus of the screen below where it is."""
    return widget.has_focus and widget.app.screen is widget.screen


class Action(Widget, can_focus=True):
    """A button: ``[ Continue ]``, and ``[>Continue<]`` when Enter would press it."""

    BINDINGS = [
        Binding("enter,space", "press", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]
    label = reactive("", layout=True)

    class Pressed(Message):
        """The button was pressed; ``action`` is its id."""

        def __init__(self, button: Action) -> None:
            super().__init__()
            self.button = button
            self.action = button.id or ""

    def __init__(self, label: str, *, id: str, disabled: bool = False) -> None:
        super().__init__(id=id, disabled=disabled)
        self.set_reactive(Action.label, label)

    def get_content_width(self, *_: object) -> int:
        """The label and its brackets."""
        return len(self.label) + 4

    def render(self) -> Text:
        """The label, marked when focused, in parentheses when it cannot be pressed."""
        if self.disabled:
            return Text(f"( {self.label} )")
        return Text(f"[{FOCUS}{self.label}<]" if gets_keys(self) else f"[ {self.label} ]")

    def action_press(self) -> None:
        """Tell the screen."""
        self.post_message(self.Pressed(self))


class Toggle(Widget, can_focus=True):
    """A check box: `` [x] DHCP``; Enter and Space change it, Tab and the arrows go on."""

    BINDINGS = [
        Binding("enter,space", "switch", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]
    value = reactive(False)

    class Changed(Message):
        """The box was checked or cleared by the operator."""

        def __init__(self, toggle: Toggle) -> None:
            super().__init__()
            self.toggle = toggle

    def __init__(self, label: str, value: bool, *, id: str) -> None:
        super().__init__(id=id)
        self.label = label
        self.set_reactive(Toggle.value, value)

    def get_content_width(self, *_: object) -> int:
        """Marker, box and label."""
        return len(self.label) + 5

    def render(self) -> Text:
        """The box and its label."""
        return Text(f"{FOCUS if gets_keys(self) else ' '}[{'x' if self.value else ' '}] {self.label}")

    def action_switch(self) -> None:
        """Change it and tell the screen."""
        self.value = not self.value
        self.post_message(self.Changed(self))


class Field(Input):
    """A text field of one line. Enter goes on to the next field; the screen decides what the last one does."""

    EDITING: ClassVar[dict[str, str]] = {
        "backspace": "delete_left",
        "delete": "delete_right",
        "left": "cursor_left",
        "right": "cursor_right",
        "home": "home",
        "end": "end",
        "ctrl+a": "home",
        "ctrl+e": "end",
        "ctrl+u": "delete_left_all",
        "ctrl+k": "delete_right_all",
        "ctrl+w": "delete_left_word",
    }
    cursor_blink = reactive(False, init=False)

    def __init__(self, value: str = "", *, id: str, password: bool = False, placeholder: str = "") -> None:
        # An empty field must be seen, and a colour VT shows its underline as a colour only.
        shown = placeholder or "_" * _EMPTY
        super().__init__(value, id=id, password=password, placeholder=shown, compact=True, select_on_focus=False)
        self.secret = password

    def on_key(self, event: events.Key) -> None:
        """Editing keys act here and now, in order with the characters around them (see ``ConsoleApp.on_event``)."""
        action = self.EDITING.get(event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            getattr(self, f"action_{action}")()


class FieldLabel(Widget):
    """What a field is for: ``> User`` when typing goes there, ``(User)`` when nothing can be typed there."""

    def __init__(self, text: str, field: Field) -> None:
        super().__init__(classes="label")
        self._text = text
        self._field = field

    def on_mount(self) -> None:
        """Follow the field."""
        for attribute in ("disabled", "has_focus"):
            self.watch(self._field, attribute, self._draw, init=False)

    def _draw(self) -> None:
        self.refresh()

    def render(self) -> Text:
        """Marks and text."""
        if self._field.disabled:
            return Text(f" ({self._text})")
        return Text(f"{FOCUS if gets_keys(self._field) else ' '} {self._text}")


class Row(Horizontal):
    """A labelled field on one line."""

    def __init__(self, label: str, field: Field, *, gap: bool = False) -> None:
        super().__init__(classes="row gap" if gap else "row")
        self._label = label
        self._field = field

    def compose(self) -> ComposeResult:
        """Label and field."""
        yield FieldLabel(self._label, self._field)
        yield self._field


def switch_secrets(fields: Iterable[Field], button: Action) -> None:
    """Show what is typed in fields of secrets, or hide it again; ``button`` says which one it would do."""
    button.label, hidden = (_HIDE, False) if button.label == SHOW else (SHOW, True)
    for field in fields:
        if field.secret:
            field.password = hidden
