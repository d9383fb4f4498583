"""A read-only page for a browser that shows the run: ``http://ADDRESS/CODE`` with the code on the console's screen.

Plain HTTP, because nobody could check a certificate that was made a minute ago: who listens on the wire sees what the
page shows, names and progress, and no secret. There is nothing on it that could be pressed.
"""

from __future__ import annotations

import hmac
import html
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from recovery.engine.api import RunState, Unattended
from recovery.events import Event, Message, Progress, StepFinished, StepStarted
from recovery.plan.model import RestorePlan
from recovery.plan.vm import VmPlan
from recovery.units import format_duration, format_rate, format_size

PORT = 80
_MESSAGES = 12
#: Wrong codes that one address may send within the seconds; everybody together ten times as many.
_WRONG, _WINDOW = 5, 60.0
_CONNECTIONS = 16
_STYLE = (
    "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}progress{width:100%}"
    "li.running{font-weight:bold}.error{border-left:.4em solid;padding-left:.6em}"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
}  # fmt: skip

#: What the page is made of: the state, the events so far, and how an unattended restore is.
Look = Callable[[], tuple[RunState, list[Event], Unattended]]


class StatusPage:
    """Serves the page until ``stop``."""

    def __init__(
        self, code: str, look: Look, *, port: int = PORT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._code = code.encode()
        self._look = look
        self._port = port
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: list[tuple[float, str]] = []
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1]) if self._server else self._port

    def start(self) -> None:
        """Listen on every address. Raises OSError."""
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version, sys_version = "rekindle", ""

            def do_GET(self) -> None:
                status, body = page.answer(self.path, str(self.client_address[0]))
                self.send_response(status)
                for name, value in {**_HEADERS, "Content-Type": "text/html; charset=utf-8"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """The path holds the code: it is logged nowhere."""

        self._server = _Server(("::" if socket.has_dualstack_ipv6() else "", self._port), Handler, self._places)
        threading.Thread(target=self._server.serve_forever, daemon=True, name="status page").start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, path: str, address: str) -> tuple[int, bytes]:
        """Status and body for a request. An address that guesses is not even told that it guessed right."""
        if self._guesses(address):
            return 429, _page("Too many wrong codes", "<p>Wait a minute, then try again.</p>", refresh=0)
        typed = path.partition("?")[0].strip("/").upper().encode("utf-8", "replace")
        if not hmac.compare_digest(typed, self._code):
            with self._lock:
                self._wrong.append((self._clock(), address))
            return 404, _page("Not found", "<p>The address with its code is on the console's screen.</p>", refresh=0)
        state, events, unattended = self._look()
        return 200, render(state, events, unattended)

    def _guesses(self, address: str) -> bool:
        with self._lock:
            self._wrong = [(at, who) for at, who in self._wrong if self._clock() - at < _WINDOW]
            mine = sum(who == address for _, who in self._wrong)
            return mine >= _WRONG or len(self._wrong) >= 10 * _WRONG


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], places: Any) -> None:
        self.address_family = socket.AF_INET6 if address[0] else socket.AF_INET
        self._places = places
        super().__init__(address, handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return bool(self._places.acquire(blocking=False))

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


def render(state: RunState, events: list[Event], unattended: Unattended) -> bytes:
    """The page as HTML. Pure; everything that comes from hosts and errors is escaped."""
    plan = state.plan or state.vm_plan
    host = plan.choices.host if plan else ""
    if isinstance(plan, VmPlan):
        host = f"{plan.vm.name} of {host}"
    title = f"{host}: {state.phase}" if host else "No restore is running"
    parts = []
    if unattended.phase != "off":
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in unattended.reasons)
        parts.append(f"<p>Unattended: {html.escape(unattended.message)}</p><ul>{reasons}</ul>")
    if state.error is not None:
        parts.append(f'<p class="error">{html.escape(state.error.message)} {html.escape(state.error.hint)}</p>')
    if plan is not None:
        disks = {event.disk: event for event in events if isinstance(event, Progress) and event.disk}
        parts += [_bar(f"{disk} to {target}", disks.get(disk), size) for disk, target, size in _writes(plan)]
        done = {event.step for event in events if isinstance(event, StepFinished)}
        begun = {event.step: event.title for event in events if isinstance(event, StepStarted)}
        titles = {**begun, **{step.id: step.title for step in plan.steps}}
        items = []
        for step, text in titles.items():
            mark = "done" if step in done else "running" if step in begun and state.phase == "running" else "waiting"
            items.append(f'<li class="{mark}">{html.escape(text)} <em>({mark})</em></li>')
        parts.append(f"<ol>{''.join(items)}</ol>")
    said = [event for event in events if isinstance(event, Message) and event.level != "debug"][-_MESSAGES:]
    lines = "".join(f"<li>{time.strftime('%H:%M:%S', time.gmtime(e.at))} {html.escape(e.text)}</li>" for e in said)
    parts.append(f"<ul>{lines}</ul><p>{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC</p>")
    return _page(title, "".join(parts), refresh=2)


def _writes(plan: RestorePlan | VmPlan) -> list[tuple[str, str, int]]:
    """(disk as its progress is called, what it goes to, bytes)."""
    if isinstance(plan, VmPlan):
        return [(file.target, file.name, file.size) for file in plan.files]
    return [(a.source.name, a.target.path, a.source.size) for a in plan.assignments]


def _bar(name: str, progress: Progress | None, size: int) -> str:
    done, total = (progress.done, progress.total) if progress else (0, size)
    words = [f"{format_size(done)} of {format_size(total)}"]
    if progress is not None and done < total:
        words += [format_rate(progress.rate)] if progress.rate else []
        words += [f"{format_duration(progress.eta)} left"] if progress.eta is not None else []
    text = html.escape(f"{name}: {', '.join(words)}")
    return f'<p>{text}<br><progress max="{max(total, 1)}" value="{done}"></progress></p>'


def _page(title: str, body: str, *, refresh: int) -> bytes:
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}<title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{body}</body></html>"
    ).encode()
