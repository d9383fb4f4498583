"""What is read, not operated: lines of text, a scrolling pane, a progress bar."""

from __future__ import annotations

from rich.text import Text
from textual.containers import VerticalScroll
from textual.message import Message
from textual.reactive import reactive
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Static

from recovery.tui.glyphs import EMPTY, FULL


class Lines(Static):
    """Text as it is: brackets in a disk's name are not markup."""

    def __init__(self, text: str | Text = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(text, id=id, classes=classes, markup=False)
        self._shown: VisualType = text

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show other text. The same again costs nothing, and as many lines as before no new layout of the screen."""
        before, self._shown = self._shown, content
        if content == before:
            return
        height = self._height_of(content)
        super().update(content, layout=layout and (not height or height != self._height_of(before)))

    def _height_of(self, content: VisualType) -> int:
        """Lines that the text takes; 0 when that is not known, or when there is none."""
        width = self.size.width
        text = content.plain if isinstance(content, Text) else content
        if not isinstance(text, str) or not width or any(len(line) > width for line in text.split("\n")):
            return 0
        return text.count("\n") + 1 if text else 0


class Notice(Lines):
    """Lines that are there only now and then: without a row of their own while there is nothing to say."""

    def __init__(self, text: str = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(text, id=id, classes=classes)
        self.display = bool(text)

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show other text, or nothing."""
        self.display = bool(content)
        super().update(content, layout=layout)


class Pane(VerticalScroll, can_focus=False):
    """A part that may be longer than the screen; PgUp and PgDn scroll it wherever the focus is."""

    class Moved(Message):
        """Other lines of it are in sight, or it has become longer or shorter."""

    @property
    def below(self) -> int:
        """Lines that are out of sight at its end."""
        return max(0, int(self.max_scroll_y) - round(self.scroll_y))

    def on_mount(self) -> None:
        """Its scroll bar is a colour only: the screen says in words that there is more."""
        self.watch(self, "scroll_y", self._moved, init=False)
        self.watch(self, "virtual_size", self._moved, init=False)

    def on_resize(self) -> None:
        """The screen has another size."""
        self._moved()

    def _moved(self) -> None:
        self.post_message(self.Moved())


class Bar(Widget):
    """A progress bar of whole cells with its percentage: ``████░░░░  50 %``. ``fraction`` None: not known yet."""

    fraction: reactive[float | None] = reactive(None)

    def render(self) -> Text:
        """As wide as there is room."""
        cells = max(4, self.size.width - 6)
        fraction = min(1.0, max(0.0, self.fraction or 0.0))
        full = int(cells * fraction)
        percent = " " * 5 if self.fraction is None else f"{int(fraction * 100):3d} %"
        return Text(FULL * full + EMPTY * (cells - full) + " " + percent)
