"""Every character the console may draw. The image builder makes the console font from ``GLYPHS``.

The Linux console has 512 glyphs at most, a serial terminal maybe only a DEC or CP437 font. So the console keeps to
ASCII, Latin-1 and a few drawing characters; anything else (a VM named in Cyrillic) is shown as ``?`` by ``drawable``
instead of as a random shape. Terminals that lack the drawing characters get others of the same width: ``CHARSETS``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

#: Latin-1 letters and signs, without the no-break space and the soft hyphen, which are not drawn.
LATIN_1 = "".join(chr(code) for code in range(0xA1, 0x100) if code != 0xAD)
#: Lines and corners, single and double.
BOX = "─│┌┐└┘├┤┬┴┼═║╔╗╚╝╠╣╦╩╬"
#: Bars and shades.
BLOCKS = "█▓▒░▀▄▌▐■"
#: Eighths of a block from below, for graphs; a whole and a half are in ``BLOCKS``.
EIGHTHS = "▁▂▃▅▆▇"
#: Arrows, pointers and marks.
MARKS = "←↑→↓►◄▲▼●○•√×÷"
#: Punctuation that texts and Textual's truncation use.
PUNCTUATION = "–—‘’“”…€"

#: All characters beyond ASCII that may be drawn; no duplicates, in this order.
GLYPHS = "".join(dict.fromkeys(LATIN_1 + BOX + BLOCKS + EIGHTHS + MARKS + PUNCTUATION))

ASCII = "".join(chr(code) for code in range(0x20, 0x7F))
DRAWABLE = frozenset(ASCII + GLYPHS)

#: Marks with a meaning, so that it is the same everywhere.
DONE = "√"
RUNNING = "►"
WAITING = "○"
FAILED = "×"
FULL = "█"
#: A bar inside a row of a list: on a highlighted row a whole block would look like a hole in it.
AMOUNT = "■"
EMPTY = "░"


#: Bars of a graph from nothing to full, in eighths.
LEVELS = " ▁▂▃▄▅▆▇█"


def _ascii() -> dict[str, str]:
    """One ASCII character for each of ``GLYPHS``: é is e, ─ is -, and what has no likeness ``?``."""
    found = {c: base for c in LATIN_1 if (base := unicodedata.normalize("NFKD", c)[0]).isascii() and base > " "}
    found |= dict.fromkeys("┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬", "+") | dict.fromkeys("─", "-") | dict.fromkeys("│║", "|")
    found |= {"═": "="} | dict.fromkeys("█▓▀▌▐■▅▆▇▄", "#") | {"▒": ":", "░": "."} | dict.fromkeys("▁▂", ".")
    found |= {"▃": ":", "←": "<", "↑": "^", "→": ">", "↓": "v", "►": ">", "◄": "<", "▲": "^", "▼": "v"}
    found |= {"●": "*", "○": "o", "•": "*", "√": "+", "×": "x", "÷": "/", "·": ".", "…": "~", "€": "E"}
    found |= {"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "°": "o", "±": "+", "«": "<", "»": ">"}
    return {c: found.get(c, "?") for c in GLYPHS}


#: What code page 437 has where ASCII has control characters, as far as it is drawn here.
_CP437_LOW = "•○►◄¶§↑↓→←▲▼"


def _basic() -> dict[str, str]:
    """What fonts of CP437's repertoire lack: eighths become halves or nothing, the rest what it is in ASCII."""
    eighths = dict(zip("▁▂▃▅▆▇", "  ▄▄██", strict=True))
    known = {c for c in GLYPHS if c in _CP437_LOW or c.encode("cp437", "ignore")}
    return {c: eighths.get(c, replacement) for c, replacement in _ascii().items() if c not in known}


#: What a terminal can draw -> what is drawn instead of what it cannot. ``full``: the console font, terminal emulators;
#: ``basic``: fonts of CP437's repertoire; ``ascii``: nothing beyond ASCII.
CHARSETS: Mapping[str, Mapping[int, str]] = {
    "full": {},
    "basic": str.maketrans(_basic()),
    "ascii": str.maketrans(_ascii()),
}


def drawable(text: str) -> str:
    """``text`` with each character that the console font lacks replaced by ``?``. The length does not change."""
    if text.isascii():
        return text
    return "".join(character if character in DRAWABLE or character in "\n\t" else "?" for character in text)
