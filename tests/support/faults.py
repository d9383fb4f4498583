"""A proxy before a repository server that does to each answer what a test asks for: networks are bad."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Fault:
    """What to do to one answer; several at once are possible.

    ``reset``: the connection is reset before the answer. ``stall``: nothing comes any more after ``cut`` bytes of the
    body (None: not even the head), until ``Faults.release``. ``cut``: only so many bytes of the body, then the
    connection ends. ``claim`` is added to Content-Length. ``shorter``: so many bytes fewer, said honestly. ``extra``
    follows the body. ``whole``: the Range is not passed on (200). ``headers`` replace those of the answer. ``flip``:
    this byte of the body is wrong. ``status``: answered with this instead. ``rate``: bytes a second.
    """

    reset: bool = False
    stall: bool = False
    cut: int | None = None
    claim: int = 0
    shorter: int = 0
    extra: bytes = b""
    whole: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    flip: int | None = None
    status: int = 0
    rate: int = 0


@dataclass(frozen=True)
class Seen:
    """A request: method, path, the first byte of its range, and how many came before it (of those that count)."""

    method: str
    path: str
    start: int
    number: int


Script = Callable[[Seen], Fault | None]


class Faults:
    """A plain-HTTP proxy to ``127.0.0.1:port`` on a port of its own. Requests for packs count; others pass unharmed,
    unless ``everything``. Set ``script``, or use ``next`` and ``always``; ``dealt`` are the faults that happened,
    ``sent`` the bytes of packs that went to the client. Once ``hurry`` is set no ``rate`` holds any more."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.script: Script = lambda seen: None
        self.everything = False
        self.dealt: list[Fault] = []
        self.seen: list[Seen] = []
        self.sent = 0
        self.stalled = threading.Event()
        self.hurry = threading.Event()
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self.accept()

    @property
    def url(self) -> str:
        """Where the proxy answers."""
        return f"http://127.0.0.1:{self._port}"

    def next(self, *faults: Fault | None) -> None:
        """These happen to the next requests in this order; those after them pass."""
        todo = iter(faults)
        self.script = lambda seen: next(todo, None)

    def always(self, fault: Fault) -> None:
        """This happens to every request from now on."""
        self.script = lambda seen: fault

    def each(self, faults: Iterable[Fault], good: int) -> None:
        """Each of these once, with ``good`` requests that pass before each."""
        self.next(*(step for fault in faults for step in (*(None,) * good, fault)))

    def refuse(self) -> None:
        """Nothing listens any more, and all connections are reset."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            _reset(connection)

    def accept(self) -> None:
        """Listen (again), on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.faults = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def release(self) -> None:
        """End all stalls; their connections are closed."""
        self._released.set()
        self.hurry.set()

    def close(self) -> None:
        """End everything."""
        self.release()
        self.refuse()

    # -- for the handler ------------------------------------------------------------------------------------------

    def judge(self, method: str, path: str, start: int) -> Fault:
        """What happens to this request."""
        if not (self.everything or "/packs/" in path or path == "/v1/read"):
            return Fault()
        with self._lock:
            seen = Seen(method, path, start, len(self.seen))
            self.seen.append(seen)
            fault = self.script(seen)
            if fault is not None:
                self.dealt.append(fault)
        return fault or Fault()

    def settle(self, seconds: float = 20.0) -> None:
        """Wait until no connection is open: after a client was killed the last pieces are still on their way."""
        deadline = time.monotonic() + seconds
        while self._connections:
            assert time.monotonic() < deadline, "connections stay open"
            time.sleep(0.01)

    def count(self, length: int) -> None:
        """So many bytes of a pack go out."""
        with self._lock:
            self.sent += length

    def hang(self) -> None:
        """Wait for ``release``."""
        self.stalled.set()
        self._released.wait(300)

    def connected(self, connection: socket.socket, here: bool) -> None:
        """Keep the books of open connections."""
        with self._lock:
            (self._connections.add if here else self._connections.discard)(connection)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    faults: Faults

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Only close: after ``_reset`` that sends a reset, where shutdown would end the connection in good order."""
        assert isinstance(request, socket.socket)
        request.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.faults.connected(self.connection, True)
        self.up = http.client.HTTPConnection("127.0.0.1", self.server.faults.upstream, timeout=30)

    def finish(self) -> None:
        self.server.faults.connected(self.connection, False)
        self.up.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fault = self.server.faults.judge(self.command, self.path, int(asked[1]) if asked else 0)
        if fault.reset or (fault.stall and fault.cut is None):
            self.close_connection = True
            if fault.reset:
                _reset(self.connection)
            else:
                self.server.faults.hang()
        elif fault.status:
            self._send(fault, fault.status, {}, b"made by the proxy")
        else:
            self._forward(fault, body)

    def _forward(self, fault: Fault, body: bytes) -> None:
        dropped = {"Host", "Connection"} | ({"Range"} if fault.whole else set())
        headers = {name: value for name, value in self.headers.items() if name not in dropped}
        try:
            self.up.request(self.command, self.path, body or None, headers)
            answer = self.up.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):  # the server is away: so it seems to the proxy's client
            self.up.close()
            self.close_connection = True
            _reset(self.connection)
            return
        kept = {name: value for name, value in answer.getheaders() if name not in ("Connection", "Content-Length")}
        length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else None
        self._send(fault, answer.status, kept, content, length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def _send(
        self, fault: Fault, status: int, headers: Mapping[str, str], content: bytes, length: int | None = None
    ) -> None:
        if fault.shorter:
            content = content[: -fault.shorter]
            if first := re.match(r"bytes (\d+)-", headers.get("Content-Range", "")):
                last = int(first[1]) + len(content) - 1
                headers = {**headers, "Content-Range": f"bytes {first[1]}-{last}/{last + 1}"}
        if fault.flip is not None and fault.flip < len(content):
            content = content[: fault.flip] + bytes([content[fault.flip] ^ 1]) + content[fault.flip + 1 :]
        length = (len(content) if length is None else length) + fault.claim
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(length), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault.cut is not None or fault.claim > 0:
            content = content[: fault.cut]
            self.close_connection = True
        self._write(content + fault.extra, fault.rate)
        if fault.stall:
            self.server.faults.hang()

    def _write(self, content: bytes, rate: int) -> None:
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            self.server.faults.count(len(piece) if "/packs/" in self.path else 0)
            self.wfile.write(piece)
            if rate:
                self.server.faults.hurry.wait(len(piece) / rate)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        # Not close: its own thread does, once it wakes up from reading.
        connection.shutdown(socket.SHUT_RD)
