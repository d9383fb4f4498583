"""Reads text off screenshots of a PC's console, by comparing each character cell with the fonts a console may use.

Fonts are PSF files (what ``setfont`` loads) and the one in QEMU's VGA BIOS. Two kinds of screen are understood: VGA
text mode (720x400: cells are 9 pixels wide, the ninth being the card's) and frame buffers (cells as wide as the font).
"""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

UNKNOWN = "\ufffd"
VGA_TEXT_MODE = (720, 400)
VGA_BIOS = Path("/usr/share/seabios/vgabios-stdvga.bin")

#: The glyphs of code page 437 that stand where ASCII has control characters (1 to 31).
_CP437_LOW = "☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_PSF1_MAGIC, _PSF2_MAGIC = b"\x36\x04", b"\x72\xb5\x4a\x86"
#: How many pixels may differ (a cursor covers 16 to 24 of them).
_TOLERANCE = 24
#: Rows remembered, each with its pixels: 60 KiB on a frame buffer.
_ROWS_KEPT = 1000


@dataclass(frozen=True)
class Font:
    """A bitmap font. ``glyphs`` maps a bitmap (one byte a pixel, 0 or 1, row by row) to its character."""

    name: str
    width: int
    height: int
    glyphs: dict[bytes, str]


def load_psf(path: Path) -> Font:
    """Read a PSF 1 or 2 font, gzipped or not. Raises ValueError when it is none, or has no Unicode table."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[:4] == _PSF2_MAGIC:
        _, start, flags, count, size, height, width = struct.unpack_from("<7I", data, 4)
        characters = _psf2_characters(data[start + count * size :]) if flags & 1 else []
    elif data[:2] == _PSF1_MAGIC:
        mode, size = data[2], data[3]
        start, count, height, width = 4, 512 if mode & 1 else 256, size, 8
        characters = _psf1_characters(data[start + count * size :]) if mode & 6 else []
    else:
        raise ValueError(f"{path} is not a PSF font.")
    if not characters:
        raise ValueError(f"{path} has no Unicode table: its glyphs have no names.")
    stride = (width + 7) // 8
    bitmaps = (data[start + i * size : start + (i + 1) * size] for i in range(count))
    return Font(path.name, width, height, _by_bitmap(zip(characters, bitmaps, strict=False), width, stride, height))


def _psf2_characters(table: bytes) -> list[list[str]]:
    # Per glyph: UTF-8 characters, then 0xFE-separated sequences (not wanted), ended by 0xFF.
    return [list(entry.split(b"\xfe")[0].decode("utf-8", "replace")) for entry in table.split(b"\xff")[:-1]]


def _psf1_characters(table: bytes) -> list[list[str]]:
    entries: list[list[str]] = [[]]
    in_sequence = False
    for (code,) in struct.iter_unpack("<H", table[: len(table) // 2 * 2]):
        if code == 0xFFFF:
            entries.append([])
            in_sequence = False
        elif code == 0xFFFE:
            in_sequence = True
        elif not in_sequence:
            entries[-1].append(chr(code))
    return entries[:-1]


def load_vga_bios(path: Path = VGA_BIOS) -> Font:
    """The 8x16 font in QEMU's VGA BIOS (code page 437), found by its second glyph. Raises ValueError."""
    data = path.read_bytes()
    smiley = bytes.fromhex("00007e81a58181bd9981817e00000000")
    found = data.find(bytes(16) + smiley)
    if found < 0:
        raise ValueError(f"{path} holds no 8x16 font.")
    codes = [["\0"], *([c] for c in _CP437_LOW), *([bytes([code]).decode("cp437")] for code in range(32, 256))]
    bitmaps = (data[found + code * 16 : found + code * 16 + 16] for code in range(256))
    return Font("vga-bios", 8, 16, _by_bitmap(zip(codes, bitmaps, strict=True), 8, 1, 16))


def _by_bitmap(glyphs: Iterable[tuple[list[str], bytes]], width: int, stride: int, height: int) -> dict[bytes, str]:
    result: dict[bytes, str] = {}
    for characters, bitmap in glyphs:
        if not characters or len(bitmap) < stride * height:
            continue
        pixels = bytes(
            (bitmap[row * stride + column // 8] >> (7 - column % 8)) & 1
            for row in range(height)
            for column in range(width)
        )
        # Of characters that look the same (Latin A, Greek Alpha) the lowest is what programs write.
        character = min(characters)
        known = result.get(pixels)
        result[pixels] = character if known is None else min(known, character)
    return result


class ScreenReader:
    """Turns screenshots into text. Fonts are tried in the order given."""

    def __init__(self, fonts: Iterable[Font]) -> None:
        self.fonts = tuple(fonts)
        self._near: dict[tuple[int, bytes], str] = {}
        self._rows: dict[tuple[int, int, bytes, bytes], str] = {}

    @classmethod
    def default(cls, *psf: Path) -> ScreenReader:
        """The fonts of ``psf``, then the VGA BIOS's."""
        return cls([*(load_psf(path) for path in psf), *([load_vga_bios()] if VGA_BIOS.exists() else [])])

    def text(self, image: Image.Image) -> str:
        """The characters, a line a row, spaces on the right cut off. The font that reads the most cells wins."""
        pixels = image.convert("RGB").tobytes()
        ground = _most_common_colour(pixels)
        candidates = ["\n".join(self._read(image, pixels, ground, number)) for number in range(len(self.fonts))]
        return min(candidates, key=lambda text: text.count(UNKNOWN), default="")

    def _read(self, image: Image.Image, pixels: bytes, ground: bytes, number: int) -> list[str]:
        font = self.fonts[number]
        width = 9 if image.size == VGA_TEXT_MODE and font.width == 8 else font.width
        stride = image.width * 3 * font.height
        lines = []
        for start in range(0, image.height // font.height * stride, stride):
            row = pixels[start : start + stride]
            # Between two looks at a console few rows change, and reading one costs a thousand times finding it.
            key = (number, width, ground, row)
            if key not in self._rows:
                if len(self._rows) >= _ROWS_KEPT:
                    self._rows.clear()
                self._rows[key] = self._line(_colour_numbers(row, ground), image.width, width, number)
            lines.append(self._rows[key])
        return lines

    def _line(self, pixels: bytes, line: int, width: int, number: int) -> str:
        """One row of cells. ``pixels``: ``line`` bytes for each of its scan lines, each the number of its colour."""
        font = self.fonts[number]
        if len(set(pixels)) == 1:
            return ""
        scans = [pixels[y * line : (y + 1) * line] for y in range(font.height)]
        starts = range(0, line // width * width, width)
        return "".join(
            self._cell(b"".join(scan[x : x + font.width] for scan in scans), number) for x in starts
        ).rstrip()

    def _cell(self, cell: bytes, number: int) -> str:
        colours = Counter(cell).most_common()
        if len(colours) == 1:
            return " "
        if len(colours) > 2:
            return UNKNOWN
        # Colour 0 is the screen's most common, so hardly ink; in inverse video it is, and then the other way fits.
        first, second = sorted((colours[0][0], colours[1][0]), key=lambda colour: (colour == 0, colour))
        for ink in (first, second):
            bitmap = bytes(1 if pixel == ink else 0 for pixel in cell)
            if character := self.fonts[number].glyphs.get(bitmap):
                return character
        rarer = colours[1][0]
        return self._nearest(bytes(1 if pixel == rarer else 0 for pixel in cell), number)

    def _nearest(self, bitmap: bytes, number: int) -> str:
        key = (number, bitmap)
        if key not in self._near:
            value = int.from_bytes(bitmap, "big")
            distances = (
                ((value ^ int.from_bytes(glyph, "big")).bit_count(), character)
                for glyph, character in self.fonts[number].glyphs.items()
            )
            distance, character = min(distances, default=(_TOLERANCE + 1, UNKNOWN))
            self._near[key] = character if distance <= _TOLERANCE else UNKNOWN
        return self._near[key]


def _most_common_colour(pixels: bytes) -> bytes:
    # Every 31st pixel: a prime, so that it does not fall on the same column of every cell.
    return Counter(pixels[at : at + 3] for at in range(0, len(pixels), 3 * 31)).most_common(1)[0][0]


def _colour_numbers(pixels: bytes, ground: bytes) -> bytes:
    """One byte a pixel: the number of its colour, 0 for ``ground``. A console has few colours; of a picture with many
    the rarest share 255."""
    colours = [pixels[at : at + 3] for at in range(0, len(pixels), 3)]
    others = (colour for colour, _ in Counter(colours).most_common() if colour != ground)
    numbers = {ground: 0, **{colour: min(number, 255) for number, colour in enumerate(others, 1)}}
    return bytes(map(numbers.__getitem__, colours))
