"""systemd is told, when it asked."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from recovery.systemd import is_service, notify


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_told_on_the_socket_that_it_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@rekindle-{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_nobody_asked_or_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


def test_a_service_is_what_systemd_started_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYSTEMD_EXEC_PID", raising=False)
    assert not is_service()
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getppid()))  # a shell that the service runs
    assert not is_service()
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    assert is_service()
