"""Whom to believe at an address: a pinned CA or certificate, a CA file, or the system's CAs; and who answers there."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urlsplit

import msgspec
from cryptography import x509

from recovery.errors import AccessError, RekindleError, UnreachableError, UsageError
from recovery.repository import clock

CONNECT_SECONDS = 10.0
#: openssl/x509_vfy.h: X509_V_FLAG_NO_CHECK_TIME; X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_OUT_OF_TIME = (9, 10)
_MAX_CA = 64 * 1024
#: Characters of a message that came from who knows whom.
_WORDS = 200


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator trusts. Both empty: the system's CAs.

    ``fingerprint`` is the hex SHA-256 of the DER of the server's CA, or of its own certificate; colons and case do not
    matter. ``ca_pem`` is a CA certificate. ``plain`` allows http:// to other machines than this one.
    """

    fingerprint: str = ""
    ca_pem: str = ""
    plain: bool = False


class ServerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, before any secret is sent. Fingerprints are SHA-256, as ``format_fingerprint`` prints.

    ``trusted`` says that the connection would be accepted under the trust given; ``reason`` why not.
    """

    url: str
    fingerprint: str
    ca_fingerprint: str = ""
    subject: str = ""
    valid_until: str = ""
    trusted: bool = False
    reason: str = ""


class Address(msgspec.Struct, frozen=True):
    """A server's URL taken apart."""

    secure: bool
    host: str
    port: int

    @property
    def base(self) -> str:
        """The URL without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """The parts of ``https://host[:port]``. Raises UsageError."""
    try:
        parts = urlsplit(url.strip())
        # Without the dot of a fully qualified name: no certificate has it.
        port, host = parts.port, (parts.hostname or "").rstrip(".")
        host.encode("idna")  # as it is looked up
    except ValueError:
        parts, port, host = urlsplit(""), None, ""
    wrong = parts.scheme not in ("https", "http") or parts.path not in ("", "/") or parts.query
    if wrong or parts.username is not None or not host or not host.isprintable() or " " in host:
        raise UsageError(
            "This is not the address of a server.", hint="Write it as https://HOST:PORT, without user or path."
        )
    secure = parts.scheme == "https"
    return Address(secure, host, port or (443 if secure else 80))


def normalize_fingerprint(text: str) -> str:
    """64 lower-case hex digits from any usual notation. Raises UsageError."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "").replace(" ", "").replace("-", "")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise UsageError(
            "This is not a SHA-256 fingerprint.", hint="It has 64 hexadecimal digits; 'rekindle serve' prints it."
        )
    return digits


def format_fingerprint(digits: str) -> str:
    """Colon-separated upper-case pairs, as ``rekindle serve`` and openssl print it."""
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()


def fingerprint_of(der: bytes) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(der).hexdigest()


def connection_context(url: str, trust: Trust) -> ssl.SSLContext | None:
    """The TLS context that accepts the server only under ``trust``; None for http://.

    With a fingerprint the server is asked for its CA over an unverified connection; what it says counts only when its
    hash is the pin, and it becomes the only root. The clock of a dead host may be years off, and who pinned a CA has
    said whom to trust: its certificates are taken whatever the time.

    Raises AccessError (wrong fingerprint), UnreachableError, UsageError.
    """
    address = parse_url(url)
    if not address.secure:
        if not (trust.plain or _is_loopback(address.host)):
            raise UsageError("http:// would send secrets in the clear.", hint="Use https://.")
        return None
    pin = normalize_fingerprint(trust.fingerprint) if trust.fingerprint else ""
    if trust.ca_pem and pin in ("", _fingerprint_of_pem(trust.ca_pem)):
        return _context(trust.ca_pem, timeless=bool(pin))
    if not pin:
        return _context(None)
    leaf, ca_pem = _ask(address)
    if ca_pem and _fingerprint_of_pem(ca_pem) == pin:
        return _context(ca_pem, timeless=True)
    if fingerprint_of(leaf) == pin:
        return _context(ssl.DER_cert_to_PEM_cert(leaf), timeless=True)
    shown = _fingerprint_of_pem(ca_pem) if ca_pem else fingerprint_of(leaf)
    raise AccessError(
        f"The server at {address.base} is not the one expected: its fingerprint is {format_fingerprint(shown)}.",
        hint="Compare it with what 'rekindle serve' prints on the server. If they differ, somebody else answers.",
    )


def identify(url: str, trust: Trust | None = None) -> ServerIdentity:
    """Who answers at ``url``; sends no secret. Raises UnreachableError, UsageError."""
    address = parse_url(url)
    if not address.secure:
        return ServerIdentity(url=address.base, fingerprint="", reason="http:// is not encrypted")
    leaf, ca_pem = _ask(address)
    certificate = x509.load_der_x509_certificate(leaf)
    trusted, reason = True, ""
    try:
        context = connection_context(url, trust or Trust())
        connection = http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, context=context)
        connection.connect()
        connection.close()
    except RekindleError as error:
        trusted, reason = False, error.message
    except (OSError, ValueError) as error:
        trusted, reason = False, explain(error, address).message
    return ServerIdentity(
        url=address.base,
        fingerprint=format_fingerprint(fingerprint_of(leaf)),
        ca_fingerprint=format_fingerprint(_fingerprint_of_pem(ca_pem)) if ca_pem else "",
        subject=certificate.subject.rfc4514_string(),
        valid_until=certificate.not_valid_after_utc.strftime("%Y-%m-%d"),
        trusted=trusted,
        reason=reason,
    )


def explain(error: BaseException, address: Address) -> RekindleError:
    """The error to show for a failed connection: AccessError for a certificate not trusted, else UnreachableError."""
    where = f"The server at {address.base}"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        if error.verify_code in _OUT_OF_TIME:
            said, hint = clock.why_not_valid(time.time(), _time_at(address))
            return AccessError(f"{where} is not trusted: {why}. {said}", hint=hint)
        if "mismatch" in why.lower() or "not valid for" in why.lower():
            hint = f"On the server start 'rekindle serve' with --name {address.host}, or use a name it has."
        else:
            hint = "Give the fingerprint that 'rekindle serve' prints, or the CA's certificate."
        return AccessError(f"{where} is not trusted: {why}.", hint=hint)
    if isinstance(error, ssl.SSLError):
        return UnreachableError(f"{where} does not speak TLS: {error.reason or error}.", hint="Is it this port?")
    if isinstance(error, socket.gaierror):
        return UnreachableError(f"{where} is not found: no address for that name.", hint="Check the name and DNS.")
    if isinstance(error, ConnectionRefusedError):
        return UnreachableError(
            f"{where} refuses connections: nothing listens on that port.", hint="Is 'rekindle serve' running there?"
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{where} does not answer in time.", hint="Check the network, firewall and address.")
    if not address.secure and isinstance(error, ConnectionError | http.client.HTTPException):
        return UnreachableError(
            f"{where} hung up: {_words(error)}.", hint="Does it speak TLS? Then its address is https://..."
        )
    text = error.strerror if isinstance(error, OSError) and error.strerror else _words(error)
    return UnreachableError(f"{where} cannot be reached: {text}.", hint="Check the network and the address.")


def _words(error: BaseException) -> str:
    """What an error says, which may be whatever the other side sent, on one short line."""
    return ascii(str(error))[1:-1][:_WORDS] or type(error).__name__


def _unverified(address: Address) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, context=context)


def _time_at(address: Address) -> float | None:
    """What the server's clock says, over an unverified connection: good for a hint, never to be acted on."""
    connection = _unverified(address)
    try:
        connection.request("HEAD", "/v1/ca.pem")
        return clock.server_time(connection.getresponse().headers["Date"])
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _ask(address: Address) -> tuple[bytes, str]:
    """The server's certificate (DER) and the CA it offers (PEM or empty), over an unverified connection."""
    connection = _unverified(address)
    try:
        connection.connect()
        leaf = connection.sock.getpeercert(binary_form=True)
        connection.request("GET", "/v1/ca.pem")
        response = connection.getresponse()
        body = response.read(_MAX_CA).decode(errors="replace") if response.status == 200 else ""
    except (OSError, http.client.HTTPException) as error:
        raise explain(error, address) from error
    finally:
        connection.close()
    if "BEGIN CERTIFICATE" not in body:
        body = ""
    return leaf or b"", body


def _fingerprint_of_pem(pem: str) -> str:
    try:
        return fingerprint_of(ssl.PEM_cert_to_DER_cert(_first_certificate(pem)))
    except ValueError:
        raise UsageError("The CA certificate is not a PEM file.", hint="Use the server's ca.pem.") from None


def _first_certificate(pem: str) -> str:
    """Only the certificate that was hashed becomes a root, whatever follows it in the file."""
    start, end = pem.find("-----BEGIN CERTIFICATE-----"), pem.find("-----END CERTIFICATE-----")
    if start < 0 or end < start:
        raise ValueError("no certificate")
    return pem[start : end + len("-----END CERTIFICATE-----")] + "\n"


def _context(root_pem: str | None, *, timeless: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if root_pem is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cadata=_first_certificate(root_pem))
        except (ssl.SSLError, ValueError):
            raise UsageError("The CA certificate is damaged.", hint="Use the server's ca.pem.") from None
        # A pinned certificate need not be a self-signed root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if timeless:
            context.verify_flags |= _NO_CHECK_TIME
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
