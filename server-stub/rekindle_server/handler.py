"""HTTP/1.1 on one connection: requests in, answers and errors out, bodies streamed, an access log line each."""

from __future__ import annotations

import errno
import json
import logging
import re
import ssl
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar
from urllib.parse import parse_qs, unquote

import msgspec

from recovery.errors import NotFoundError, RekindleError, UsageError
from recovery.format.names import pack_name
from recovery.units import KIB, MIB
from rekindle_server.app import App, HttpError, status_of
from rekindle_server.body import Body, parse_range
from rekindle_server.gather import MAX_BODY as MAX_PARTS_BODY
from rekindle_server.gather import check_parts, cut, decode_parts
from rekindle_server.lookup import ID_SIZE, MAX_IDS
from rekindle_server.objects import Torn
from rekindle_server.policy import Grant
from rekindle_server.reports import LARGEST as LARGEST_REPORT

if TYPE_CHECKING:
    from rekindle_server.listener import Listener

access_log = logging.getLogger("rekindle.access")
log = logging.getLogger("rekindle.server")

OBJECTS = "/v1/objects/"
_SEND_BLOCK = MIB


class Handler(BaseHTTPRequestHandler):
    """One connection. The answers themselves come from App."""

    protocol_version = "HTTP/1.1"
    server_version = "rekindle"
    sys_version = ""
    disable_nagle_algorithm = True
    #: Seconds without a byte, between requests and within one, until the connection is dropped.
    timeout = 120
    server: Listener
    ROUTES: ClassVar[dict[tuple[str, str], Any]] = {}

    def setup(self) -> None:
        """Nothing was answered yet."""
        super().setup()
        self.app: App = self.server.app
        self.status = 0
        self.sent = 0
        self.actor = "-"
        self.route = "other"
        self.body = Body(self.rfile, 0)

    def handle_one_request(self) -> None:
        """Wait for a request, answer it, write the log line."""
        try:
            self.raw_requestline = self.rfile.readline(65537)
        except (OSError, ValueError):
            self.raw_requestline = b""
        if not self.raw_requestline or not self.server.begin_request(self.request):
            self.close_connection = True
            return
        started = time.monotonic()
        self.status, self.sent, self.actor, self.route = 0, 0, "-", "other"
        self.body = Body(self.rfile, 0)
        self._headers_buffer: list[bytes] = []
        try:
            if self.parse_request():
                self._answer()
        except Torn:
            self.close_connection = True
        except OSError as error:
            # Mostly the client went away while it was being answered; a disk that fails must not pass for that.
            if error.errno == errno.EIO:
                log.error("Reading %s from the disk failed", ascii(self.path))
            self.close_connection = True
        finally:
            self._account(time.monotonic() - started)
            if not self.server.end_request(self.request):
                self.close_connection = True

    def _answer(self) -> None:
        try:
            self.body = Body(self.rfile, self._body_length())
            self._dispatch()
        except HttpError as error:
            self._refuse(error)
        except RekindleError as error:
            self._refuse(HttpError(status_of(error), error))
        except (Torn, OSError):
            raise
        except Exception:
            log.exception("Bug: a request failed unexpectedly")
            bug = RekindleError("The server failed unexpectedly.", hint="Its log says why; please report it.")
            self._refuse(HttpError(500, bug))
        if not self.body.drain():
            self.close_connection = True

    def _body_length(self) -> int:
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if self.headers.get("Transfer-Encoding") or len(lengths) != 1 or not re.fullmatch(r"\d{1,18}", lengths[0]):
            self.close_connection = True
            raise HttpError(411, UsageError("A body needs exactly one Content-Length, and no Transfer-Encoding."))
        return int(lengths[0])

    def _dispatch(self) -> None:
        path, _, query = self.path.partition("?")
        method = self.command
        # A route that ends in '/' is followed by the name of an object.
        folder = next((route for _, route in self.ROUTES if route.endswith("/") and path.startswith(route)), "")
        route = folder or path
        action = self.ROUTES.get((method, route))
        if action is None:
            if any(known == route for _, known in self.ROUTES):
                raise HttpError(405, UsageError(f"{method} is not possible here."))
            raise NotFoundError("There is nothing at this address.")
        self.route = route
        arguments = {name: values[0] for name, values in parse_qs(query).items()}
        action(self, unquote(path[len(folder) :]) if folder else "", arguments)

    # -- answers --------------------------------------------------------------------------------------------------

    def reply(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a whole answer in one piece."""
        self._head(status, len(body), content_type, headers)
        if self.command != "HEAD":
            self._headers_buffer.append(body)
            self.sent += len(body)
        self.flush_headers()

    def _head(self, status: int, length: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self._headers_buffer.append(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode())
        self.close_connection = self.close_connection or self.server.stopping
        lines = {
            "Server": self.server_version,
            "Content-Type": content_type,
            "Date": self.date_time_string(),
            "Content-Length": str(length),
            "Cache-Control": "no-store",
            **(headers or {}),
            **({"Connection": "close"} if self.close_connection else {}),
        }
        # Kept until flush_headers(): head and short body go out together.
        self._headers_buffer += [f"{name}: {value}\r\n".encode() for name, value in lines.items()]
        self._headers_buffer.append(b"\r\n")

    def _refuse(self, error: HttpError) -> None:
        if self.status:  # too late: half of a good answer is on the wire
            self.close_connection = True
            return
        # The client sends its body to the end before it listens.
        if not self.body.drain():
            self.close_connection = True
        report = error.error.report()
        headers = dict(error.headers)
        if self.command == "HEAD":  # has no body to say it in
            headers["Rekindle-Error"] = json.dumps(msgspec.to_builtins(report))
        self.reply(error.status, msgspec.json.encode(report), headers=headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class says about malformed requests, as an ErrorReport."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "?"
        self._refuse(HttpError(code, UsageError(message or HTTPStatus(code).phrase)))

    def send_file(self, file: BinaryIO, offset: int, length: int) -> None:
        """Send part of a file: with sendfile in the clear, in large blocks under TLS."""
        if isinstance(self.request, ssl.SSLSocket):
            file.seek(offset)
            block = memoryview(bytearray(min(_SEND_BLOCK, max(length, 1))))
            left = length
            while left:
                count = file.readinto(block[:left])  # type: ignore[attr-defined]
                if not count:
                    raise ConnectionAbortedError("the object became shorter")
                self.request.sendall(block[:count])
                self.sent += count
                left -= count
        elif length:
            sent = self.request.sendfile(file, offset, length)
            self.sent += sent
            if sent != length:
                raise ConnectionAbortedError("the object became shorter")

    # -- routes ---------------------------------------------------------------------------------------------------

    def _grant(self) -> Grant:
        grant, self.token = self.app.grant(self.headers.get("Authorization"))
        self.actor = f"{grant.actor}:{grant.role}"
        return grant

    def get_object(self, name: str, arguments: dict[str, str]) -> None:
        """GET and HEAD of an object, whole or one range."""
        self.send_object(self.app.readable(self._grant(), name, "stat" if self.command == "HEAD" else "read"))

    def send_object(self, name: str) -> None:
        """All of an object that may be read, or the one range asked for; only the head for HEAD."""
        file, size = self.app.objects.open(name)
        with file:
            wanted = parse_range(self.headers.get("Range", ""), size)
            start, end = wanted or (0, size)
            headers = {"Accept-Ranges": "bytes"}
            if wanted:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            self._head(206 if wanted else 200, end - start, "application/octet-stream", headers)
            self.flush_headers()
            if self.command != "HEAD":
                self.send_file(file, start, end - start)

    def read_parts(self, name: str, arguments: dict[str, str]) -> None:
        """Parts of packs and journals, one after another; one Range of that."""
        self.send_parts(self._grant(), self.body.read(MAX_PARTS_BODY))

    def send_parts(self, grant: Grant, body: bytes) -> None:
        """The parts that a body names, or one range of them all."""
        parts = decode_parts(body)
        for name in {part.name for part in parts}:
            if not name.startswith(("packs/", "journals/")):
                raise UsageError("Only parts of packs and journals are read here.")
            self.app.readable(grant, name, "read")
        size = check_parts(self.app.objects, parts)
        wanted = parse_range(self.headers.get("Range", ""), size)
        start, end = wanted or (0, size)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if wanted else None
        self._head(206 if wanted else 200, end - start, "application/octet-stream", headers)
        self.flush_headers()
        for part in cut(parts, start, end):
            file, _ = self.app.objects.open(part.name)
            with file:
                self.send_file(file, part.offset, part.length)

    def put_object(self, name: str, arguments: dict[str, str]) -> None:
        """PUT of an object, if absent."""
        grant = self._grant()
        if self.headers.get("Content-Length") is None:
            raise HttpError(411, UsageError("An upload needs a Content-Length."))
        parsed = self.app.writable(grant, name, self.body.length)
        self.reply(self.app.put(grant, name, parsed, self.body, self.address()))

    def delete_object(self, name: str, arguments: dict[str, str]) -> None:
        """DELETE of an object."""
        self.app.delete(self._grant(), name, self.address())
        self.reply(200)

    def list_objects(self, name: str, arguments: dict[str, str]) -> None:
        """A page of a listing."""
        page = self.app.list_page(self._grant(), arguments.get("prefix", ""), arguments.get("after", ""))
        self.reply(200, msgspec.json.encode(page))

    def look_up(self, name: str, arguments: dict[str, str]) -> None:
        """Which chunks are stored, and where."""
        grant = self._grant()
        self.reply(200, self.app.look_up(grant, self.body.read(MAX_IDS * ID_SIZE)), "application/octet-stream")

    def login(self, name: str, arguments: dict[str, str]) -> None:
        """A token for a password or a code."""
        self.reply(200, msgspec.json.encode(self.app.login(self.body.read(4 * KIB), self.address())))

    def renew(self, name: str, arguments: dict[str, str]) -> None:
        """More time for a token."""
        self._grant()
        self.reply(200, msgspec.json.encode(self.app.tokens.renew(self.token)))

    def logout(self, name: str, arguments: dict[str, str]) -> None:
        """The end of a token."""
        self._grant()
        self.app.tokens.revoke(self.token)
        self.reply(200)

    def report(self, name: str, arguments: dict[str, str]) -> None:
        """How a run ended, from the medium that made it."""
        grant = self._grant()
        self.app.reports.add(grant, self.body.read(LARGEST_REPORT), self.address())
        self.reply(201)

    def signed_reads(self, name: str, arguments: dict[str, str]) -> None:
        """A key for signed reads of packs by plain HTTP, where the server was told to offer that."""
        grant = self._grant()
        self.app.readable(grant, pack_name("0" * 64), "read")
        if self.server.plain is None:
            raise NotFoundError(
                "This server does not offer reading packs by plain HTTP.",
                hint="Start it with 'rekindle serve --plain-packs', or leave --plain-packs out here.",
            )
        self.app.state.audit(grant.actor, self.address(), "signed reads", "")
        self.reply(200, msgspec.json.encode(self.server.plain.give(self.token)))

    def info(self, name: str, arguments: dict[str, str]) -> None:
        """What anybody may know."""
        self.reply(200, msgspec.json.encode(self.app.info()))

    def ca(self, name: str, arguments: dict[str, str]) -> None:
        """The CA certificate: public, and checked against a fingerprint by who asks."""
        if self.server.ca_pem is None:
            raise NotFoundError("This server has no certificate: it speaks plain HTTP.")
        self.reply(200, self.server.ca_pem, "application/x-pem-file")

    def health(self, name: str, arguments: dict[str, str]) -> None:
        """Whether the repository and the state can be read."""
        self.app.objects.read("repo.json")
        self.app.state.rows("SELECT 1")
        self.reply(200, b'{"status":"ok"}')

    def metrics(self, name: str, arguments: dict[str, str]) -> None:
        """Figures for Prometheus."""
        gauges = self.app.metrics
        gauges.set("rekindle_connections", self.server.open_connections())
        gauges.set("rekindle_free_bytes", self.app.objects.free())
        gauges.set("rekindle_index_ready", float(self.app.lookup.ready.is_set()))
        if self.server.context is not None:
            gauges.set("rekindle_certificate_expiry_seconds", self.server.certificate_expires)
        self.reply(200, self.app.metrics.render().encode(), "text/plain; version=0.0.4; charset=utf-8")

    # -- the log --------------------------------------------------------------------------------------------------

    def address(self) -> str:
        """The client's address; an IPv4 one as such also on a dual-stack socket."""
        return str(self.client_address[0]).removeprefix("::ffff:")

    def _account(self, seconds: float) -> None:
        received = self.body.length - self.body.left
        method = self.command if self.command in ("GET", "HEAD", "PUT", "POST", "DELETE") else "other"
        count = self.app.metrics.add
        count("rekindle_requests_total", method=method, route=self.route, status=str(self.status or 499))
        count("rekindle_request_seconds_total", seconds, route=self.route)
        count("rekindle_sent_bytes_total", self.sent)
        count("rekindle_received_bytes_total", received)
        # Never the query, the headers or a body. What a client made up is quoted.
        path = ascii(str(getattr(self, "path", "?")).partition("?")[0][:300])[1:-1]
        fields = (self.address(), self.actor, method, path, self.status or 499, received, self.sent, seconds * 1000)
        access_log.info("%s %s %s %s %s in=%d out=%d %.1fms", *fields)

    def log_message(self, format: str, *args: Any) -> None:
        """The base class has nothing to add to the access log."""


Handler.ROUTES = {
    ("GET", OBJECTS): Handler.get_object,
    ("HEAD", OBJECTS): Handler.get_object,
    ("PUT", OBJECTS): Handler.put_object,
    ("DELETE", OBJECTS): Handler.delete_object,
    ("POST", "/v1/read"): Handler.read_parts,
    ("GET", "/v1/list"): Handler.list_objects,
    ("POST", "/v1/chunks/lookup"): Handler.look_up,
    ("POST", "/v1/login"): Handler.login,
    ("POST", "/v1/renew"): Handler.renew,
    ("POST", "/v1/logout"): Handler.logout,
    ("POST", "/v1/reports"): Handler.report,
    ("POST", "/v1/signed"): Handler.signed_reads,
    ("GET", "/v1/info"): Handler.info,
    ("GET", "/v1/ca.pem"): Handler.ca,
    ("GET", "/healthz"): Handler.health,
    ("GET", "/metrics"): Handler.metrics,
}
