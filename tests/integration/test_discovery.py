"""Servers found by multicast DNS on a link of its own."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_server.announce import Announcer, wants_us

from recovery.repository.mdns import (
    SERVICE,
    A,
    DiscoveredServer,
    Record,
    decode,
    discover,
    encode_answer,
    encode_name,
    encode_question,
    servers_in,
    service_records,
)
from tests.support.netns import FAR, Link, Namespace, link
from tests.support.server import ServerRig

FINGERPRINT, REPOSITORY = "ab" * 32, "cd" * 16
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")


@pytest.fixture
def wire() -> Iterator[Link]:
    with link() as made:
        yield made


def answering(where: Namespace, addresses: list[str]) -> Announcer:
    with where.entered():
        announcer = Announcer(8443, lambda: addresses, fingerprint=FINGERPRINT, repository=REPOSITORY)
        announcer.start()
    return announcer


def found_from(where: Namespace, url: str) -> list[DiscoveredServer]:
    """What answers there, asked again until ``url`` does: the group is joined and addresses become usable when the
    machine gets to it."""
    end = time.monotonic() + 60
    while True:
        with where.entered():
            found = discover(0.5)
        if url in {server.url for server in found} or time.monotonic() > end:
            return found


@root
@pytest.mark.root
def test_a_server_is_found_with_its_address_and_fingerprint(wire: Link) -> None:
    announcer = answering(wire.far, [FAR, "127.0.0.1"])
    found = found_from(wire.near, f"https://{FAR}:8443")
    announcer.stop()
    assert f"https://{FAR}:8443" in {server.url for server in found}
    assert {(s.fingerprint, s.repository) for s in found} == {(FINGERPRINT, REPOSITORY)}
    assert found[0].name.startswith("Rekindle on ")


@root
@pytest.mark.root
def test_over_ipv6_alone(wire: Link) -> None:
    for side, address in ((wire.near, "fd00:99::1"), (wire.far, "fd00:99::2")):
        side.ip("address", "flush", "dev", "wire", "scope", "global")
        side.ip("address", "add", f"{address}/64", "dev", "wire", "nodad")
    announcer = answering(wire.far, ["fd00:99::2"])
    found = found_from(wire.near, "https://[fd00:99::2]:8443")
    announcer.stop()
    assert [server.url for server in found] == ["https://[fd00:99::2]:8443"]


@root
@pytest.mark.root
def test_nobody_answers_where_nobody_is(wire: Link) -> None:
    with wire.near.entered():
        assert discover(0.5) == []


@root
@pytest.mark.root
def test_a_second_card_is_asked_as_well(wire: Link) -> None:
    """The server is on another wire than the one with the default route."""
    other = Namespace()
    wire.near.ip("link", "add", "wire2", "type", "veth", "peer", "name", "wire", "netns", other.path)
    wire.near.ip("address", "add", "10.98.0.1/24", "dev", "wire2")
    wire.near.ip("link", "set", "wire2", "up")
    wire.near.ip("route", "add", "default", "via", FAR)
    other.ip("address", "add", "10.98.0.2/24", "dev", "wire")
    other.ip("link", "set", "wire", "up")
    announcer = answering(other, ["10.98.0.2"])
    found = found_from(wire.near, "https://10.98.0.2:8443")
    announcer.stop()
    other.close()
    assert "https://10.98.0.2:8443" in {server.url for server in found}


@root
@pytest.mark.root
def test_the_commands_find_each_other(wire: Link, tmp_path: Path) -> None:
    rig = ServerRig(tmp_path)
    rig.close()
    argv = [sys.executable, "-c", "from recovery.cli.main import main; main()"]
    with wire.far.entered():
        server = subprocess.Popen(
            [*argv, "serve", str(rig.root), "--listen", ":8443", "--announce", "--json"], stdout=subprocess.PIPE
        )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        with wire.near.entered():
            said = subprocess.run([*argv, "servers"], capture_output=True, text=True, check=True).stdout
        assert f"https://{FAR}:8443" in said
        assert rig.trust.fingerprint.replace(":", "").lower() in said
        assert rig.local.id in said
        assert b"serving" in ready
    finally:
        server.terminate()
        server.wait(20)


def test_what_a_server_says_is_understood() -> None:
    records = service_records("Rekindle on b.x", "b", 8443, {"fp": FINGERPRINT}, ["192.0.2.7", "2001:db8::7"])
    message = decode(encode_answer(7, records))
    assert (message.id, message.answer) == (7, True)
    (server,) = servers_in(message, "192.0.2.9")
    assert (server.url, server.name, server.fingerprint) == ("https://192.0.2.9:8443", "Rekindle on b-x", FINGERPRINT)
    (server,) = servers_in(message, "fe80::1%eth0")
    assert server.url == "https://[2001:db8::7]:8443"
    assert not list(servers_in(decode(encode_answer(7, records[:3])), "fe80::1"))


def test_compressed_names_as_others_write_them() -> None:
    """avahi and systemd-resolved point back to names that stood before."""
    header = struct.pack("!6H", 0, 0x8400, 0, 2, 0, 0)
    service = encode_name(SERVICE)
    body = service + struct.pack("!2HIH", 12, 1, 120, 4) + b"\x01b\xc0\x0c"
    at = 12 + len(service) + 10
    body += bytes([0xC0 | at >> 8, at & 255]) + struct.pack("!2HIH", 33, 1, 120, 10) + struct.pack("!3H", 0, 0, 99)
    body += b"\x01h\xc0" + bytes([12 + len(service) - 7])
    (server,) = servers_in(decode(header + body), "192.0.2.1")
    assert (server.url, server.name) == ("https://192.0.2.1:99", "b")


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    for tail in (data, struct.pack("!6H", 1, 0x8400, 1, 1, 1, 1) + data):
        try:
            message = decode(tail)
        except ValueError:
            continue
        list(servers_in(message, "192.0.2.1"))
        wants_us(message)


@given(
    st.integers(0, 65535), st.text(max_size=70), st.dictionaries(st.sampled_from(["fp", "id"]), st.text(max_size=70))
)
def test_lies_do_no_harm(port: int, name: str, facts: dict[str, str]) -> None:
    records = service_records(name, "h", port, facts, ["192.0.2.7"])
    for server in servers_in(decode(encode_answer(1, [*records, Record("x", A, b"12")])), "192.0.2.1"):
        assert server.name.isprintable()
        assert server.fingerprint == "" or len(server.fingerprint) == 64
        assert server.url == f"https://192.0.2.1:{port}"


def test_only_our_question_is_answered() -> None:
    assert wants_us(decode(encode_question(5)))
    other = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + encode_name("_ipp._tcp.local") + struct.pack("!2H", 12, 1)
    assert not wants_us(decode(other))


def test_the_question_is_a_dns_question() -> None:
    assert socket.ntohs(struct.unpack_from("=H", encode_question(9), 4)[0]) == 1
