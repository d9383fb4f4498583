"""The server's own CA and its certificate: made on the first start, renewed in time, re-issued when names are added.

What a recovery medium carries is the CA's fingerprint, so the certificate may change, the CA must not.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from recovery.commands import run
from recovery.errors import CommandError, UsageError

#: A dead host's clock often stands in the past. Trust rests on the pinned CA, so certificates are valid from long ago.
NOT_BEFORE = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
CA_DAYS = 3652
CERTIFICATE_DAYS = 730
RENEW_BEFORE_DAYS = 60

_General = x509.DNSName | x509.IPAddress


class ServerCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The files to serve with. ``fingerprint`` is the CA's SHA-256, colon-separated hex; ``expires`` the certificate's
    end, seconds since the epoch; ``names`` what it is valid for."""

    ca_path: Path
    certificate_path: Path
    key_path: Path
    fingerprint: str
    expires: float
    names: tuple[str, ...]
    issued_now: bool


def own_names() -> list[str]:
    """The names and addresses this machine has: host name, localhost, every address that is not link-local."""
    names = [socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    try:
        links = msgspec.json.decode(run(["ip", "-j", "address"]).stdout)
        for link in links:
            names += [a["local"] for a in link.get("addr_info", ()) if a.get("scope") == "global" and "local" in a]
    except (CommandError, msgspec.DecodeError, KeyError):
        names += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)]
    return list(dict.fromkeys(name for name in names if "%" not in name))


def ensure_certificate(directory: Path, names: list[str], now: datetime.datetime | None = None) -> ServerCertificate:
    """The CA and a certificate for ``names``, made where needed, in ``directory`` (keys 0600). Raises UsageError."""
    now = now or datetime.datetime.now(datetime.UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_path, ca_key_path = directory / "ca.pem", directory / "ca.key"
    path, key_path = directory / "server.pem", directory / "server.key"
    wanted = [_general(name) for name in names]
    if ca_path.exists() and ca_key_path.exists():
        ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
        ca_key = _load_key(ca_key_path)
    else:
        ca, ca_key = _make_ca(now)
        _write(ca_key_path, _pem_key(ca_key), 0o600)
        _write(ca_path, ca.public_bytes(serialization.Encoding.PEM), 0o644)
    current = x509.load_pem_x509_certificates(path.read_bytes())[0] if path.exists() and key_path.exists() else None
    issued_now = current is None or not _still_good(current, key_path, ca, wanted, now)
    if current is None or issued_now:
        kept = [] if current is None else [n for n in _names_of(current) if n not in wanted]
        key = ec.generate_private_key(ec.SECP256R1())
        current = _issue(ca, ca_key, key, wanted + kept, now)
        _write(key_path, _pem_key(key), 0o600)
        chain = current.public_bytes(serialization.Encoding.PEM) + ca.public_bytes(serialization.Encoding.PEM)
        _write(path, chain, 0o644)
    return ServerCertificate(
        ca_path=ca_path,
        certificate_path=path,
        key_path=key_path,
        fingerprint=ca.fingerprint(hashes.SHA256()).hex(":").upper(),
        expires=current.not_valid_after_utc.timestamp(),
        names=tuple(str(name.value) for name in _names_of(current)),
        issued_now=issued_now,
    )


def _general(name: str) -> _General:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.encode("idna").decode())
    except (UnicodeError, ValueError):
        raise UsageError(f"'{name}' is neither a DNS name nor an IP address.", hint="See --name.") from None


def _names_of(certificate: x509.Certificate) -> list[_General]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name for name in extension.value if isinstance(name, x509.DNSName | x509.IPAddress)]


def _still_good(
    current: x509.Certificate, key: Path, ca: x509.Certificate, wanted: list[_General], now: datetime.datetime
) -> bool:
    if current.issuer != ca.subject or set(wanted) - set(_names_of(current)):
        return False
    if _load_key(key).public_key() != current.public_key():  # a crash between writing the two files
        return False
    return current.not_valid_after_utc - now > datetime.timedelta(days=RENEW_BEFORE_DAYS)


def _make_ca(now: datetime.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    label = f"Rekindle CA of {socket.gethostname()}"[:50] + f" {os.urandom(4).hex()}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()), key


def _issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: list[_General],
    now: datetime.datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64])])
    end = min(now + datetime.timedelta(days=CERTIFICATE_DAYS), ca.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, hashes.SHA256())


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} is not an elliptic curve key.")
    return key


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step, with its mode from the beginning."""
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
