"""The links that tests make are as slow and as far as they say, and a restore gets through them."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from recovery.events import ignore
from recovery.repository.http import HttpStore, Trust
from recovery.repository.repository import Repository
from recovery.restore.disk import RestoreOptions, restore_disk
from tests.support.fault_world import HOST, content
from tests.support.netns import FAR, Link, link
from tests.support.repositories import commit, store_disk
from tests.support.server import ServerRig

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
MIB = 2**20


class Sender:
    """Sends a byte for each that comes, or ``size`` bytes."""

    def __init__(self, way: Link, size: int = 1) -> None:
        with way.far.entered():
            self.socket = socket.create_server((FAR, 0))
        self.port = int(self.socket.getsockname()[1])
        self.size = size
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connection.recv(1):
            connection.sendall(bytes(self.size))


def asked(way: Link, sender: Sender, times: int) -> list[float]:
    """Seconds until each answer was there."""
    with way.near.entered(), socket.create_connection((FAR, sender.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = []
        for _ in range(times):
            begin, left = time.monotonic(), sender.size
            connection.sendall(b"?")
            while left:
                left -= len(connection.recv(min(left, MIB)))
            found.append(time.monotonic() - begin)
        return found


def test_a_far_way_takes_its_time() -> None:
    with link(delay=0.03) as way:
        far = min(asked(way, Sender(way), 30))  # the least of many: the machine may be busy
    with link(delay=0.0) as way:
        near = min(asked(way, Sender(way), 30))
    assert 0.029 <= far - near <= 0.045


def test_a_slow_link_is_no_faster_than_it_says() -> None:
    with link(rate=200_000_000) as way:
        (seconds,) = asked(way, Sender(way, 10 * MIB), 1)
    assert 10 * MIB * 8 / seconds <= 205_000_000


def test_the_outside_is_not_reached(tmp_path: Path) -> None:
    with link() as way, way.near.entered():
        assert {name for _, name in socket.if_nameindex()} == {"lo", "wire"}
    assert "wire" not in {name for _, name in socket.if_nameindex()}


def test_a_restore_over_a_far_slow_link(tmp_path: Path) -> None:
    with link(delay=0.03, rate=400_000_000) as way:
        with way.far.entered():
            rig = ServerRig(tmp_path / "server", tls=False, address=FAR)
        try:
            data = content(size=30 * MIB)
            point = commit(rig.local, HOST, {"disk1": store_disk(rig.local, data, frames_per_pack=20)})
            with way.near.entered():
                store = HttpStore(rig.url, trust=Trust(plain=True), tokens=rig.session("restore"), patience=20)
                repository = Repository(store, rig.local.file, rig.local.keys)
                out = tmp_path / "out.raw"
                assert store.readers == 3, "nothing is known of the way yet"
                options = RestoreOptions(verify_all=True, request=2 * MIB)
                report = restore_disk(repository, point, "disk1", str(out), ignore, threading.Event(), options)
                assert 0.03 <= store.transport.round_trip < 0.5 and store.readers == 8
                store.close()
            assert report.root_matched
            assert out.read_bytes() == data
        finally:
            with way.near.entered():
                rig.close()


def test_a_server_on_this_machine_is_near(tmp_path: Path) -> None:
    rig = ServerRig(tmp_path / "server")
    try:
        store = rig.store("restore", "pve*")
        list(store.list("points/"))
        assert 0 < store.transport.round_trip < 0.005 and store.readers == 3
    finally:
        rig.close()
