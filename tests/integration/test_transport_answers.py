"""What other sides than our own server may answer: each is one clear error or one more attempt, never somebody else's
answer. By a socket that says just what the test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from recovery.errors import RekindleError, UnreachableError
from recovery.repository import transport as module
from recovery.repository.tls import Trust
from recovery.repository.transport import Transport
from recovery.units import MIB

Answer = Callable[[socket.socket, int], None]


class Side:
    """The other side: ``answer`` is called with each connection and its number, from 0."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection, self.connections - 1), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            self._answer(connection, number)

    def close(self) -> None:
        """No more connections."""
        self._listener.close()


@contextlib.contextmanager
def speaking(answer: Answer, patience: float = 5.0) -> Iterator[tuple[Transport, Side]]:
    """A Transport to such a side."""
    side = Side(answer)
    try:
        yield Transport(side.url, Trust(plain=True), patience=patience), side
    finally:
        side.close()


def head(connection: socket.socket) -> bytes:
    """The head of a request; empty at the end of the connection."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = connection.recv(1)
        if not piece:
            return b""
        found += piece
    return found


def said(status: str, body: bytes = b"", more: str = "") -> bytes:
    """A whole answer."""
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_proxy_that_refuses_a_large_body_is_heard() -> None:
    def refuse(connection: socket.socket, number: int) -> None:
        head(connection)
        connection.sendall(said("413 Payload Too Large", more="Connection: close\r\n"))
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)

    with speaking(refuse) as (transport, side):
        with pytest.raises(RekindleError, match="413"):
            transport.call("PUT", "/v1/objects/x", data=bytearray(64 * MIB))
        assert side.connections == 1


def test_the_rest_of_a_broken_answer_is_not_taken_for_the_next_one() -> None:
    def broken(connection: socket.socket, number: int) -> None:
        while head(connection):
            if number:
                connection.sendall(said("200 OK", b"right"))
                continue
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
            time.sleep(0.3)
            connection.sendall(said("403 Forbidden"))

    with speaking(broken) as (transport, side):
        assert transport.call("GET", "/v1/list").body == b"right"
        assert side.connections == 2


def test_what_came_before_a_reset_is_not_asked_for_again() -> None:
    size, asked = 8 * MIB, list[bytes]()

    def cut(connection: socket.socket, number: int) -> None:
        request = head(connection)
        start = int(request.partition(b"bytes=")[2].partition(b"-")[0])
        asked.append(request)
        body = bytes(size - start)
        more = f"Content-Range: bytes {start}-{size - 1}/{size}\r\n"
        answer = said("206 Partial Content", body, more)
        connection.sendall(answer if number else answer[: 5 * MIB])
        if not number:
            time.sleep(0.5)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset

    with speaking(cut) as (transport, _):
        transport.call("GET", "/v1/objects/x", into=memoryview(bytearray(size)))
    assert len(asked) == 2
    assert int(asked[1].partition(b"bytes=")[2].partition(b"-")[0]) >= 4 * MIB


def test_a_slow_upload_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for each byte's way, not for a whole pack's."""
    monkeypatch.setattr(module, "_READ_SECONDS", 1.0)
    size = 32 * MIB

    def slow(connection: socket.socket, number: int) -> None:
        head(connection)
        left = size
        while left and (piece := connection.recv(min(left, 256 * 1024))):
            left -= len(piece)
            time.sleep(0.015)
        connection.sendall(said("201 Created"))

    with speaking(slow, patience=0.0) as (transport, _):
        begin = time.monotonic()
        assert transport.call("PUT", "/v1/objects/x", data=memoryview(bytes(size))).status == 201
        assert time.monotonic() - begin > 1.0


def test_close_ends_what_another_thread_waits_for_at_once() -> None:
    """That thread goes on as after any connection that broke."""

    def stall(connection: socket.socket, number: int) -> None:
        head(connection)
        if number:
            connection.sendall(said("200 OK", b"right"))
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        time.sleep(20)

    with speaking(stall) as (transport, _):
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(transport.call("GET", "/v1/list").body))
        reader.start()
        time.sleep(0.3)
        begin = time.monotonic()
        transport.close()
        reader.join(10)
        assert time.monotonic() - begin < 10
        assert found == [b"right"]


def test_a_login_that_cannot_be_sent_spoils_nothing() -> None:
    requests: list[bytes] = []

    def listen(connection: socket.socket, number: int) -> None:
        while request := head(connection):
            requests.append(request)
            connection.sendall(said("200 OK", b"right"))

    with speaking(listen) as (transport, _):
        with pytest.raises(UnreachableError, match="cannot be sent") as caught:
            transport.call("GET", "/v1/first", token="secret\r\nX-Evil: 1")
        assert "secret" not in caught.value.message
        assert transport.call("GET", "/v1/second", token="good").body == b"right"
    assert [request.split(b"\r\n")[0] for request in requests] == [b"GET /v1/second HTTP/1.1"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 999999999999999\r\n\r\nabc",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"\x1b[2J\x1b[31mSSH-2.0 evil\nsecond line\r\n",
    ],
)
def test_nonsense_is_one_clear_error(answer: bytes) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        head(connection)
        connection.sendall(answer)

    with speaking(talk, patience=0.0) as (transport, _):
        with pytest.raises(RekindleError) as caught:
            transport.call("GET", "/v1/list")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 400
