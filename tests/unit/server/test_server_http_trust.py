"""Addresses and fingerprints as people type them."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import AccessError, UnreachableError, UsageError
from recovery.repository.http import trust_of
from recovery.repository.tls import (
    Trust,
    connection_context,
    explain,
    format_fingerprint,
    normalize_fingerprint,
    parse_url,
)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://backup.example.org:8443", "https://backup.example.org:8443"),
        (" https://backup/ ", "https://backup:443"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:80", "http://localhost:80"),
        ("https://backup.example.org.:8443", "https://backup.example.org:8443"),
    ],
)
def test_urls(url: str, base: str) -> None:
    assert parse_url(url).base == base


@pytest.mark.parametrize(
    "url",
    [
        "backup",
        "ftp://backup",
        "https://",
        "https://u:p@backup",
        "https://b/path",
        "https://b:x",
        "https://b:99999",
        "https:// backup",
        "https://a..b:1",
        "https://.b:1",
        "https://b\x7f",
        f"https://{'b' * 64}",
    ],
)
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)


@given(st.binary(min_size=32, max_size=32))
def test_fingerprints_are_read_as_they_are_printed(digest: bytes) -> None:
    for text in (digest.hex(), digest.hex().upper(), format_fingerprint(digest.hex()), f"SHA256:{digest.hex()}"):
        assert normalize_fingerprint(text) == digest.hex()


@pytest.mark.parametrize("text", ["", "ab:cd", "zz" * 32, "ab" * 33])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(UsageError):
        normalize_fingerprint(text)


def test_secrets_do_not_go_over_plain_http_to_other_machines() -> None:
    with pytest.raises(UsageError, match="clear"):
        connection_context("http://192.0.2.1:8080", Trust())
    assert connection_context("http://127.0.0.1:8080", Trust()) is None


def test_a_clock_that_is_wrong_is_named() -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message, error.verify_code = "certificate is not yet valid", 9
    shown = explain(error, parse_url("https://127.0.0.1:9"))  # which does not say what time it is
    assert isinstance(shown, AccessError)
    assert "not yet valid" in shown.message and "clock" in shown.message
    assert "Compare the clocks" in shown.hint
    assert isinstance(explain(TimeoutError(), parse_url("https://backup")), UnreachableError)


def test_a_ca_file_that_cannot_be_read() -> None:
    with pytest.raises(UsageError):
        trust_of("/nonexistent/ca.pem")
    assert trust_of("ab" * 32) == Trust(fingerprint="ab" * 32)
