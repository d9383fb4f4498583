"""The engine on a unix socket. Each connection has a thread; a client that dies matters to nobody else."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from pathlib import Path

import msgspec

from recovery.engine.engine import Engine
from recovery.engine.wire import Answer, Lines, Request, methods, read_arguments
from recovery.errors import BusyError, ErrorReport, RekindleError, UsageError

log = logging.getLogger("rekindle.server")

#: How often a stream looks whether its client is still there, seconds.
_LOOK_AROUND = 1.0


class EngineServer:
    """Serves ``engine`` at ``path`` (mode 0600: only the same user, root on the medium, may speak to it)."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._listener = _listen(path)
        self._stopping = threading.Event()

    def serve(self) -> None:
        """Accept clients until ``stop``."""
        log.info("the engine listens on %s", self._path)
        while not self._stopping.is_set():
            try:
                ready, _, _ = select.select([self._listener], [], [], _LOOK_AROUND)
                if not ready:
                    continue
                connection, _ = self._listener.accept()
            except (OSError, ValueError):
                if self._stopping.is_set():
                    break
                raise
            threading.Thread(target=self._serve_client, args=(connection,), daemon=True, name="client").start()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Accept nobody any more; ``serve`` returns soon."""
        self._stopping.set()

    def _serve_client(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, UsageError):  # gone, or a line without an end
            lines = Lines(connection)
            while (line := lines.read()) is not None:
                try:
                    request = msgspec.json.decode(line, type=Request)
                except msgspec.MsgspecError:
                    problem = UsageError("A request on the engine's socket could not be read.")
                    lines.write(Answer(id=0, error=problem.report()))
                    return
                if request.method == "events":
                    if not self._stream(connection, lines, request):
                        return
                else:
                    lines.write(self._answer(request))

    def _answer(self, request: Request) -> Answer:
        try:
            arguments = read_arguments(request)
            result = getattr(self._engine, request.method)(**arguments)
            return Answer(id=request.id, result=result)
        except RekindleError as error:
            return Answer(id=request.id, error=error.report())
        except Exception:
            # A bug must not take the engine down, and its text may hold anything: it goes to the log only.
            log.exception("bug in %s", request.method)
            report = ErrorReport("RekindleError", "The engine met an unexpected error.", "See the log.", 70)
            return Answer(id=request.id, error=report)

    def _stream(self, connection: socket.socket, lines: Lines, request: Request) -> bool:
        """Send events until the run has ended (True), or the client or this server goes away."""
        try:
            since = int(read_arguments(request).get("since", 0))
        except RekindleError as error:
            lines.write(Answer(id=request.id, error=error.report()))
            return True
        events = self._engine.event_log()
        # An engine that was restarted knows nothing of the numbers of before.
        since = min(since, events.count)
        while not self._stopping.is_set():
            for number, event in events.read(since, _LOOK_AROUND):
                lines.write(Answer(id=request.id, number=number, event=event))
                since = number + 1
            if events.finished and since >= events.count:
                lines.write(Answer(id=request.id))
                return True
            if _is_gone(connection):
                return False
        return False


def _is_gone(connection: socket.socket) -> bool:
    ready, _, _ = select.select([connection], [], [], 0)
    return bool(ready) and not connection.recv(1, socket.MSG_PEEK)


def _listen(path: Path) -> socket.socket:
    assert "events" in methods()  # noqa: S101 - the contract and its special case must agree
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise BusyError(
                    f"An engine listens on '{path}' already.", hint="Use that one, or give another --socket."
                )
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise UsageError(f"The socket '{path}' cannot be made: {error.strerror}.", hint="Run as root.") from error
    finally:
        os.umask(before)
    listener.listen(32)
    return listener
