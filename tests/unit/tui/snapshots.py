"""Screens as text that is kept: in the characters that each kind of terminal gets, and with their colours.

``snapshots/<size>/<name>.txt`` holds a screen in full characters and below it, cell by cell, a letter for its
colours; ``snapshots/<size>-basic`` and ``-ascii`` the same in what CP437 and ASCII have, without colours.
``REKINDLE_UPDATE_SNAPSHOTS=1`` writes them anew; look at the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path

from rich.color import Color
from rich.style import Style

from recovery.tui.glyphs import CHARSETS
from tests.unit.tui.console import Console

FOLDER = Path(__file__).parent / "snapshots"
UPDATE = bool(os.environ.get("REKINDLE_UPDATE_SNAPSHOTS"))
#: What depends on the machine's pace: the log's clock, the rate and its graph, how long it has taken.
_CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")
_PACE = re.compile(r"^ (Rate|most) .*$", re.MULTILINE)
_TOOK = re.compile(r"running, \d:\d\d")
_ANSI = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def file_of(name: str, folder: str) -> Path:
    """Where the snapshot of screen ``name`` lies."""
    return FOLDER / folder / f"{re.sub(r'[^a-z]+', '-', name.lower()).strip('-')}.txt"


def steady(text: str) -> str:
    """The text without what is never the same twice."""
    text = _PACE.sub(r" \1", _CLOCK.sub("00:00:00", text))
    return _TOOK.sub("running, 0:00", text) + "\n"


def in_characters(c: Console, charset: str) -> str:
    """The screen's text in a set of ``CHARSETS``; the console is left as it was."""
    before = c.app.glyph_filter.charset
    try:
        c.app.glyph_filter.charset = charset
        _forget(c)
        return steady(c.text)
    finally:
        c.app.glyph_filter.charset = before
        _forget(c)


def _forget(c: Console) -> None:
    for shown in c.app.screen_stack:
        for widget in (shown, *shown.query("*")):
            widget._styles_cache.clear()  # filtered lines are kept there


def colours(c: Console) -> str:
    """A letter for the colours of each cell, a row a line, and what the letters mean. What is plain is a dot."""
    rows: list[str] = [""]
    legend: dict[str, str] = {"white on black": "."}
    for segment in c.segments():
        if segment.control:
            continue
        style = _described(segment.style)
        letter = legend.setdefault(style, _LETTERS[len(legend) - 1])
        for number, part in enumerate(segment.text.split("\n")):
            if number:
                rows.append("")
            rows[-1] += letter * len(part)
    lines = [line.rstrip(".") for line in rows[: c.app.size.height]]
    text = c.text.split("\n")
    lines = ["" if number < len(text) and _PACE.match(text[number]) else line for number, line in enumerate(lines)]
    used = set("".join(lines))
    told = [f"{letter} {style}" for style, letter in sorted(legend.items()) if letter in used]
    return "\n".join([*lines, "", *told]) + "\n"


def _described(style: Style | None) -> str:
    if style is None:
        return "white on black"
    front, back = _name(style.color, "white"), _name(style.bgcolor, "black")
    words = [word for word in ("bold", "underline", "reverse") if getattr(style, word)]
    return " ".join([*words, front, "on", back])


def _name(colour: Color | None, otherwise: str) -> str:
    if colour is None or colour.is_default:
        return otherwise
    return _ANSI[colour.number] if colour.number is not None and colour.number < len(_ANSI) else colour.name


async def check(c: Console, name: str) -> None:
    """The same as last time, in all sets of characters and in colours. A busy machine may still be drawing, so it is
    given a while to come to that. AssertionError tells the file and how to write it anew."""
    size = f"{c.app.size.width}x{c.app.size.height}"
    whole = file_of(name, size)
    if UPDATE:
        await asyncio.sleep(1)
        _write(whole, f"{in_characters(c, 'full')}\n{colours(c)}")
    assert whole.is_file(), f"no snapshot {whole}; make it with REKINDLE_UPDATE_SNAPSHOTS=1"
    wanted = whole.read_text()
    with contextlib.suppress(AssertionError):
        await c.until(lambda: steady(c.text) + "\n" + colours(c) == wanted, name)
    assert steady(c.text) + "\n" + colours(c) == wanted, f"{whole} is another; REKINDLE_UPDATE_SNAPSHOTS=1 if meant"
    for charset in [name for name in CHARSETS if name != "full"]:
        path = file_of(name, f"{size}-{charset}")
        if UPDATE:
            _write(path, in_characters(c, charset))
        assert in_characters(c, charset) == path.read_text(), (
            f"{path} is another; REKINDLE_UPDATE_SNAPSHOTS=1 if meant"
        )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
