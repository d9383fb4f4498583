"""Ranges, and bodies that end early."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_server.app import HttpError
from rekindle_server.body import Body, parse_range
from rekindle_server.objects import Torn

from recovery.errors import IntegrityError


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_what_slicing_gives_or_refused(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    try:
        span = parse_range(f"bytes={first}-{last}", size)
    except HttpError as error:
        assert error.status == 416
        assert isinstance(error.error, IntegrityError)
        assert data[first : last + 1] == b""
        return
    assert span is not None
    assert 0 <= span[0] < span[1] <= size
    assert data[span[0] : span[1]] == data[first : last + 1]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("lines=1-2", None),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=4-", (4, 10)),
        ("bytes=0-99", (0, 10)),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_other_forms(header: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == expected


def test_a_body_is_read_to_its_length_and_no_further() -> None:
    source = io.BytesIO(b"0123456789next request")
    body = Body(source, 10)
    buffer = bytearray(6)
    assert body.readinto(memoryview(buffer)) == 6
    assert body.readinto(memoryview(buffer)) == 4
    assert body.readinto(memoryview(buffer)) == 0
    assert source.read() == b"next request"


def test_a_body_that_ends_early_is_torn() -> None:
    body = Body(io.BytesIO(b"0123"), 10)
    with pytest.raises(Torn):
        body.readinto(memoryview(bytearray(10)))
    assert not Body(io.BytesIO(b"0123"), 10).drain()
    with pytest.raises(HttpError) as caught:
        Body(io.BytesIO(b"0123456789"), 10).read(limit=9)
    assert caught.value.status == 413
