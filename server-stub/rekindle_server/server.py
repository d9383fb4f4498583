"""The server: what it is made of, where it listens, certificates renewed while it runs."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
from pathlib import Path

import msgspec

from recovery.errors import AccessError, BusyError, UsageError
from rekindle_server.app import App
from rekindle_server.certificates import ServerCertificate, ensure_certificate, own_names
from rekindle_server.handler import Handler
from rekindle_server.listener import STOP_SECONDS, Listener
from rekindle_server.lookup import ChunkLookup
from rekindle_server.objects import RESERVE, Objects
from rekindle_server.plain import PlainHandler, PlainPacks
from rekindle_server.ratelimit import RateLimiter
from rekindle_server.state import State

log = logging.getLogger("rekindle.server")

DEFAULT_PORT = 8443
_RENEW_CHECK_SECONDS = 86400.0


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and how. ``names`` are added to the certificate; ``address`` "" means every address.

    ``plain_packs``: address and port where packs are also read by plain HTTP and signed requests.
    """

    root: Path
    state: Path
    address: str = ""
    port: int = DEFAULT_PORT
    names: tuple[str, ...] = ()
    tls: bool = True
    plain_packs: tuple[str, int] | None = None
    reserve: int = RESERVE


class Server:
    """A repository server that was set up; ``run()`` serves until ``stop()``."""

    def __init__(self, config: ServerConfig, limiter: RateLimiter | None = None) -> None:
        """Raises NotFoundError (no repository), BusyError (port or directory taken), AccessError, UsageError."""
        self.config = config
        self.objects = Objects(config.root, config.reserve)
        try:
            self.state = State(config.state)
            self.certificate = self._ensure_certificate() if config.tls else None
            lookup = ChunkLookup(config.root, config.state)
            self.app = App(self.objects, self.state, lookup, limiter or RateLimiter())
            self.listener = _listen(config.address, config.port, self.app, Handler, "--listen")
            self.plain_listener = self._offer_plain_packs()
        except BaseException:
            self.objects.close()
            raise
        if self.certificate is not None:
            self.listener.use_certificate(self.certificate)
        self._stopped = threading.Event()

    def _offer_plain_packs(self) -> Listener | None:
        if self.config.plain_packs is None:
            return None
        try:
            listener = _listen(*self.config.plain_packs, self.app, PlainHandler, "--plain-packs")
        except BaseException:
            self.listener.server_close()
            raise
        listener.plain = self.listener.plain = PlainPacks(self.app, listener.port)
        return listener

    def _ensure_certificate(self) -> ServerCertificate:
        names = [*own_names(), *self.config.names]
        if self.config.address and not ipaddress.ip_address(self.config.address).is_unspecified:
            names.append(self.config.address)
        return ensure_certificate(self.config.state / "tls", list(dict.fromkeys(names)))

    @property
    def url(self) -> str:
        """Where it answers: by the address it was told, else by the host's name."""
        host = self.config.address or socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.config.tls else 'http'}://{host}:{self.listener.port}"

    def run(self) -> None:
        """Serve until stop() was called and running requests have ended."""
        self.app.lookup.start()
        if self.config.tls:
            threading.Thread(target=self._renew_certificate, name="certificate", daemon=True).start()
        if self.plain_listener is not None:
            threading.Thread(target=self.plain_listener.serve_forever, args=(0.2,), name="plain", daemon=True).start()
        try:
            self.listener.serve_forever(poll_interval=0.2)
        finally:
            self._stopped.wait(STOP_SECONDS + 5)
            self.app.lookup.close()
            self.state.close()
            self.objects.close()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop gracefully; call it from another thread than run()'s."""
        others = [self.plain_listener] if self.plain_listener is not None else []
        stops = [threading.Thread(target=listener.stop, args=(seconds,)) for listener in others]
        for thread in stops:
            thread.start()
        self.listener.stop(seconds)
        for thread in stops:
            thread.join()
        self._stopped.set()

    def _renew_certificate(self) -> None:
        while not self._stopped.wait(_RENEW_CHECK_SECONDS):
            try:
                self.listener.use_certificate(self._ensure_certificate())
            except (OSError, ssl.SSLError, UsageError) as error:
                log.warning("The certificate could not be renewed: %s", error)


def _listen(address: str, port: int, app: App, handler: type[Handler], option: str) -> Listener:
    try:
        return Listener(address, port, app, handler)
    except PermissionError as error:
        raise AccessError(f"Port {port} may not be used: {error.strerror}.", hint="Choose one above 1023.") from error
    except OSError as error:
        raise BusyError(
            f"The server cannot listen on {address or 'any address'}, port {port}: {error.strerror}.",
            hint=f"Another program may use it; choose another with {option} ADDRESS:PORT.",
        ) from error
    except ValueError as error:
        raise UsageError(f"'{address}' is not an IP address.", hint=f"See {option}.") from error
