"""The screen reader reads back what was drawn with a font, in text mode and on a frame buffer."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.e2e.lab.screen import UNKNOWN, Font, ScreenReader, load_psf, load_vga_bios
from tests.support.examples import examples

try:
    VGA = load_vga_bios()
except OSError:
    pytest.skip("QEMU's VGA BIOS is not installed", allow_module_level=True)
BITMAPS = {character: bitmap for bitmap, character in VGA.glyphs.items()}
#: A full block cannot be told from a blank cell, nor the inverted bullets from bullets in inverse video.
READABLE = sorted(set(BITMAPS) - set("\0 \xa0█◘◙"))


def draw(lines: list[str], size: tuple[int, int], cell_width: int) -> Image.Image:
    """Draw the lines like a console does."""
    image = Image.new("RGB", size, (0, 0, 170))
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            for index, bit in enumerate(BITMAPS.get(character, b"")):
                if bit:
                    image.putpixel((column * cell_width + index % 8, row * 16 + index // 8), (170, 170, 170))
    return image


def write_psf(path: Path, version: int) -> None:
    """The VGA font as a PSF file."""
    packed = {
        character: bytes(int("".join(map(str, bitmap[i : i + 8])), 2) for i in range(0, 128, 8))
        for character, bitmap in BITMAPS.items()
    }
    characters = [*packed, *[None] * (256 - len(packed))]
    bitmaps = b"".join(packed.get(c, bytes(16)) if c else bytes(16) for c in characters)
    if version == 2:
        table = b"".join((c.encode() if c else b"") + b"\xff" for c in characters)
        header = b"\x72\xb5\x4a\x86" + struct.pack("<7I", 0, 32, 1, 256, 16, 16, 8)
    else:
        table = b"".join((c.encode("utf-16-le") if c else b"") + b"\xff\xff" for c in characters)
        header = b"\x36\x04" + bytes([2, 16])
    path.write_bytes(gzip.compress(header + bitmaps + table))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("size", "cell_width"), [((720, 400), 9), ((1280, 800), 8)])
def test_text_is_read_back(tmp_path: Path, version: int, size: tuple[int, int], cell_width: int) -> None:
    write_psf(tmp_path / "font.psf.gz", version)
    reader = ScreenReader([load_psf(tmp_path / "font.psf.gz")])
    lines = ["Rekindle  root@host:~# ls -l", "", " ┌──┤ Plan ├──┐ ", " │ 100% ▓▓░░ │", "{|}~ \\ @ §"]
    read = reader.text(draw(lines, size, cell_width)).split("\n")
    assert read[: len(lines)] == [line.rstrip() for line in lines]
    assert not any(read[len(lines) :])
    assert len(read) == size[1] // 16


@settings(deadline=None, max_examples=examples(30))
@given(st.text(st.sampled_from(READABLE), min_size=1, max_size=80))
def test_every_glyph_is_itself(line: str) -> None:
    assert ScreenReader([VGA]).text(draw([line], (720, 32), 8)).split("\n")[0] == line


def test_a_cursor_does_not_hide_the_character_under_it() -> None:
    image = draw(["login: admin"], (720, 400), 9)
    for x in range(7 * 9, 7 * 9 + 8):
        for y in (13, 14):
            image.putpixel((x, y), (170, 170, 170))
    assert ScreenReader([VGA]).text(image).split("\n")[0] == "login: admin"


def test_a_picture_is_unreadable_not_wrong() -> None:
    image = Image.effect_noise((64, 32), 90).convert("RGB")
    assert set(ScreenReader([VGA]).text(image)) <= {UNKNOWN, "\n"}


def test_the_font_that_reads_more_wins() -> None:
    empty = Font("empty", 8, 16, {})
    assert ScreenReader([empty, VGA]).text(draw(["GRUB"], (640, 480), 8)).split("\n")[0] == "GRUB"


@pytest.mark.parametrize("content", [b"", b"not a font at all", b"\x36\x04\x00\x10" + bytes(4096)])
def test_what_is_no_named_font_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=r"PSF|Unicode"):
        load_psf(tmp_path / "x")
