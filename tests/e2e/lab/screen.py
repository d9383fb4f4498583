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

    @classmethod
    def default(cls, *psf: Path) -> ScreenReader:
        """The fonts of ``psf``, then the VGA BIOS's."""
        return cls([*(load_psf(path) for path in psf), *([load_vga_bios()] if VGA_BIOS.exists() else [])])

    def text(self, image: Image.Image) -> str:
        """The characters, a line a row, spaces on the right cut off. The font that reads the most cells wins."""
        candidates = ["\n".join(self._read(image, number)) for number in range(len(self.fonts))]
        return min(candidates, key=lambda text: text.count(UNKNOWN), default="")

    def _read(self, image: Image.Image, number: int) -> list[str]:
        font = self.fonts[number]
        width = 9 if image.size == VGA_TEXT_MODE and font.width == 8 else font.width
        height = font.height
        columns, rows = image.width // width, image.height // height
        pixels = _colour_numbers(image)
        lines = []
        for row in range(rows):
            scans = [pixels[y * image.width : (y + 1) * image.width] for y in range(row * height, (row + 1) * height)]
            if len(set(b"".join(scans))) == 1:
                lines.append("")
                continue
            starts = range(0, columns * width, width)
            cells = "".join(self._cell(b"".join(scan[x : x + font.width] for scan in scans), number) for x in starts)
            lines.append(cells.rstrip())
        return lines

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


def _colour_numbers(image: Image.Image) -> bytes:
    """One byte a pixel: the number of its colour. A console has few; of a picture with many, the rarest share 255."""
    colours = sorted(image.getcolors(maxcolors=1 << 24) or [], reverse=True, key=lambda entry: entry[0])
    numbers = {colour: min(number, 255) for number, (_, colour) in enumerate(colours)}
    return bytes(map(numbers.__getitem__, image.get_flattened_data()))
