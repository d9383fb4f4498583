"""Windows from afar: an SSH server whose login is the console, and a status page. Off until somebody wants them.

Keys of the medium's profile may always log in. From the console a one-time password is made for root: random, for this
start of the medium only, shown on the screen and kept in memory. Host keys are made by this machine.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from recovery.commands import run
from recovery.engine.api import RemoteAccess
from recovery.engine.statuspage import PORT, StatusPage
from recovery.errors import CommandError, UsageError

log = logging.getLogger("rekindle.engine")

SERVICE = "rekindle-ssh.service"
KEYS = Path("/etc/rekindle/authorized_keys")
HOST_KEY = Path("/run/rekindle-ssh/host_ed25519")
#: Told apart at any keyboard and by telephone: Crockford's base32, as one-time codes.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def readable_secret(length: int = 12) -> str:
    """Random letters grouped by four; 12 of them hold 60 bits."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(length))
    return "-".join(letters[i : i + 4] for i in range(0, length, 4))


class Remote:
    """Turns both on and off. Thread-safe. ``page`` makes the status page for a code."""

    def __init__(self, page: Callable[[str], StatusPage], *, keys: Path = KEYS, host_key: Path = HOST_KEY) -> None:
        self._make_page = page
        self._page: StatusPage | None = None
        self._keys = keys
        self._host_key = host_key
        self._password = ""
        self._code = ""
        self._lock = threading.Lock()

    def access(
        self, addresses: tuple[str, ...], ssh: bool | None, status: bool | None, hide: Callable[[str], None]
    ) -> RemoteAccess:
        """Change what is not None; how it is now. ``hide`` learns each secret first. Raises CommandError."""
        with self._lock:
            if ssh is not None:
                self._open_ssh(hide) if ssh else self._close_ssh()
            if status is not None:
                self._open_page(hide) if status else self._close_page()
            running = bool(_systemctl("is-active", check=False))
            hosts = [address.partition("/")[0] for address in addresses]
            # Without an address it is on all the same; one comes when a cable is plugged in.
            names = [f"[{host}]" if ":" in host else host for host in hosts] or ["(no address yet)"]
            urls = (f"http://{name}{self._port()}/{self._code}" for name in names)
            return RemoteAccess(
                ssh=running,
                password=self._password if running else "",
                host_key=fingerprint(self._host_key) if running else "",
                keys=count_keys(self._keys),
                addresses=tuple(hosts),
                status=tuple(urls) if self._page else (),
            )

    def wanted_at_start(self, words: list[str]) -> tuple[bool, bool]:
        """(SSH with a one-time password, status page) as the kernel's ``rekindle.`` words ask for them. Keys on the
        medium are a wish for SSH too, without a password."""
        if count_keys(self._keys):
            _systemctl("start", check=False)
        names = {word.partition("=")[0] for word in words if word.partition("=")[2] not in ("0", "no", "off")}
        return "ssh" in names, "status" in names

    def close(self) -> None:
        """The engine ends: the page with it. SSH sessions stay, as other windows do."""
        with self._lock:
            self._close_page()

    def _open_ssh(self, hide: Callable[[str], None]) -> None:
        password = readable_secret()
        hide(password)
        # chpasswd reads it from its input: it is in no command line.
        run(["chpasswd"], input=f"root:{password}\n".encode(), timeout=30)
        self._password = password
        _systemctl("start")
        log.info("SSH is on, with a one-time password")

    def _close_ssh(self) -> None:
        _systemctl("stop")
        run(["usermod", "-p", "*", "root"], timeout=30)
        self._password = ""
        log.info("SSH is off")

    def _open_page(self, hide: Callable[[str], None]) -> None:
        if self._page is not None:
            return
        self._code = readable_secret()
        hide(self._code)
        self._page = self._make_page(self._code)
        try:
            self._page.start()
        except OSError as error:
            self._page = None
            raise UsageError(
                f"The status page can't be served: {error.strerror}.", hint="Something else has its port."
            ) from error
        log.info("the status page is on")

    def _close_page(self) -> None:
        if self._page is not None:
            self._page.stop()
            self._page = None
            log.info("the status page is off")

    def _port(self) -> str:
        port = self._page.port if self._page else PORT
        return "" if port == 80 else f":{port}"


def count_keys(keys: Path) -> int:
    """Public keys that may log in without a password."""
    with contextlib.suppress(OSError):
        lines = keys.read_text().splitlines()
        return len([line for line in lines if line.strip() and not line.lstrip().startswith("#")])
    return 0


def fingerprint(host_key: Path) -> str:
    """``SHA256:...`` as ssh shows it when it first meets this machine; empty when there is no key yet."""
    try:
        said = run(["dropbearkey", "-y", "-f", host_key], check=False, timeout=30).stdout
    except CommandError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in said.splitlines() if line.startswith("Fingerprint:")), "")


def _systemctl(verb: str, *, check: bool = True) -> bool:
    try:
        return bool(run(["systemctl", verb, SERVICE], check=check, timeout=60))
    except CommandError:
        if check:
            raise
        return False  # a workstation without systemd
