"""Colours and drawing of the real console: sixteen ANSI colours, no half blocks, nothing a 512-glyph font lacks.

A VGA text console with a 512-glyph font has eight foreground colours only (the ninth bit chooses the glyph), so no
meaning hangs on a bright colour; a monochrome serial terminal has none, so focus is also a ``>`` in the text.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.theme import Theme

from recovery.tui.glyphs import CHARSETS, drawable

#: The colours Textual's own style sheets ask for; everything of ours is in ``console.tcss``.
CONSOLE_THEME = Theme(
    name="console",
    ansi=True,
    dark=True,
    primary="ansi_cyan",
    secondary="ansi_blue",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    accent="ansi_cyan",
    foreground="ansi_white",
    background="ansi_black",
    surface="ansi_black",
    panel="ansi_black",
    boost="ansi_black",
    variables={
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "border": "ansi_white",
        "border-blurred": "ansi_white",
        "block-cursor-foreground": "ansi_black",
        "block-cursor-background": "ansi_cyan",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-foreground": "ansi_cyan",
        "block-cursor-blurred-background": "ansi_black",
        "block-cursor-blurred-text-style": "none",
        "block-hover-background": "ansi_black",
        "input-cursor-background": "ansi_white",
        "input-cursor-foreground": "ansi_black",
        "input-cursor-text-style": "none",
        "input-selection-background": "ansi_cyan",
        "input-selection-foreground": "ansi_black",
        "scrollbar": "ansi_white",
        "scrollbar-hover": "ansi_white",
        "scrollbar-active": "ansi_white",
        "scrollbar-background": "ansi_black",
        "scrollbar-background-hover": "ansi_black",
        "scrollbar-background-active": "ansi_black",
        "scrollbar-corner-color": "ansi_black",
    },
)


class ConsoleScrollBar(ScrollBarRender):
    """A scrollbar of whole cells: Textual's eighths of a block are not in a console font."""

    VERTICAL_BARS = [" "] * 8
    HORIZONTAL_BARS = [" "] * 8


class GlyphFilter(LineFilter):
    """The last thing before the terminal: a character the font lacks (in a label or VM name) becomes ``?``.

    ``charset`` is one of ``CHARSETS``; F9 changes it while the console runs.
    """

    def __init__(self, charset: str = "full") -> None:
        super().__init__()
        self.charset = charset

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments with drawable text; cell widths stay (a wide character becomes two signs)."""
        table = CHARSETS[self.charset]
        return [
            segment
            if segment.text.isascii()
            else Segment(fit(segment.text, segment.cell_length).translate(table), segment.style, segment.control)
            for segment in segments
        ]


def fit(text: str, cells: int) -> str:
    """``drawable(text)``, exactly ``cells`` long: a wide character becomes two signs, a combining one none."""
    shown = "".join(drawable(character) * cell_len(character) for character in text)
    return shown[:cells].ljust(cells)


def install() -> None:
    """Make Textual draw scrollbars the console's way (it keeps the renderer on the class)."""
    ScrollBar.renderer = ConsoleScrollBar
