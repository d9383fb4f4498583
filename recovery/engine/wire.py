"""What goes over the engine's socket: one JSON object a line.

Request ``{"id", "method", "params"}``; answer ``{"id", "result"}`` or ``{"id", "error"}``. ``events`` is answered with
``{"id", "number", "event"}`` for each event and an ordinary answer at the end. Methods are those of EngineApi;
parameters and results are converted by its annotations, so the contract is written down once.
"""

from __future__ import annotations

import inspect
import socket
from functools import cache
from typing import Any, get_type_hints

import msgspec

from recovery.engine.api import EngineApi
from recovery.errors import ErrorReport, UsageError
from recovery.events import Event

#: No request is larger than this: a plan's choices and confirmations are a few KiB.
MAX_LINE = 64 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A call. ``params`` are the method's arguments by name."""

    id: int
    method: str
    params: dict[str, msgspec.Raw] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A result, an error, or one event of a stream."""

    id: int
    result: Any = None
    error: ErrorReport | None = None
    number: int | None = None
    event: Event | None = None


@cache
def methods() -> dict[str, tuple[dict[str, Any], Any]]:
    """Method name -> (argument name -> type, type of the result)."""
    found = {}
    for name, function in inspect.getmembers(EngineApi, inspect.isfunction):
        if not name.startswith("_"):
            hints = get_type_hints(function)
            found[name] = (hints, hints.pop("return"))
    return found


def read_arguments(request: Request) -> dict[str, Any]:
    """The arguments with their types. Raises UsageError for an unknown method or what does not fit it."""
    if request.method not in methods():
        raise UsageError(
            f"The engine has no method '{request.method}'.", hint="Client and engine are of two versions."
        )
    types, _ = methods()[request.method]
    unknown = set(request.params) - set(types)
    if unknown:
        raise UsageError(f"'{request.method}' has no parameter {', '.join(sorted(unknown))}.")
    try:
        return {name: msgspec.json.decode(raw, type=types[name]) for name, raw in request.params.items()}
    except msgspec.MsgspecError as error:
        # The message names the path of the field, never its value: there may be a secret in it.
        raise UsageError(f"The parameters of '{request.method}' are not right: {error}.") from None


def encode_arguments(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, msgspec.Raw]:
    """Arguments by name, each encoded."""
    names = list(methods()[method][0])
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in given.items()}


class Lines:
    """Lines of a stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def read(self) -> bytes | None:
        """The next line without its end, or None when the other side closed. Raises OSError, UsageError."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise UsageError("A line on the engine's socket is too long.")
            data = self._connection.recv(1 << 16)
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def write(self, message: Request | Answer) -> None:
        """Send one line. Raises OSError when nobody listens any more."""
        self._connection.sendall(msgspec.json.encode(message) + b"\n")
