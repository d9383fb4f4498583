"""The QR code of a run's summary, over the whole screen so that it is as large as it can be."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from recovery.tui.qr import draw
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.dialogs import Dialog
from recovery.tui.widgets.panes import Lines

#: Lines and columns that the code does not get: the button; the text at its right where there is room.
_BUTTON_LINE = 1
_TEXT = 26


class QrDialog(Dialog):
    """Esc or Enter closes it."""

    def __init__(self, text: str) -> None:
        super().__init__("QR code", text, [("ok", "OK")])
        self._summary = text

    def compose(self) -> ComposeResult:
        """The code, the same as text beside it, the button below."""
        size = self.app.size
        # In ASCII there are no half blocks, and whole ones need twice the room.
        ascii_only = getattr(getattr(self.app, "glyph_filter", None), "charset", "full") == "ascii"
        lines = None if ascii_only else draw(self._summary, size.width - _TEXT, size.height - _BUTTON_LINE)
        with Vertical(id="qr-all"):
            with Horizontal(id="qr-row"):
                if lines:
                    yield Lines(Text("\n".join(lines)), id="qr-code")
                    why = "Point a phone at it. It says:"
                else:
                    why = "This terminal cannot draw a QR code (F9 changes its characters). It would say:"
                yield Lines(f"{why}\n\n{self._summary.replace(' / ', chr(10))}", id="qr-text")
            with Horizontal(id="qr-buttons"):
                for id, label in self._choices:
                    yield Action(label, id=id)
