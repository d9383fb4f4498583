"""The console's font: read, composed and written so that the kernel and the screen reader understand it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_image.psf import JOINED, REPLACEMENT, Font, compose, draw_blocks, draw_marks, read_psf, write_psf2

GLYPHS = st.binary(min_size=16, max_size=16)
CHARACTERS = st.characters(codec="utf-8", min_codepoint=0x20, max_codepoint=0xFFFD)


@given(st.dictionaries(CHARACTERS, GLYPHS, max_size=200))
def test_a_font_survives_writing_and_reading(glyphs: dict[str, bytes]) -> None:
    data = write_psf2(Font(16, {" ": bytes(16), REPLACEMENT: b"\xff" * 16, **glyphs}))
    again = read_psf(data)
    assert again.height == 16
    assert {c: again.glyphs[c] for c in glyphs} == glyphs


def test_the_kernel_gets_512_glyphs_of_16_bytes_with_the_space_at_32() -> None:
    letter = bytes(range(16))
    data = write_psf2(Font(16, {"A": letter, " ": bytes(16), "?": b"\x55" * 16}))
    magic, version, header, flags, count, size, height, width = struct.unpack_from("<8I", data)
    assert (magic, version, header, flags) == (0x864AB572, 0, 32, 1)
    assert (count, size, height, width) == (512, 16, 16, 8)
    assert data[32 : 32 + 16] == b"\x55" * 16, "what is missing is shown as a question mark"
    assert data[32 + 32 * 16 : 32 + 33 * 16] == bytes(16)
    assert data[32 + 65 * 16 : 32 + 66 * 16] == letter, "ASCII keeps its numbers"
    assert data[32 + 512 * 16 :].count(b"\xff") == 512


def test_alike_glyphs_are_stored_once() -> None:
    same = b"\x18" * 16
    data = write_psf2(Font(16, {"A": same, "\u0410": same, " ": bytes(16)}))
    assert data[32 : 32 + 512 * 16].count(same) == 1
    assert read_psf(data).glyphs["\u0410"] == read_psf(data).glyphs["A"] == same


def test_too_many_glyphs_are_refused() -> None:
    glyphs = {chr(0x4E00 + i): i.to_bytes(16, "big") for i in range(417)}
    with pytest.raises(ValueError, match="do not fit"):
        write_psf2(Font(16, glyphs))


def test_the_first_font_that_has_a_character_draws_it_and_missing_ones_are_named() -> None:
    first = Font(16, {"A": b"1" * 16})
    arrow = b"3" * 16
    second = Font(16, {"A": b"2" * 16, "B": b"2" * 16, "\u2192": arrow, "\u25ba": arrow})
    font, missing = compose("AB\u2192\u25ba\u20ac", [first, second])
    # Debian's fonts give a pointer the glyph of the arrow; here it has its own.
    assert font.glyphs == {
        "A": b"1" * 16, "B": b"2" * 16, "\u2192": arrow, "\u25ba": draw_marks(16)["\u25ba"],
    }  # fmt: skip
    assert missing == "\u20ac"
    with pytest.raises(ValueError, match="different heights"):
        compose("A", [first, Font(8, {})])


def test_psf1() -> None:
    bitmaps = b"".join(bytes([i % 256]) * 16 for i in range(256))
    entries = [struct.pack("<H", 0x100 + i) for i in range(256)]
    entries[65] = struct.pack("<HHHHH", 65, 0x391, 0xFFFE, 66, 0x301)
    font = read_psf(b"\x36\x04\x02\x10" + bitmaps + b"\xff\xff".join(entries) + b"\xff\xff")
    assert font.glyphs["A"] == font.glyphs["\u0391"] == bytes([65]) * 16
    assert "B" not in font.glyphs, "a sequence of characters is not a character"


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for magic in (b"", b"\x36\x04\x02\x10", b"\x72\xb5\x4a\x86"):
        with pytest.raises(ValueError, match="PSF|8 pixels"):
            read_psf(magic + data)


def test_blocks_fill_their_cells_whatever_the_font_is() -> None:
    blocks = draw_blocks(16)
    assert blocks["█"] == b"\xff" * 16
    assert blocks["▄"] == bytes(8) + b"\xff" * 8
    assert bytes(a | b for a, b in zip(blocks["▀"], blocks["▄"], strict=True)) == blocks["█"]
    assert [sum(row == 0xFF for row in blocks[c]) for c in "▁▂▃▅▆▇"] == [2, 4, 6, 10, 12, 14]
    assert bytes(a ^ b for a, b in zip(blocks["▌"], blocks["▐"], strict=True)) == blocks["█"]
    font, missing = compose("A▄", [Font(16, {"A": b"\x01" * 16, "▄": b"\x55" * 16})])
    assert missing == ""
    assert font.glyphs["▄"] == blocks["▄"]


def test_characters_that_join_to_the_right_stand_where_vga_joins_them() -> None:
    glyphs = {c: bytes([n] * 16) for n, c in enumerate(JOINED, 1)}
    data = write_psf2(
        Font(16, {" ": bytes(16), **{chr(c): bytes([0x80, c] * 8) for c in range(0x21, 0x7F)}, **glyphs})
    )
    for number in range(512):
        bitmap = data[32 + number * 16 : 32 + number * 16 + 16]
        if bitmap in glyphs.values():
            assert 0xC0 <= number & 0xFF <= 0xDF, number
    assert read_psf(data).glyphs["█"] == glyphs["█"]
