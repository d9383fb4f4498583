"""The server stops, dies, comes back and runs out of room; what was acknowledged stays, clients go on."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rekindle_server import listener
from rekindle_server.objects import Objects

from recovery.commands import run
from recovery.errors import BusyError, CancelledError, NotFoundError, SpaceError, UnreachableError
from recovery.format.names import pack_name
from recovery.repository.http import HttpStore, Trust, login_password
from tests.support.repositories import new_repository, noise_pack, store_disk
from tests.support.server import PASSWORD, ServerRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ServerRig]:
    rig = ServerRig(tmp_path)
    yield rig
    rig.close()


def test_readers_go_on_when_the_server_was_restarted(rig: ServerRig) -> None:
    pack = noise_pack(3_000_000)
    name = pack_name(pack.name)
    rig.local.store.put_if_absent(name, bytes(pack.data))
    retries: list[str] = []
    session = rig.session("restore")
    store = HttpStore(
        rig.url, trust=rig.trust, tokens=session, patience=30, on_retry=lambda why, attempt, pause: retries.append(why)
    )
    stop, failures, done = threading.Event(), list[BaseException](), [0]

    def read() -> None:
        source = random.Random(done[0])  # noqa: S311
        buffer = bytearray(400_000)
        try:
            while not stop.is_set():
                offset = source.randrange(len(pack.data) - len(buffer))
                store.read_into(name, offset, memoryview(buffer))
                assert buffer == pack.data[offset : offset + len(buffer)]
                done[0] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        before = done[0]
        while done[0] < before + 5 and not failures:
            threading.Event().wait(0.01)
        rig.stop(seconds=0.0)  # cuts running requests off
        threading.Event().wait(0.3)
        rig.start()
        before = done[0]
        while done[0] < before + 5 and not failures:
            threading.Event().wait(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert retries


def test_a_server_that_stays_away_is_one_clear_error(rig: ServerRig) -> None:
    store = rig.store("restore", patience=0.5)
    assert store.get("repo.json")
    rig.stop()
    with pytest.raises(UnreachableError) as caught:
        store.get("repo.json")
    assert "nothing listens" in caught.value.message
    assert caught.value.hint


def test_waiting_for_the_server_can_be_cancelled(rig: ServerRig) -> None:
    cancel = threading.Event()
    store = HttpStore(
        rig.url,
        trust=rig.trust,
        tokens=rig.session("restore"),
        patience=600,
        cancel=cancel,
        on_retry=lambda why, attempt, pause: cancel.set(),
    )
    assert store.get("repo.json")
    rig.stop()
    with pytest.raises(CancelledError):
        store.get("repo.json")


def test_a_running_upload_is_finished_before_the_server_stops(rig: ServerRig) -> None:
    pack = noise_pack(2_000_000)
    store = rig.store("capture")
    assert store.transport._tokens is not None
    certificate = rig.server.certificate
    assert certificate is not None
    context = ssl.create_default_context(cafile=certificate.ca_path)
    connection = http.client.HTTPSConnection("127.0.0.1", rig.server.listener.port, context=context, timeout=20)
    connection.putrequest("PUT", f"/v1/objects/{pack_name(pack.name)}")
    connection.putheader("Authorization", f"Bearer {store.transport._tokens.current()}")
    connection.putheader("Content-Length", str(len(pack.data)))
    connection.endheaders()
    connection.send(pack.data[:1_000_000])
    while not any((rig.root / ".incoming").glob("upload-*")):
        threading.Event().wait(0.01)
    stopping = threading.Thread(target=rig.stop, kwargs={"seconds": 20})
    stopping.start()
    while not rig.server.listener.stopping:
        threading.Event().wait(0.01)
    connection.send(pack.data[1_000_000:])
    response = connection.getresponse()
    assert response.status == 201
    assert response.headers["Connection"] == "close"
    stopping.join()
    assert (rig.root / pack_name(pack.name)).read_bytes() == pack.data


def test_one_address_cannot_take_all_connections(rig: ServerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    store = rig.store("restore", patience=0.3)
    monkeypatch.setattr(listener, "MAX_CONNECTIONS_PER_ADDRESS", 3)
    rig.stop()
    rig.start()
    idle = [socket.create_connection(("127.0.0.1", rig.server.listener.port)) for _ in range(3)]
    with pytest.raises(UnreachableError):
        store.get("repo.json")
    for connection in idle:
        connection.close()

    def connections_become(count: int) -> bool:  # The server notices in its own time.
        for _ in range(1000):
            if sum(rig.server.listener._addresses.values()) == count:
                return True
            threading.Event().wait(0.02)
        return False

    assert connections_become(0)
    patient = HttpStore(rig.url, trust=rig.trust, tokens=rig.session("restore"), patience=20)
    assert patient.get("repo.json")
    assert connections_become(1), "the login's own connection is closed, the store's is counted"


def test_two_servers_do_not_share_a_directory(rig: ServerRig) -> None:
    with pytest.raises(BusyError, match="Another server"):
        Objects(rig.root)
    rig.stop()
    Objects(rig.root).close()


def test_what_a_crash_left_behind_is_removed(rig: ServerRig) -> None:
    rig.stop()
    leftover = rig.root / ".incoming" / "upload-123"
    leftover.write_bytes(b"half")
    rig.start()
    assert not leftover.exists()


def test_a_directory_without_a_repository(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no repository"):
        Objects(tmp_path)


@pytest.mark.root
@pytest.mark.parametrize("filesystem", ["tmpfs", "ext4"])
def test_a_full_disk_is_a_space_error_and_nothing_is_half_there(tmp_path: Path, filesystem: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = tmp_path / "mount"
    mount.mkdir()
    if filesystem == "tmpfs":
        assert run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount)])
    else:
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, 16 * 1024 * 1024)
        assert run(["mkfs.ext4", "-q", "-m", "0", str(image)])
        assert run(["mount", "-o", "loop", str(image), str(mount)])
    try:
        rig = ServerRig(mount)
        try:
            store = rig.store("capture")
            small = noise_pack(5_000_000)
            assert store.put_if_absent(pack_name(small.name), small.data)
            big = noise_pack(30_000_000)
            with pytest.raises(SpaceError) as caught:
                store.put_if_absent(pack_name(big.name), big.data)
            assert caught.value.hint
            # Also when the room runs out behind the check: another program takes it in the meantime.
            filling = noise_pack(6_000_000)
            rig.server.objects.free = lambda: 1 << 40  # type: ignore[method-assign]
            with open(rig.root.parent / "other", "wb") as other:
                os.posix_fallocate(other.fileno(), 0, _free(mount) - 2_000_000)
            with pytest.raises(SpaceError):
                store.put_if_absent(pack_name(filling.name), filling.data)
            for pack in (big, filling):
                assert store.size(pack_name(pack.name)) is None
            assert list((rig.root / ".incoming").glob("upload-*")) == []
            # Reading, logging in and going on when there is room again are not hurt.
            assert rig.store("restore").get(pack_name(small.name)) == small.data
            (rig.root.parent / "other").unlink()
            del rig.server.objects.free
            assert store.put_if_absent(pack_name(filling.name), filling.data)
        finally:
            rig.close()
    finally:
        assert run(["umount", str(mount)])


def test_room_is_kept_for_logging_in(tmp_path: Path) -> None:
    rig = ServerRig(tmp_path, reserve=1 << 50)
    pack = noise_pack(1000)
    with pytest.raises(SpaceError):
        rig.store("capture").put_if_absent(pack_name(pack.name), pack.data)
    rig.close()


def test_the_command_survives_being_killed(tmp_path: Path) -> None:
    """`rekindle serve` in its own process: killed without warning, started again, stopped by SIGTERM."""
    root = tmp_path / "repository"
    local = new_repository(root)
    port, fingerprint, process = _serve(root)
    try:
        added = subprocess.run(
            [*_COMMAND, "user", "add", "ann", "--role", "admin", "--password-file", "-", "--state", str(root)],
            input=f"{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )
        assert b"User ann added" in added.stdout
        trust, url = Trust(fingerprint=fingerprint), f"https://127.0.0.1:{port}"
        store = HttpStore(url, trust=trust, tokens=login_password(url, trust, "ann", PASSWORD), patience=60)
        name, chunk_map = store_disk(local, os.urandom(1_000_000))
        pack = noise_pack(200_000)
        assert store.put_if_absent(pack_name(pack.name), pack.data)
        process.kill()
        process.wait()
        finished: list[bytes] = []
        waiting = threading.Thread(target=lambda: finished.append(store.get(pack_name(pack.name))))
        waiting.start()
        _, again, process = _serve(root, port)
        waiting.join()
        assert again == fingerprint
        assert finished == [bytes(pack.data)]
        assert store.get(f"maps/{name}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


_COMMAND = [sys.executable, "-m", "recovery.cli.main"]


def _serve(root: Path, port: int = 0) -> tuple[int, str, subprocess.Popen[bytes]]:
    # A long-lived child: run() waits for the end of what it starts.
    process = subprocess.Popen(
        [*_COMMAND, "serve", str(root), "--listen", f"127.0.0.1:{port}", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    return ready["port"], ready["ca_fingerprint"], process


def _free(path: Path) -> int:
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize
