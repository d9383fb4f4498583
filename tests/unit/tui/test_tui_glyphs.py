"""Every character that the console can draw is in the console's font, and has a stand-in where a terminal lacks it.

``tests/support/console.psf`` is the medium's font as the image builder composes it (``scripts/pictures --font``);
the builder refuses by itself when Debian's fonts lack a glyph.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from rekindle_image.code import console_characters
from rekindle_image.psf import read_psf
from textual._border import BORDER_CHARS

import recovery.tui
from recovery.tui.glyphs import CHARSETS, DRAWABLE, EMPTY, FULL, GLYPHS, LEVELS
from recovery.tui.terminal import charset
from tests.e2e.lab.screen import load_psf
from tests.unit.tui.console import console, run
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, USED

HERE = Path(recovery.tui.__file__).parent
FONT = Path(__file__).parents[2] / "support/console.psf"
#: Code page 437: what ASCII, its upper half and its lowest 31 codes show.
CP437 = {bytes([code]).decode("cp437") for code in range(32, 256)} | set("☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼")


def test_the_font_has_every_glyph_that_may_be_drawn() -> None:
    font = read_psf(FONT.read_bytes())
    missing = DRAWABLE - set(font.glyphs)
    assert not missing, f"scripts/pictures --font composes the font anew: {sorted(missing)}"
    assert set(console_characters()) - {"\u00a0"} == DRAWABLE  # what the image builder puts in
    blank = bytes(font.height)
    assert [c for c in DRAWABLE if font.glyphs[c] == blank] == [" "]
    assert font.glyphs[FULL] == b"\xff" * font.height
    # What carries meaning is unlike everything else: not the glyph of a likeness, as in Debian's fonts.
    for mark in "√►◄○●×•←→↑↓▲▼█▓▒░▀▄■" + LEVELS[1:]:
        same = [c for c in DRAWABLE if font.glyphs[c] == font.glyphs[mark]]
        assert same == [mark], same
    # The reader of the end-to-end test knows them too.
    assert set(load_psf(FONT).glyphs.values()) >= set(FULL + EMPTY + LEVELS[1:] + "─│√")


def test_no_text_of_the_console_has_another_glyph() -> None:
    found: dict[str, str] = {}
    for file in HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= dict.fromkeys(set(node.value) - DRAWABLE - {"\n", "\t", "\x1b"}, f"{file.name}:{node.lineno}")
    assert not found


def test_borders_of_the_widgets_are_in_the_font() -> None:
    styles = set(re.findall(r"border(?:-\w+)?:\s*(\w+)", (HERE / "console.tcss").read_text())) - {"none"}
    assert styles
    for style in styles:
        assert set("".join(map("".join, BORDER_CHARS[style]))) <= DRAWABLE, style


def test_stand_ins_are_as_wide_and_drawable() -> None:
    for name, table in CHARSETS.items():
        shown = {c: c.translate(dict(table)) for c in GLYPHS}
        assert all(len(text) == 1 for text in shown.values()), name
        assert set(shown.values()) <= DRAWABLE
    assert all(c.translate(dict(CHARSETS["ascii"])).isascii() for c in GLYPHS)
    assert all(c.translate(dict(CHARSETS["basic"])) in CP437 for c in GLYPHS)
    # What carries meaning stays different: done, running, waiting, failed; a full bar and an empty one.
    for name in ("basic", "ascii"):
        for marks in ("√►○×", FULL + EMPTY, "←→", "┌│─"):
            assert len(set(marks.translate(dict(CHARSETS[name])))) == len(marks), (name, marks)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "linux", "LANG": "C.UTF-8"}, "full"),
        ({"TERM": "linux"}, "full"),
        ({"TERM": "linux", "LANG": "C.UTF-8", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "basic"),
        ({"TERM": "vt220", "LANG": "C.UTF-8"}, "basic"),
        ({"TERM": "xterm-256color", "LANG": "en_US.utf8", "SSH_CONNECTION": "x"}, "full"),
        ({"TERM": "xterm", "LANG": "de_DE.ISO-8859-1"}, "ascii"),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "LC_ALL": "C"}, "ascii"),
        ({"TERM": "linux", "LANG": "C.UTF-8", "REKINDLE_CHARSET": "ascii"}, "ascii"),
        ({"TERM": "linux", "LANG": "C.UTF-8", "REKINDLE_CHARSET": "nonsense"}, "full"),
    ],
)
def test_the_terminal_says_what_it_can_draw(environment: dict[str, str], expected: str) -> None:
    assert charset(environment) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("name", "allowed"), [("ascii", set(map(chr, range(32, 127)))), ("basic", CP437)])
def test_every_screen_in_other_characters(name: str, allowed: set[str]) -> None:
    async def test() -> None:
        engine = FakeEngine(disks=2)
        async with console(engine, task="") as c:
            presses = ["f9"] * list(CHARSETS).index(name)
            await c.press(*presses)
            seen: list[str] = []

            async def look(screen: str) -> None:
                await c.until(
                    lambda: f"Rekindle {'·'.translate(dict(CHARSETS[name]))} {screen}" in c.lines()[0], screen
                )
                await c.until(lambda: not getattr(c.app.screen, "busy", False), f"{screen} at rest")
                seen.append(screen)
                strange = set("".join(c.lines())) - allowed
                assert not strange, f"{screen}: {strange}"

            await look("Task")
            await c.press("enter")
            await look("Network")
            await c.press("enter")
            await c.shows("[>Continue<]")
            await c.press("enter")
            await look("Repository")
            await c.type("restore")
            await c.press("enter")
            await c.type("wool-gate")
            await c.press("enter", "enter")
            await c.type("correct horse battery")
            await c.press("enter")
            for screen in ("Host", "Point", "Target disks"):
                await look(screen)
                await c.press("enter")
            await look("Plan")
            await c.shows("Nothing was written yet")
            await c.press("enter")
            await look("Confirm")
            for disk in (BLANK, USED):
                await c.type(disk.serial)
                await c.press("enter")
            engine.hold.clear()
            await c.press("left", "enter")
            await look("Restore")
            await c.shows("40 %")
            await look("Restore")
            engine.hold.set()
            await look("Result")
            assert len(set(seen)) == 10

    run(test)
