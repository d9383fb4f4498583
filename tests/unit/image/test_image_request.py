"""The words of ``rekindle iso build`` become checked values or one clear UsageError."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from rekindle_image.request import (
    parse_authority,
    parse_compression,
    parse_date,
    parse_firmware,
    parse_mirror,
    parse_output,
    parse_serial,
    parse_server,
)

from recovery.cli.main import main
from recovery.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://backup.example.org:8443", "https://backup.example.org:8443"),
        ("https://backup/", "https://backup"),
        ("https://10.0.2.2:8443/", "https://10.0.2.2:8443"),
        ("https://[fd00::1]:8443", "https://[fd00::1]:8443"),
        ("https://proxy/rekindle/", "https://proxy/rekindle"),
    ],
)
def test_server_addresses(text: str, expected: str) -> None:
    assert parse_server(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "backup",
        "http://backup",
        "https://",
        "https://:8443",
        "https://backup:99999",
        "https://backup:0",
        "https://backup:port",
        "https://admin:geheim@backup",
        "https://backup/?token=x",
        "https://back up",
        "https://[fd00::1",
        'https://"$(reboot)"',
    ],
)
def test_what_is_no_server_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--server") as caught:
        parse_server(text)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_server_text_gives_an_address_or_a_usage_error(text: str) -> None:
    try:
        parsed = parse_server(text)
    except UsageError:
        return
    assert parsed.startswith("https://")
    assert "@" not in parsed
    assert parse_server(parsed) == parsed


def make_certificate() -> tuple[bytes, bytes, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(days=3650))
    certificate = builder.sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, secret, certificate.fingerprint(hashes.SHA256()).hex()


def test_a_fingerprint_is_taken_in_the_ways_people_write_it() -> None:
    plain = "0a" * 32
    for text in (plain, plain.upper(), ":".join(["0A"] * 32), f"SHA256:{plain}", f"sha-256={plain}", f" {plain} "):
        assert parse_authority(text).fingerprint == plain


def test_a_pem_file_gives_its_fingerprint_and_only_its_certificate(tmp_path: Path) -> None:
    pem, secret, fingerprint = make_certificate()
    file = tmp_path / "ca.pem"
    file.write_bytes(secret + pem)
    authority = parse_authority(str(file))
    assert authority.fingerprint == fingerprint
    assert "PRIVATE KEY" not in authority.pem
    assert ssl.PEM_cert_to_DER_cert(authority.pem) == ssl.PEM_cert_to_DER_cert(pem.decode())


@pytest.mark.parametrize("text", ["", "abcd", "0a" * 31, "zz" * 32, "/does/not/exist", "/", "a\0b"])
def test_what_is_no_authority_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--ca"):
        parse_authority(text)


def test_a_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    _, secret, _ = make_certificate()
    file = tmp_path / "key.pem"
    for content in (secret, b"\x00\xff" * 100, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="holds no PEM certificate"):
            parse_authority(str(file))


def test_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_date("2026-11-23") == 1795392000
    assert parse_date("1795392001") == 1795392001
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert parse_date(None) == 1700000000
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert parse_date(None) % 86400 == 0


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "23.11.2026", "-1", "0", "99999999999", "²"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--date"):
        parse_date(text)


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        parse_date(None)


def test_other_words() -> None:
    assert parse_firmware("all") == "all"
    assert parse_compression(22) == 22
    assert parse_serial("ttyS1") == "ttyS1"
    assert parse_mirror("http://mirror.example/debian/", "--mirror") == "http://mirror.example/debian"
    for bad in (
        lambda: parse_firmware("laptop"),
        lambda: parse_compression(0),
        lambda: parse_compression(23),
        lambda: parse_serial("ttyS0 init=/bin/sh"),
        lambda: parse_serial("/dev/ttyS0"),
        lambda: parse_mirror("deb http://x", "--mirror"),
        lambda: parse_mirror("ftp://x/debian", "--mirror"),
    ):
        with pytest.raises(UsageError):
            bad()


def test_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_output(None, 1795392000) == tmp_path / "rekindle-2026-11-23.iso"
    assert parse_output("x.iso", 0) == tmp_path / "x.iso"
    for bad in (str(tmp_path), "", "/dev/null", "missing/x.iso"):
        with pytest.raises(UsageError):
            parse_output(bad, 0)


def test_the_command_says_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["iso", "build", "--server", "backup", "--ca", "0a" * 32])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: --server 'backup' is not an https:// address.\n")
    assert "Traceback" not in said
