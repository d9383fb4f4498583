"""The server's CA and certificate."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from rekindle_server.certificates import ensure_certificate, own_names

from recovery.errors import UsageError

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_made_once_and_kept(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, ["backup.example.org", "192.0.2.1"], NOW)
    again = ensure_certificate(tmp_path, ["192.0.2.1"], NOW)
    assert first.issued_now
    assert not again.issued_now
    assert again.fingerprint == first.fingerprint
    ca = x509.load_pem_x509_certificate(first.ca_path.read_bytes())
    leaf = x509.load_pem_x509_certificates(first.certificate_path.read_bytes())[0]
    leaf.verify_directly_issued_by(ca)
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    assert ca.fingerprint(hashes.SHA256()).hex(":").upper() == first.fingerprint
    assert first.key_path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_issued_again_for_new_names_and_in_time_under_the_same_ca(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, ["a.example"], NOW)
    named = ensure_certificate(tmp_path, ["b.example", "2001:db8::1"], NOW)
    assert named.issued_now
    assert set(named.names) == {"a.example", "b.example", "2001:db8::1"}
    assert not ensure_certificate(tmp_path, ["a.example"], NOW + datetime.timedelta(days=600)).issued_now
    renewed = ensure_certificate(tmp_path, ["a.example"], NOW + datetime.timedelta(days=700))
    assert renewed.issued_now
    assert renewed.expires > named.expires
    assert renewed.fingerprint == first.fingerprint


def test_issued_again_when_key_and_certificate_do_not_belong_together(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path / "one", ["a.example"], NOW)
    other = ensure_certificate(tmp_path / "other", ["a.example"], NOW)
    first.key_path.write_bytes(other.key_path.read_bytes())
    assert ensure_certificate(tmp_path / "one", ["a.example"], NOW).issued_now


def test_a_dead_hosts_clock_may_stand_in_the_past(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, ["a.example"])
    for pem in (made.ca_path, made.certificate_path):
        certificate = x509.load_pem_x509_certificates(pem.read_bytes())[0]
        assert certificate.not_valid_before_utc <= datetime.datetime(2016, 1, 1, tzinfo=datetime.UTC)


def test_bad_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ensure_certificate(tmp_path, ["a" * 70 + ".example"], NOW)


def test_own_names_hold_loopback() -> None:
    names = own_names()
    assert {"localhost", "127.0.0.1", "::1"} <= set(names)
    assert not any(name.startswith("fe80") for name in names)
