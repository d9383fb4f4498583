"""What is to be built: the words of the command line turned into checked values, or one clear UsageError."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from recovery.errors import UsageError
from rekindle_image.site import Card

Firmware = Literal["server", "all", "none"]
FIRMWARE: tuple[Firmware, ...] = ("server", "all", "none")

#: The first second that an ISO 9660 and a FAT time stamp can both tell.
_OLDEST_EPOCH = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class Authority:
    """The certificate authority of the repository server: hex SHA-256 of its DER form, and the PEM if known."""

    fingerprint: str
    pem: str = ""


@dataclass(frozen=True)
class ImageRequest:
    """One medium to build. ``epoch`` is the date of everything in it (seconds); ``compression`` the zstd level.

    ``serial`` is the kernel's name of the serial console. ``netboot`` is the directory for the netboot files or None.
    ``mirror`` and ``security_mirror`` are addresses or empty for the machine's own.
    """

    server: str
    authority: Authority
    output: Path
    cache: Path
    epoch: int
    firmware: Firmware = "server"
    compression: int = 19
    serial: str = "ttyS0"
    netboot: Path | None = None
    mirror: str = ""
    security_mirror: str = ""
    packages: tuple[str, ...] = ()
    """Debian packages beside our own list."""
    drivers: tuple[str, ...] = ()
    """Kernel modules that the initramfs has too, and loads before it looks for the medium."""
    keymap: str = ""
    ssh_keys: tuple[str, ...] = ()
    network: tuple[Card, ...] = ()
    unattended: tuple[str, ...] = ()
    """Kernel words of the menu's unattended entry."""
    kernel_parameters: tuple[str, ...] = ()
    """Of every entry of the menu that starts the medium."""
    netboot_url: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where the profile says what, by key; for errors that are found while building."""
    suite: str = field(default="trixie", init=False)

    @property
    def date(self) -> str:
        """The day of the build, ``YYYY-MM-DD`` (UTC)."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%d")


def parse_server(text: str) -> str:
    """The address of the server as the medium will pre-fill it, without a trailing slash. Raises UsageError."""
    hint = "Write it as the console will reach it, such as https://backup.example.org:8443"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--server '{text}' is not an address: {error}.", hint=hint) from error
    if parts.scheme != "https":
        raise UsageError(f"--server '{text}' is not an https:// address.", hint=hint)
    host = parts.hostname or ""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9a-fA-F:.]+", host) or port == 0:
        raise UsageError(f"--server '{text}' names no host.", hint=hint)
    if "@" in parts.netloc:
        raise UsageError(
            "--server holds a user name or password; a medium must not carry secrets.",
            hint="Leave them out: the console asks for them.",
        )
    if parts.query or parts.fragment:
        raise UsageError(f"--server '{text}' has a query or fragment, which a server's address has not.", hint=hint)
    return f"https://{parts.netloc}{parts.path.rstrip('/')}"


def parse_authority(text: str) -> Authority:
    """A SHA-256 fingerprint (with or without colons, ``sha256:`` in front or not) or a PEM file. Raises UsageError."""
    bare = re.sub(r"^sha-?256[:=]", "", text.strip(), flags=re.IGNORECASE).replace(":", "").replace(" ", "")
    if re.fullmatch(r"[0-9a-fA-F]{64}", bare):
        return Authority(bare.lower())
    hint = "Give the fingerprint that `rekindle serve` prints (64 hex digits), or its ca.pem."
    path = Path(text).expanduser()
    try:
        data = path.read_bytes() if path.stat().st_size <= 1 << 20 else b""
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"--ca '{text}' is neither a SHA-256 fingerprint nor a readable file ({why}).", hint=hint
        ) from error
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise UsageError(f"--ca file '{text}' holds no PEM certificate.", hint=hint) from error
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    # Only the certificate goes onto the medium, whatever else (a private key!) the file holds.
    der = ssl.PEM_cert_to_DER_cert(_first_certificate(data.decode("ascii", errors="replace")))
    return Authority(fingerprint, ssl.DER_cert_to_PEM_cert(der))


def _first_certificate(text: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = text.index(begin)
    return text[start : text.index(end, start) + len(end)] + "\n"


def parse_date(text: str | None) -> int:
    """``YYYY-MM-DD``, seconds since 1970, or None for $SOURCE_DATE_EPOCH, else today; seconds. Raises UsageError."""
    source = "--date"
    if text is None:
        source, text = "SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", "")
        if not text:
            return int(datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    hint = "Write a day such as 2026-11-23, or seconds since 1970."
    try:
        epoch = (
            int(text) if text.isdecimal() else int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
        )
    except ValueError as error:
        raise UsageError(f"{source} '{text}' is not a date.", hint=hint) from error
    if not _OLDEST_EPOCH <= epoch < 1 << 32:
        raise UsageError(f"{source} '{text}' lies outside 1980 to 2106.", hint=hint)
    return epoch


def parse_firmware(text: str) -> Firmware:
    """One of FIRMWARE. Raises UsageError."""
    if text not in FIRMWARE:
        raise UsageError(f"--firmware '{text}' is not known.", hint=f"Choose one of: {', '.join(FIRMWARE)}.")
    return text


def parse_compression(level: int) -> int:
    """A zstd level, 1 to 22. Raises UsageError."""
    if not 1 <= level <= 22:
        raise UsageError(
            f"--compression {level} is not a zstd level.", hint="Choose 1 (fast, large) to 22; 19 is usual."
        )
    return level


def parse_serial(text: str) -> str:
    """``ttyS<n>``, the serial line that gets the boot menu and a console. Raises UsageError."""
    if not re.fullmatch(r"ttyS[0-3]", text):
        raise UsageError(f"--serial '{text}' is not a serial console.", hint="Choose ttyS0, ttyS1, ttyS2 or ttyS3.")
    return text


def parse_mirror(text: str, option: str) -> str:
    """An address that apt can fetch from, without a trailing slash; empty stays empty. Raises UsageError."""
    if not text:
        return ""
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https", "file")
        or not (parts.netloc or parts.scheme == "file")
        or re.search(r"\s", text)
    ):
        raise UsageError(
            f"{option} '{text}' is not a mirror's address.", hint="Write http://HOST/debian or file:///DIR."
        )
    return text.rstrip("/")


def parse_netboot_url(text: str) -> str:
    """The address of the netboot folder as the machine that boots reaches it, without a trailing slash.

    Raises UsageError.
    """
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or re.search(r"[\s'\"\\$]", text) or parts.query or parts.fragment:
        raise UsageError(
            f"--url '{text}' is not an http:// address.",
            hint="Write http://HOST/DIR. It must be plain HTTP: the initramfs has no certificates to check with.",
        )
    return text.rstrip("/")


def parse_output(text: str | None, epoch: int) -> Path:
    """Where the ISO goes; the default is ``rekindle-<day>.iso`` here. Raises UsageError."""
    day = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d")
    path = Path(text).expanduser() if text is not None else Path(f"rekindle-{day}.iso")
    if not path.name or path.is_dir():
        raise UsageError(f"--output '{text}' is a directory.", hint="Name the file, such as out/rekindle.iso.")
    if path.exists() and not path.is_file():
        raise UsageError(
            f"--output '{text}' is not an ordinary file.", hint="Build a file, then copy it to the stick."
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"The directory '{path.parent}' of --output is missing or cannot be written.", hint="Create it first."
        )
    return path.resolve()


def parse_directory(text: str | None, option: str) -> Path | None:
    """A directory that exists or can be created; None stays None. Raises UsageError."""
    if text is None:
        return None
    path = Path(text).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{option} '{text}' cannot be a directory: {error.strerror}.", hint="Choose another."
        ) from error
    return path.resolve()


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/rekindle`` or ``~/.cache/rekindle``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rekindle"
