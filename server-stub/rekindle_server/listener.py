"""A listening socket: one thread a connection, limits, TLS, a graceful stop."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from rekindle_server.app import App
from rekindle_server.certificates import ServerCertificate
from rekindle_server.ratelimit import address_key

if TYPE_CHECKING:
    from rekindle_server.plain import PlainPacks

log = logging.getLogger("rekindle.server")

MAX_CONNECTIONS = 512
#: So that one address cannot take all of them.
MAX_CONNECTIONS_PER_ADDRESS = 128
STOP_SECONDS = 30.0
_HANDSHAKE_SECONDS = 15.0


class Listener(socketserver.TCPServer):
    """The listening socket, its connections and what they are doing. ``address`` "" means every address."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, app: App, handler: type[BaseHTTPRequestHandler]) -> None:
        """Raises OSError when it cannot listen there, ValueError when ``address`` is none."""
        self.app = app
        self.ca_pem: bytes | None = None
        self.context: ssl.SSLContext | None = None
        self.certificate_expires = 0.0
        self.stopping = False
        #: Who may read packs by plain HTTP; None when nobody may.
        self.plain: PlainPacks | None = None
        self._lock = threading.Lock()
        #: connection -> whether it is in the middle of a request
        self._connections: dict[Any, bool] = {}
        self._addresses: Counter[str] = Counter()
        everywhere = not address
        version = 6 if everywhere and socket.has_dualstack_ipv6() else 4
        if not everywhere:
            version = ipaddress.ip_address(address).version
        self.address_family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._dual = everywhere and self.address_family == socket.AF_INET6
        super().__init__((address, port), handler)

    def server_bind(self) -> None:
        """Bind; to both IPv4 and IPv6 when no address was given."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if self._dual else 1)
        super().server_bind()

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self.server_address[1])

    def use_certificate(self, certificate: ServerCertificate) -> None:
        """Serve new connections with this certificate."""
        if self.context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            context.options |= ssl.OP_NO_RENEGOTIATION
            self.context = context
        self.context.load_cert_chain(certificate.certificate_path, certificate.key_path)
        self.ca_pem = certificate.ca_path.read_bytes()
        self.certificate_expires = certificate.expires

    # -- connections ----------------------------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, unless there are too many."""
        address = address_key(client_address[0])
        with self._lock:
            mine = self._addresses[address]
            full = len(self._connections) >= MAX_CONNECTIONS or mine >= MAX_CONNECTIONS_PER_ADDRESS or self.stopping
            if not full:
                self._connections[request] = False
                self._addresses[address] += 1
        if full:
            self.shutdown_request(request)
            return
        threading.Thread(target=self._serve, args=(request, client_address), daemon=True).start()

    def _serve(self, plain: socket.socket, client_address: Any) -> None:
        request: socket.socket = plain
        try:
            if self.context is not None:
                plain.settimeout(_HANDSHAKE_SECONDS)
                request = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                with self._lock:  # wrapping took the descriptor away from the plain socket
                    self._connections.pop(plain, None)
                    self._connections[request] = False
                request.do_handshake()
            self.finish_request(request, client_address)
        except OSError as error:
            log.debug("Connection from %s ended: %s", client_address[0], error)
        except Exception:
            log.exception("Bug: a connection failed unexpectedly")
        finally:
            with self._lock:
                self._connections.pop(request, None)
                self._addresses[address_key(client_address[0])] -= 1
                self._addresses += Counter()  # drops those at zero
            self.shutdown_request(request)

    def begin_request(self, request: Any) -> bool:
        """A request arrived on the connection; False when it is too late to begin one."""
        with self._lock:
            self._connections[request] = True
            return not self.stopping

    def end_request(self, request: Any) -> bool:
        """The request is answered; False when the connection should not wait for another."""
        with self._lock:
            self._connections[request] = False
            return not self.stopping

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Accept nothing more, let running requests finish for at most ``seconds``, close everything."""
        with self._lock:
            self.stopping = True
            idle = [connection for connection, busy in self._connections.items() if not busy]
        self.shutdown()
        self.server_close()
        for connection in idle:
            _shut(connection)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                if not self._connections:
                    return
            time.sleep(0.05)
        with self._lock:
            rest = list(self._connections)
        for connection in rest:
            _shut(connection)

    def open_connections(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._connections)


def _shut(connection: socket.socket) -> None:
    # Not SSLSocket.shutdown: it would wait for a lock that the connection's thread may hold.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
