"""Objects through a real server: roles, ranges, uploads that are torn, wrong or raced."""

from __future__ import annotations

import http.client
import os
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rekindle_server import app as server_app

from recovery.errors import AccessError, BusyError, IntegrityError, NotFoundError, UsageError
from recovery.format.names import digest, map_name, pack_name
from recovery.format.pack import PackBuilder
from recovery.repository.http import HttpChunkIndex, HttpStore
from recovery.repository.location import open_index
from recovery.repository.repository import Repository
from tests.support.repositories import commit, noise_pack, store_disk
from tests.support.server import ServerRig

DISK = random.Random(1).randbytes(3 * 1024 * 1024)  # noqa: S311


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRig]:
    rig = ServerRig(tmp_path_factory.mktemp("server"))
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def captured(rig: ServerRig) -> tuple[Repository, str, str]:
    """Points of two hosts put through the server; the map and a pack of the first."""
    writer = rig.repository("capture", "pve*")
    name, chunk_map = store_disk(writer, DISK)
    commit(writer, "pve1", {"disk1": (name, chunk_map)})
    other = rig.repository("capture", "db9")
    commit(other, "db9", {"disk1": store_disk(other, DISK[::-1])})
    return writer, name, pack_name(chunk_map.packs[0].hex())


def raw_connection(rig: ServerRig) -> socket.socket:
    host, port = rig.server.listener.server_address[:2]
    plain = socket.create_connection((str(host), int(port)), timeout=20)
    if rig.server.certificate is None:
        return plain
    context = ssl.create_default_context(cafile=rig.server.certificate.ca_path)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def ask(rig: ServerRig, request: bytes) -> http.client.HTTPResponse:
    """Send bytes as they are and read the answer."""
    connection = raw_connection(rig)
    connection.sendall(request)
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def bearer(store: HttpStore) -> str:
    assert store.transport._tokens is not None
    return f"Authorization: Bearer {store.transport._tokens.current()}\r\n"


def test_a_capture_and_its_restore_through_the_server(rig: ServerRig, captured: tuple[Repository, str, str]) -> None:
    reader = rig.repository("restore", "pve1")
    point = reader.point("pve1", "latest")
    restored = bytearray(len(DISK))
    chunk_map = reader.chunk_map(point, "disk1")
    from recovery.format.chunk import FrameDecoder

    decoder = FrameDecoder(reader.keys)
    for index, entry in chunk_map.blobs():
        frame = memoryview(bytearray(entry.length))
        reader.store.read_into(pack_name(entry.pack.hex()), entry.offset, frame)
        at = index * chunk_map.chunk_size
        decoder.decode_into(frame, entry.id, memoryview(restored)[at : at + chunk_map.length(index)])
    assert restored == DISK


@pytest.mark.parametrize("tls", [True, False])
def test_every_range_is_what_the_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    rig = ServerRig(tmp_path, tls=tls)
    _, chunk_map = store_disk(rig.local, DISK)
    pack = pack_name(chunk_map.packs[0].hex())
    by_sendfile: list[int] = []
    real = os.sendfile

    def counted(out: int, source: int, offset: int, count: int) -> int:
        by_sendfile.append(real(out, source, offset, count))
        return by_sendfile[-1]

    monkeypatch.setattr(os, "sendfile", counted)
    store = rig.store("restore", "pve1")
    whole = (rig.root / pack).read_bytes()
    assert store.size(pack) == len(whole)
    assert store.get(pack) == whole
    chooser = random.Random(2)  # noqa: S311
    ranges = [(0, 1), (0, len(whole)), (len(whole) - 1, 1)]
    for _ in range(20):
        offset = chooser.randrange(len(whole))
        ranges.append((offset, chooser.randint(1, len(whole) - offset)))
    for offset, length in ranges:
        buffer = bytearray(length)
        store.read_into(pack, offset, memoryview(buffer))
        assert buffer == whole[offset : offset + length]
    for offset in (len(whole) - 5, len(whole), len(whole) + 100):
        with pytest.raises(IntegrityError):
            store.read_into(pack, offset, memoryview(bytearray(10)))
    with pytest.raises(NotFoundError):
        store.read_into(pack_name("00" * 32), 0, memoryview(bytearray(10)))
    rig.close()
    # The last 5 bytes three times: that an object is too short is believed after some attempts.
    assert sum(by_sendfile) == (0 if tls else len(whole) + sum(length for _, length in ranges) + 3 * 5)


def test_roles_end_where_they_should(rig: ServerRig, captured: tuple[Repository, str, str]) -> None:
    _, map_digest, pack = captured
    capture, restore = rig.store("capture", "pve*"), rig.store("restore", "pve1")
    mine = next(iter(restore.list("points/"))).name
    others = next(iter(rig.store("admin").list("points/db9/"))).name
    other_map = next(i.name for i in rig.store("admin").list("maps/") if i.name != map_name(map_digest))
    for store in (capture, restore):
        with pytest.raises(AccessError, match="db9"):
            store.get(others)
        with pytest.raises(AccessError):
            store.delete(pack)
        assert [i.name for i in store.list("points/")] == [mine]
        with pytest.raises(AccessError, match="not for db9"):
            list(store.list("points/db9/"))
    with pytest.raises(AccessError, match="may not read a pack"):
        capture.get(pack)
    assert capture.size(pack) is not None
    assert list(capture.list("packs/")) != []
    assert capture.get(map_name(map_digest)) == restore.get(map_name(map_digest))
    with pytest.raises(AccessError, match="map"):
        capture.get(other_map)
    assert [i.name for i in capture.list("maps/")] == [map_name(map_digest)]
    with pytest.raises(AccessError, match="may not write"):
        restore.put_if_absent(pack, b"x")
    with pytest.raises(AccessError, match="look up"):
        HttpChunkIndex(restore.transport).lookup([bytes(32)])
    with pytest.raises(AccessError, match="db9"):
        capture.put_if_absent(others, b"x")
    with pytest.raises(AccessError, match="repository"):
        capture.put_if_absent("repo.json", b"{}")


def test_look_ups(rig: ServerRig, captured: tuple[Repository, str, str]) -> None:
    writer, name, _ = captured
    entries = [entry for _, entry in writer.map(name).blobs()]
    index = open_index(writer)
    unknown = bytes(32)
    answers = index.lookup([unknown, *(e.id for e in entries), unknown])
    assert answers[0] is None
    assert answers[-1] is None
    assert [(a.pack, a.offset, a.length) for a in answers[1:-1] if a] == [e[1:] for e in entries]
    assert index.lookup([]) == []


def test_names_outside_of_the_grammar(rig: ServerRig) -> None:
    store = rig.store("admin")
    for name in ("../repo.json", ".server/server.sqlite", "packs/../repo.json", "points/../../x", "keys/../repo.json"):
        with pytest.raises(NotFoundError):
            store.get(name)
        with pytest.raises(NotFoundError):
            store.put_if_absent(name, b"x")
    for path in (
        "../../repo.json",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        ".server/server.sqlite",
        "%00",
        "repo.json%0a",
    ):
        assert ask(rig, f"GET /v1/objects/{path} HTTP/1.1\r\n{bearer(store)}\r\n".encode()).status == 400
    for prefix in ("../", ".server/", "/etc/"):
        with pytest.raises(UsageError):
            list(store.list(prefix))
    assert not any(".server" in i.name or ".incoming" in i.name for i in store.list(""))


def test_listing_is_sorted_and_whole_across_pages(
    rig: ServerRig, captured: tuple[Repository, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = rig.store("admin")
    expected = sorted(i.name for top in ("keys/", "maps/", "packs/", "points/") for i in rig.local.store.list(top))
    for page in (1, 2, 3, 1000):
        monkeypatch.setattr(server_app, "LIST_PAGE", page)
        assert [i.name for i in store.list("")] == [*expected, "repo.json"]
        assert [i.name for i in store.list("packs/")] == [n for n in expected if n.startswith("packs/")]
        assert list(store.list("points/nobody/")) == []


def test_an_upload_that_breaks_off_leaves_nothing(rig: ServerRig) -> None:
    pack = PackBuilder().finish()
    store = rig.store("capture", "pve*")
    connection = raw_connection(rig)
    head = (
        f"PUT /v1/objects/{pack_name(pack.name)} HTTP/1.1\r\n{bearer(store)}Content-Length: {len(pack.data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + bytes(pack.data[:20]))
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    # It may not have begun when we look first: gone means gone for half a second.
    gone = 0
    for _ in range(1000):
        gone = 0 if list((rig.root / ".incoming").glob("upload-*")) else gone + 1
        if gone == 25:
            break
        threading.Event().wait(0.02)
    assert gone == 25
    assert store.size(pack_name(pack.name)) is None
    assert store.put_if_absent(pack_name(pack.name), pack.data)
    assert not store.put_if_absent(pack_name(pack.name), pack.data)


def test_wrong_bytes_are_refused_and_leave_nothing(rig: ServerRig) -> None:
    store = rig.store("capture", "pve*")
    garbage = os.urandom(300_000)
    with pytest.raises(IntegrityError, match="hash"):
        store.put_if_absent(pack_name("ab" * 32), garbage)
    with pytest.raises(IntegrityError, match="footer"):
        store.put_if_absent(pack_name(digest(garbage)), garbage)
    # A footer that promises a chunk which is not there would take the place of the real one in every later capture.
    promise = PackBuilder()
    promise.add(os.urandom(32), os.urandom(5000), 5000)
    empty = promise.finish()
    with pytest.raises(IntegrityError, match="where it is not"):
        store.put_if_absent(pack_name(empty.name), empty.data)
    assert store.size(pack_name(empty.name)) is None
    with pytest.raises(IntegrityError, match="chunk map"):
        store.put_if_absent(map_name(digest(garbage)), garbage)
    with pytest.raises(IntegrityError, match="recovery point"):
        store.put_if_absent(f"points/pve1/1700000000000000-{digest(garbage)}", garbage)
    assert store.size(pack_name(digest(garbage))) is None
    assert not list((rig.root / ".incoming").glob("upload-*"))


def test_maps_and_points_need_what_they_name(rig: ServerRig, tmp_path: Path) -> None:
    from recovery.repository.store import open_local

    for name in ("repo.json", *(i.name for i in rig.local.store.list("keys/"))):
        open_local(tmp_path, create=True).put_if_absent(name, rig.local.store.get(name))
    elsewhere = Repository(open_local(tmp_path), rig.local.file, rig.local.keys)
    digest_name, chunk_map = store_disk(elsewhere, os.urandom(600_000))
    point = commit(elsewhere, "pve7", {"disk1": (digest_name, chunk_map)})
    point_name = next(iter(elsewhere.store.list("points/pve7/"))).name
    store = rig.store("capture", "pve*")
    with pytest.raises(NotFoundError, match="needs packs/"):
        store.put_if_absent(map_name(digest_name), elsewhere.store.get(map_name(digest_name)))
    with pytest.raises(NotFoundError, match="needs maps/"):
        store.put_if_absent(point_name, elsewhere.store.get(point_name))
    wrong_host = point_name.replace("pve7", "pve8")
    with pytest.raises(IntegrityError, match="name"):
        store.put_if_absent(wrong_host, elsewhere.store.get(point_name))
    for info in [*elsewhere.store.list("packs/"), *elsewhere.store.list("maps/"), *elsewhere.store.list("points/")]:
        assert store.put_if_absent(info.name, elsewhere.store.get(info.name))
    assert rig.repository("restore", "pve7").point("pve7", "latest").id == point.id
    # The same point again is a repeated request, not another capture.
    assert not store.put_if_absent(point_name, elsewhere.store.get(point_name))


def test_of_two_captures_of_a_host_one_wins(rig: ServerRig, captured: tuple[Repository, str, str]) -> None:
    from recovery.format.point import DiskMapRef, PointBody, PointHeader, encode_point

    writer, map_digest, _ = captured
    latest = writer.latest("pve1")
    assert latest is not None
    results: list[object] = []

    def put(number: int) -> None:
        created = latest.created + 1 + number
        header = PointHeader(
            version=1, repository=writer.id, host="pve1", created=created, parent=latest.id,
            maps=(DiskMapRef(disk="disk1", map=map_digest),),
        )  # fmt: skip
        id, data = encode_point(writer.keys, header, PointBody(disks=(), consistency="crash", firmware="uefi"))
        try:
            results.append(writer.store.put_if_absent(f"points/pve1/{round(created * 1e6):016d}-{id}", data))
        except BusyError as error:
            results.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert results.count(True) == 1
    assert sum(isinstance(result, BusyError) for result in results) == 5


def test_a_point_of_somebody_without_the_key_is_refused(rig: ServerRig, captured: tuple[Repository, str, str]) -> None:
    from recovery.format.keys import RepositoryKeys, new_master_key
    from recovery.format.point import DiskMapRef, PointBody, PointHeader, encode_point

    writer, map_digest, _ = captured
    latest = writer.latest("pve1")
    assert latest is not None
    created = latest.created + 60
    header = PointHeader(
        version=1, repository=writer.id, host="pve1", created=created, parent=latest.id,
        maps=(DiskMapRef(disk="disk1", map=map_digest),),
    )  # fmt: skip
    keys = RepositoryKeys(new_master_key(), writer.id)
    id, data = encode_point(keys, header, PointBody(disks=(), consistency="crash", firmware="uefi"))
    with pytest.raises(IntegrityError, match="signature"):
        writer.store.put_if_absent(f"points/pve1/{round(created * 1e6):016d}-{id}", data)


def test_the_same_pack_from_many_at_once(rig: ServerRig) -> None:
    pack = noise_pack(500_000)
    store = rig.store("capture", "pve*")
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(store.put_if_absent(pack_name(pack.name), pack.data)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 5 + [True]
    assert (rig.root / pack_name(pack.name)).read_bytes() == pack.data


def test_a_damaged_object_is_put_right_by_the_right_bytes(rig: ServerRig) -> None:
    pack = noise_pack(5000)
    store, path = rig.store("capture", "pve*"), rig.root / pack_name(pack.name)
    store.put_if_absent(pack_name(pack.name), pack.data)
    path.write_bytes(bytes(len(pack.data)))
    assert store.put_if_absent(pack_name(pack.name), pack.data)
    assert path.read_bytes() == pack.data
    # What is not named by its hash is never replaced.
    with pytest.raises(BusyError):
        rig.store("admin").put_if_absent("repo.json", b"{}")


def test_an_administrator_deletes(rig: ServerRig) -> None:
    pack = noise_pack(5000)
    id = pack.entries[0].id
    store = rig.store("admin")
    store.put_if_absent(pack_name(pack.name), pack.data)
    store.delete(pack_name(pack.name))
    assert store.size(pack_name(pack.name)) is None
    with pytest.raises(NotFoundError):
        store.delete(pack_name(pack.name))
    index = HttpChunkIndex(store.transport)
    for _ in range(200):
        if index.lookup([id]) == [None]:
            break
        threading.Event().wait(0.02)
    assert index.lookup([id]) == [None]


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /v1/objects/repo.json HTTP/1.1\r\n\r\n", 401),
        ("GET /v1/objects/repo.json HTTP/1.1\r\nAuthorization: Bearer nonsense\r\n\r\n", 401),
        ("GET /v1/nothing HTTP/1.1\r\n\r\n", 404),
        ("POST /v1/info HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        ("BREW /v1/info HTTP/1.1\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
        ("GET /v1/info HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        ("POST /v1/login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        ("POST /v1/login HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 400),
        ("POST /v1/login HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 411),
        ("POST /v1/login HTTP/1.1\r\nContent-Length: 9\r\n\r\nnot json!", 400),
        ("POST /v1/login HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", 413),
        ("PUT /v1/objects/repo.json HTTP/1.1\r\nAuthorization: ADMIN\r\n\r\n", 411),
        ("PUT /v1/objects/repo.json HTTP/1.1\r\nAuthorization: ADMIN\r\nContent-Length: 999999999999\r\n\r\n", 413),
        ("GET /healthz HTTP/1.1\r\n\r\n", 200),
    ],
)
def test_requests_that_make_no_sense_get_a_report(rig: ServerRig, request_text: str, status: int) -> None:
    token = bearer(rig.store("admin")).removeprefix("Authorization: ").strip()
    response = ask(rig, request_text.replace("ADMIN", token).encode())
    assert response.status == status
    if status >= 400:
        assert b'"message"' in response.body  # type: ignore[attr-defined]


def test_info_and_metrics_say_nothing_secret(rig: ServerRig, captured: tuple[Repository, str, str]) -> None:
    info = ask(rig, b"GET /v1/info HTTP/1.1\r\n\r\n").body  # type: ignore[attr-defined]
    assert rig.local.id.encode() in info
    page = ask(rig, b"GET /metrics HTTP/1.1\r\n\r\n").body.decode()  # type: ignore[attr-defined]
    assert 'rekindle_objects_stored_total{kind="point",outcome="created"}' in page
    assert "rekindle_free_bytes " in page
    assert "pve1" not in page
