"""What a service knows of systemd, and tells it about itself."""

from __future__ import annotations

import contextlib
import os
import socket


def is_service() -> bool:
    """Whether systemd started this very process, and not a shell that started it (systemd.exec(5))."""
    return os.environ.get("SYSTEMD_EXEC_PID", "") == str(os.getpid())


def notify(state: str) -> None:
    """Send ``state`` (``READY=1``, ``STOPPING=1``: sd_notify(3)) when systemd asked to be told; never an error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
