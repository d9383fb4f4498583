"""Counters and gauges in the Prometheus text format, version 0.0.4, by hand."""

from __future__ import annotations

import threading
from collections import defaultdict

Labels = tuple[tuple[str, str], ...]

#: name -> (type, help)
CATALOGUE = {
    "rekindle_requests_total": ("counter", "Requests by method, route and status."),
    "rekindle_request_seconds_total": ("counter", "Time spent answering, by route."),
    "rekindle_sent_bytes_total": ("counter", "Bytes of bodies sent."),
    "rekindle_received_bytes_total": ("counter", "Bytes of bodies received."),
    "rekindle_objects_stored_total": ("counter", "Uploads by kind and outcome."),
    "rekindle_logins_total": ("counter", "Attempts to log in, by way and result."),
    "rekindle_connections": ("gauge", "Open connections."),
    "rekindle_free_bytes": ("gauge", "Room left on the repository's filesystem."),
    "rekindle_certificate_expiry_seconds": ("gauge", "When the server's certificate ends, seconds since the epoch."),
    "rekindle_index_ready": ("gauge", "1 when the chunk index knows every pack."),
}


class Metrics:
    """The figures of a running server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count."""
        with self._lock:
            self._values[name][tuple(sorted(labels.items()))] += amount

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[name][()] = value

    def value(self, name: str, **labels: str) -> float:
        """What a figure is now."""
        with self._lock:
            return self._values[name][tuple(sorted(labels.items()))]

    def render(self) -> str:
        """The page."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, text) in CATALOGUE.items():
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                for labels, value in sorted(self._values[name].items()):
                    inner = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
                    lines.append(f"{name}{{{inner}}} {value:.17g}" if inner else f"{name} {value:.17g}")
        return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
