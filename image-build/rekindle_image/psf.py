"""Console fonts in the PSF formats: read the glyphs of Debian's, compose our own of 512. Pure.

Blocks (bars, graphs, QR codes) are drawn by rule, so that they fill their cells exactly whatever font the rest is of.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_PSF2_MAGIC = b"\x72\xb5\x4a\x86"
_PSF1_MAGIC = b"\x36\x04"
#: The console of Linux holds 256 or 512 glyphs.
GLYPH_COUNT = 512
#: Its glyph for what it lacks is the one of this character where the font has it, else the first.
REPLACEMENT = "\ufffd"
#: Characters that reach the right edge of their cell, where the next one goes on. VGA's text mode has cells 9 pixels
#: wide, and repeats the eighth pixel in the ninth for the glyphs 0xC0 to 0xDF of each 256 only: there they stand.
JOINED = "─┌└├┬┴┼═╔╚╠╦╩╬█▓▒░▀▄▐▁▂▃▅▆▇"
_JOINING_SLOTS = (*range(0xC0, 0xE0), *range(0x1C0, 0x1E0))


@dataclass(frozen=True)
class Font:
    """Glyphs of 8 pixels' width: each ``height`` bytes, a row a byte, the leftmost pixel the highest bit."""

    height: int
    glyphs: Mapping[str, bytes]


def read_psf(data: bytes) -> Font:
    """The characters and glyphs of a PSF1 or PSF2 font that is 8 pixels wide. Raises ValueError for anything else."""
    try:
        if data[:4] == _PSF2_MAGIC:
            _, _, header, flags, count, size, height, width = struct.unpack_from("<8I", data)
            if width != 8 or not height or size != height or not flags & 1:
                raise ValueError("not 8 pixels wide, or without a table of characters")
            table = data[header + count * size :].split(b"\xff")[:count]
            if len(data) < header + count * size or len(table) < count:
                raise ValueError("a truncated PSF font")
            names = [entry.split(b"\xfe")[0].decode() for entry in table]
            return Font(height, _by_character(names, data[header:], size))
        if data[:2] == _PSF1_MAGIC and data[2] & 2:
            count, size = 512 if data[2] & 1 else 256, data[3]
            if not size or len(data) < 4 + count * size:
                raise ValueError("a truncated PSF font")
            names, name, sequence = [], "", False
            for (unit,) in struct.iter_unpack("<H", data[4 + count * size :]):
                if unit == 0xFFFF:
                    names.append(name)
                    name, sequence = "", False
                elif unit == 0xFFFE:
                    sequence = True
                elif not sequence:
                    name += chr(unit)
            return Font(size, _by_character(names[:count], data[4:], size))
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"a damaged PSF font: {error}") from error
    raise ValueError("not a PSF font with a table of characters")


def _by_character(names: Sequence[str], bitmaps: bytes, size: int) -> dict[str, bytes]:
    return {c: bitmaps[i * size : (i + 1) * size] for i, name in enumerate(names) for c in name}


def draw_blocks(height: int) -> dict[str, bytes]:
    """Block elements (U+2581 to U+2590) of 8 x ``height`` pixels, each a row a byte, without the shades.

    ``\u2585`` (five eighths) of 16 rows is 10 full rows at the bottom.
    """
    found = {chr(0x2580 + n): _lower(height * n // 8, height) for n in range(1, 9)}
    half = height - height * 4 // 8  # the upper half begins where the lower one ends
    found["\u2580"] = b"\xff" * half + bytes(height - half)
    for n in range(1, 8):  # from seven eighths (U+2589) to one (U+258F), from the left
        found[chr(0x2588 + 8 - n)] = bytes([0xFF << (8 - n) & 0xFF]) * height
    found["\u2590"] = b"\x0f" * height
    return found


#: Marks that Debian's console fonts give the glyph of another character (► is → there, ● is •), on 16 rows of 8
#: pixels: the first row and the bytes from there.
_MARKS = {
    "\u25ba": (4, "406070787c787060 40"),  # ► pointer to the right
    "\u25c4": (4, "02060e1e3e1e0e06 02"),  # ◄ to the left
    "\u25b2": (5, "10103838 7c7cfe"),  # ▲ up
    "\u25bc": (5, "fe7c7c38 381010"),  # ▼ down
    "\u25cf": (5, "387cfefe fe7c38"),  # ● disc
    "\u25cb": (5, "38448282 824438"),  # ○ ring
    "\u221a": (3, "02020404 08884850 3020"),  # √ tick
}


def draw_marks(height: int) -> dict[str, bytes]:
    """Pointers, disc, ring and tick, each unlike all others; none for fonts of another height than 16."""
    if height != 16:
        return {}
    drawn = {c: (first, bytes.fromhex(rows)) for c, (first, rows) in _MARKS.items()}
    return {c: bytes(first) + rows + bytes(height - first - len(rows)) for c, (first, rows) in drawn.items()}


def _lower(rows: int, height: int) -> bytes:
    return bytes(height - rows) + b"\xff" * rows


def compose(characters: Iterable[str], fonts: Iterable[Font]) -> tuple[Font, str]:
    """A font with these characters, and the characters that it lacks: blocks and marks are drawn, the others each come
    from the first of ``fonts`` that has it."""
    available: dict[str, bytes] = {}
    heights = set()
    for font in fonts:
        heights.add(font.height)
        for character, glyph in font.glyphs.items():
            available.setdefault(character, glyph)
    if len(heights) != 1:
        raise ValueError(f"fonts of different heights: {sorted(heights)}")
    available.update(draw_blocks(min(heights)) | draw_marks(min(heights)))
    wanted = dict.fromkeys(characters)
    missing = "".join(c for c in wanted if c not in available)
    return Font(heights.pop(), {c: available[c] for c in wanted if c in available}), missing


def write_psf2(font: Font, count: int = GLYPH_COUNT) -> bytes:
    """The font as PSF2 with exactly ``count`` glyphs, alike ones stored once. Raises ValueError when they do not fit.

    ASCII keeps its numbers: text that is on the screen when the font is loaded stays readable, and the kernel erases
    with glyph 32. ``JOINED`` characters stand where VGA joins them. Glyph 0, shown for what is missing, is the
    replacement character's or a question mark.
    """
    slots: dict[bytes, list[str]] = {}
    for character, glyph in font.glyphs.items():
        slots.setdefault(glyph, []).append(character)
    if len(slots) > count - 96:  # glyph 0 and ASCII have their fixed places
        raise ValueError(f"{len(slots)} different glyphs do not fit a font of {count} beside ASCII")
    blank = font.glyphs.get(" ", bytes(font.height))
    unknown = font.glyphs.get(REPLACEMENT, font.glyphs.get("?", blank))
    order: list[bytes | None] = [None] * count
    order[0] = unknown
    for code in range(0x20, 0x7F):
        order[code] = font.glyphs.get(chr(code), blank)
    joining = [font.glyphs[c] for c in JOINED if c in font.glyphs]
    for place, glyph in zip(_JOINING_SLOTS, dict.fromkeys(joining), strict=False):
        if place < count:
            order[place] = glyph
    placed = set(order)
    free = (i for i in range(count) if order[i] is None)
    for glyph in slots:
        if glyph not in placed:
            order[next(free)] = glyph
    bitmaps, table = [], []
    for place in order:
        bitmaps.append(bytes(font.height) if place is None else place)
        # A glyph that stands in two places has its characters at the first.
        names = slots.pop(place, []) if place is not None else []
        table.append("".join(names).encode() + b"\xff")
    header = struct.pack("<8I", 0x864AB572, 0, 32, 1, count, font.height, font.height, 8)
    return header + b"".join(bitmaps) + b"".join(table)
