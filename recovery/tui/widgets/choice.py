"""A list to choose from: arrows move, Enter chooses.

``>`` marks the row that Enter would choose now, ``·`` the current row of a list that keys do not go to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from recovery.tui.widgets.controls import FOCUS, gets_keys

#: The id of a row that is a heading: it is shown and never highlighted.
HEADING = ""
#: Before the current row of a list without focus. ``-`` and ``*`` say in several lists what can be and was chosen.
CURRENT = "·"


class ChoiceList(ScrollView, can_focus=True):
    """Rows of one line. Only the lines in sight are drawn, so ten thousand rows are as quick as ten.

    ↑ ↓ leave the list at its ends; what is too long for the line ends in ``…``.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"choice--highlighted", "choice--heading"}
    BINDINGS = [
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home", "end(0)", show=False),
        Binding("end", "end(1)", show=False),
        Binding("enter,space", "choose", show=False),
    ]
    highlighted: reactive[int | None] = reactive(None)

    class Highlighted(Message):
        """Another row, or another text of the same row, is highlighted."""

        def __init__(self, choice: ChoiceList) -> None:
            super().__init__()
            self.choice = choice

    class Chosen(Message):
        """Enter was pressed on the highlighted row."""

        def __init__(self, choice: ChoiceList) -> None:
            super().__init__()
            self.choice = choice

    def __init__(self, *, id: str, text_of: Callable[[str], str] | None = None) -> None:
        """``text_of`` gives the text of a row whose own is empty, when it comes into sight."""
        super().__init__(id=id)
        self._rows: list[tuple[str, str]] = []
        self._text_of = text_of

    @property
    def selected(self) -> str:
        """The id of the highlighted row, or empty."""
        index = self.highlighted
        return self._rows[index][0] if index is not None and index < len(self._rows) else ""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The ``(id, text)`` rows shown."""
        return list(self._rows)

    @property
    def in_sight(self) -> list[str]:
        """The ids of the rows that are on the screen now."""
        top = int(self.scroll_offset.y)
        return [id for id, _ in self._rows[top : top + max(1, self.size.height)] if id != HEADING]

    def set_rows(self, rows: Sequence[tuple[str, str]], highlight: str = "") -> None:
        """Show ``(id, text)`` rows; the highlight stays on the row with the id it was on, or goes to ``highlight``."""
        keep = highlight or self.selected
        same = len(rows) == len(self._rows)
        self._rows = list(rows)
        ids = [id for id, _ in rows]
        choosable = [index for index, id in enumerate(ids) if id != HEADING]
        target = ids.index(keep) if keep and keep in ids else choosable[0] if choosable else None
        self.virtual_size = Size(0, len(rows))
        if target != self.highlighted:
            self.highlighted = target
        elif not same or self.is_mounted:
            self.post_message(self.Highlighted(self))
        self.refresh(layout=not same)
        if not same:
            self.call_after_refresh(self._show_highlighted)

    def highlight(self, id: str) -> None:
        """Move to the row of this id, if there is one."""
        for index, (other, _) in enumerate(self._rows):
            if other == id and id != HEADING:
                self.highlighted = index
                return

    def watch_highlighted(self, before: int | None, now: int | None) -> None:
        """Move the mark, keep it in sight, tell the screen."""
        self.refresh()
        self._show_highlighted()
        self.post_message(self.Highlighted(self))

    def _show_highlighted(self) -> None:
        index = self.highlighted
        if index is None or not self.size.height:
            return
        # The heading above the first row of a group comes into sight with it.
        top = index
        while top > 0 and self._rows[top - 1][0] == HEADING and index - top < self.size.height - 2:
            top -= 1
        region = Region(0, top, max(1, self.size.width), index - top + 1)
        self.scroll_to_region(region, animate=False, force=True, immediate=True)

    def on_resize(self) -> None:
        """Another size: the highlighted row stays in sight."""
        self._show_highlighted()

    def render_line(self, y: int) -> Strip:
        """One row, as wide as the list."""
        index = y + int(self.scroll_offset.y)
        width = self.scrollable_content_region.width
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        id, text = self._rows[index]
        style = self.rich_style
        if id == HEADING:
            style += self.get_component_rich_style("choice--heading", partial=True)
            line = text
        else:
            here = index == self.highlighted
            text = text or (self._text_of(id) if self._text_of else "")
            if here:
                style += self.get_component_rich_style("choice--highlighted", partial=True)
            mark = " " if not here else FOCUS if gets_keys(self) else CURRENT
            line = f"{mark} {text}"
        if len(line) > width > 3 and id != HEADING:
            line = line[: width - 1] + "…"
        return Strip([Segment(set_cell_size(line, width), style)], width)

    # --- keys -------------------------------------------------------------------------------------------------

    def _next(self, index: int, direction: int) -> int | None:
        index += direction
        while 0 <= index < len(self._rows):
            if self._rows[index][0] != HEADING:
                return index
            index += direction
        return None

    def action_move(self, direction: int) -> None:
        """A row down or up; beyond the last or first one on to the widget there."""
        found = self._next(self.highlighted, direction) if self.highlighted is not None else None
        if found is not None:
            self.highlighted = found
        elif direction > 0:
            self.app.action_focus_next()
        else:
            self.app.action_focus_previous()

    def action_page(self, direction: int) -> None:
        """As many rows as are in sight."""
        if self.highlighted is None:
            return
        wanted = self.highlighted + direction * max(1, self.size.height - 1)
        wanted = max(0, min(len(self._rows) - 1, wanted))
        near = self._next(wanted - direction, direction)
        self.highlighted = near if near is not None else self._next(wanted + direction, -direction)

    def action_end(self, last: int) -> None:
        """To the first or the last row."""
        self.highlighted = self._next(len(self._rows), -1) if last else self._next(-1, 1)

    def action_choose(self) -> None:
        """Tell the screen."""
        if self.selected:
            self.post_message(self.Chosen(self))
