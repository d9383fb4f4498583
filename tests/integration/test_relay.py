"""The network that tests cut: what goes through it, and that all of it ends at once when it is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.lab.hardware import free_port
from tests.support.relay import Relay


@pytest.fixture
def relay() -> Iterator[Relay]:
    """To a server that says everything back."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    made = Relay(free_port()[0], server.getsockname()[1])
    yield made
    made.close()
    server.close()


def ask(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    answer = b""
    while len(answer) < len(text) and (data := connection.recv(65536)):
        answer += data
    return answer


def test_a_cut_ends_what_is_open_and_refuses_what_comes(relay: Relay) -> None:
    text = bytes(range(256)) * 1000
    with socket.create_connection(("127.0.0.1", relay.port), 10) as connection:
        assert ask(connection, b"first") == b"first"
        relay.cut()
        with pytest.raises(OSError):
            for _ in range(100):
                if not ask(connection, b"second"):
                    raise ConnectionError("it ended")
        with socket.create_connection(("127.0.0.1", relay.port), 10) as refused, pytest.raises(OSError):
            if not ask(refused, b"third"):
                raise ConnectionError("it ended")
    relay.mend()
    with socket.create_connection(("127.0.0.1", relay.port), 10) as connection:
        assert ask(connection, text[:4096]) == text[:4096]
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b""
