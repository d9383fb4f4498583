"""Text from hosts and strangers stays text on the terminal."""

from __future__ import annotations

import pytest
from rich.table import Table

from recovery.cli.console import PlainConsole, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1 (Größe) 東京", "web-1 (Größe) 東京"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\u202eb\x9b", "a\\u202eb\\x9b"),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_neither_markup_nor_control_characters_in_lines_and_cells(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "[/upgrade] [bold]x :smile: \x1b[2J"
    table = Table("note", title=nasty)
    table.add_row(nasty)
    console = PlainConsole()
    console.print(nasty)
    console.print(table)
    shown = capsys.readouterr().out
    assert shown.count("[/upgrade] [bold]x :smile: \\x1b[2J") == 3
    assert "\x1b[2J" not in shown
