"""Find our servers on the local network by multicast DNS (RFC 6762, 6763), as much of it as that takes.

One question, "who offers _rekindle._tcp?", from a port of its own on every interface, and the answers of the next
moment. What comes back is a hint from anybody on the wire: an address to show, whose fingerprint is still checked.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

SERVICE = "_rekindle._tcp.local"
GROUP4, GROUP6, PORT = "224.0.0.251", "ff02::fb", 5353
A, PTR, TXT, AAAA, SRV, ANY = 1, 12, 16, 28, 33, 255
_IN, _UNICAST, _ANSWER = 1, 0x8000, 0x8400
#: Every interface is asked again after this: multicast is lost more easily than anything else.
_ASK_AGAIN = 0.7
_LARGEST = 9000


class DiscoveredServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that announces itself. Nothing of it is proven: ``fingerprint`` is what it claims its CA to be."""

    url: str
    name: str
    fingerprint: str = ""
    repository: str = ""


class Record(NamedTuple):
    """A resource record; ``data`` is raw, but names in it are not compressed any more."""

    name: str
    kind: int
    data: bytes


class Question(NamedTuple):
    """A question; ``unicast`` asks for an answer that is not for everybody."""

    name: str
    kind: int
    unicast: bool


class Message(NamedTuple):
    """A DNS message taken apart."""

    id: int
    answer: bool
    questions: tuple[Question, ...]
    records: tuple[Record, ...]


def encode_name(name: str) -> bytes:
    """Labels with their lengths. A label is cut at 63 bytes."""
    labels = [label.encode()[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def encode_question(id: int) -> bytes:
    """Who offers our service? Answer to me alone."""
    return struct.pack("!6H", id, 0, 1, 0, 0, 0) + encode_name(SERVICE) + struct.pack("!2H", PTR, _IN | _UNICAST)


def encode_answer(id: int, records: list[Record], lifetime: int = 120, *, question: bool = True) -> bytes:
    """The first of ``records`` as the answer, the others beside it. A lone asker wants its question repeated."""
    body = encode_name(SERVICE) + struct.pack("!2H", PTR, _IN) if question else b""
    for record in records:
        body += encode_name(record.name) + struct.pack("!2HIH", record.kind, _IN, lifetime, len(record.data))
        body += record.data
    return struct.pack("!6H", id, _ANSWER, int(question), 1, 0, len(records) - 1) + body


def service_records(name: str, host: str, port: int, facts: Mapping[str, str], addresses: list[str]) -> list[Record]:
    """What a server says about itself: PTR, SRV, TXT, addresses. ``name`` is for people, ``host`` has no dots."""
    instance, target = f"{name.replace('.', '-')}.{SERVICE}", f"{host}.local"
    texts = [f"{key}={value}".encode()[:255] for key, value in facts.items()]
    records = [
        Record(SERVICE, PTR, encode_name(instance)),
        Record(instance, SRV, struct.pack("!3H", 0, 0, port) + encode_name(target)),
        Record(instance, TXT, b"".join(bytes([len(text)]) + text for text in texts) or b"\0"),
    ]
    for address in map(ipaddress.ip_address, addresses):
        records.append(Record(target, A if address.version == 4 else AAAA, address.packed))
    return records


def decode(data: bytes) -> Message:
    """A message from the wire. Raises ValueError for what is none."""
    try:
        id, flags, asked, *counts = struct.unpack_from("!6H", data)
        at, questions, records = 12, [], []
        for _ in range(asked):
            name, at = _name(data, at)
            kind, family = struct.unpack_from("!2H", data, at)
            questions.append(Question(name, kind, bool(family & _UNICAST)))
            at += 4
        for _ in range(sum(counts)):
            name, at = _name(data, at)
            kind, _, _, length = struct.unpack_from("!2HIH", data, at)
            at += 10
            if at + length > len(data):
                raise ValueError("a record is longer than its message")
            content = data[at : at + length]
            if kind == PTR:
                content = encode_name(_name(data, at)[0])
            elif kind == SRV:
                content = data[at : at + 6] + encode_name(_name(data, at + 6)[0])
            records.append(Record(name, kind, content))
            at += length
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a DNS message: {error}") from None
    return Message(id, bool(flags & 0x8000), tuple(questions), tuple(records))


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    end = 0
    for _ in range(128):  # pointers that lead in circles end here
        length = data[at]
        if length >= 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
        elif length == 0:
            return ".".join(labels), end or at + 1
        else:
            labels.append(data[at + 1 : at + 1 + length].decode(errors="replace").replace(".", "-"))
            at += 1 + length
    raise ValueError("a name without an end")


def servers_in(message: Message, sender: str) -> Iterator[DiscoveredServer]:
    """The servers that an answer from the address ``sender`` tells of.

    The sender's own address comes first: it is on the same link, whatever other addresses the server has. A
    link-local one is in no certificate, so those of the records are taken then.
    """
    for record in message.records:
        if record.kind != SRV or not record.name.lower().endswith("." + SERVICE) or len(record.data) < 7:
            continue
        port = struct.unpack_from("!H", record.data, 4)[0]
        target = _name(record.data, 6)[0]
        addresses = [
            ipaddress.ip_address(r.data)
            for r in message.records
            if r.name == target and len(r.data) == {A: 4, AAAA: 16}.get(r.kind, -1)
        ]
        address = ipaddress.ip_address(sender.partition("%")[0])
        if address.is_link_local:
            address = next((a for a in addresses if a.version == address.version and not a.is_link_local), address)
        if address.is_link_local or not port:
            continue
        facts = dict(_texts(message, record.name))
        host = f"[{address}]" if address.version == 6 else str(address)
        yield DiscoveredServer(
            url=f"https://{host}:{port}",
            name=_printable(record.name[: -len(SERVICE) - 1]),
            fingerprint=_hexadecimal(facts.get("fp", ""), 64),
            repository=_hexadecimal(facts.get("id", ""), 32),
        )


def _texts(message: Message, name: str) -> Iterator[tuple[str, str]]:
    for record in message.records:
        at = 0
        while record.kind == TXT and record.name == name and at < len(record.data):
            length = record.data[at]
            key, _, value = record.data[at + 1 : at + 1 + length].decode(errors="replace").partition("=")
            yield key, value
            at += 1 + length


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:64]


def _hexadecimal(text: str, length: int) -> str:
    return text.lower() if len(text) == length and not set(text.lower()) - set("0123456789abcdef") else ""


def discover(seconds: float = 2.0) -> list[DiscoveredServer]:
    """Ask on every interface that can, for ``seconds``; every server once. Never raises: no network, no servers."""
    id = int.from_bytes(struct.pack("!d", time.time())[-2:])
    question = encode_question(id)
    found: dict[str, DiscoveredServer] = {}
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(s) for family in (socket.AF_INET, socket.AF_INET6) for s in _open(family)]
        deadline, ask = time.monotonic() + seconds, 0.0
        while sockets and (now := time.monotonic()) < deadline:
            if now >= ask:
                for asking in sockets:
                    _ask(asking, question)
                ask = now + _ASK_AGAIN
            ready, _, _ = select.select(sockets, [], [], min(deadline, ask) - now)
            for heard in ready:
                with contextlib.suppress(OSError, ValueError):
                    data, sender = heard.recvfrom(_LARGEST)
                    message = decode(data)
                    if message.answer and message.id in (id, 0):
                        for server in servers_in(message, str(sender[0])):
                            found.setdefault(server.url, server)
    return sorted(found.values(), key=lambda server: (server.name, server.url))


def _open(family: socket.AddressFamily) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):  # a kernel without IPv6
        asking = socket.socket(family, socket.SOCK_DGRAM)
        asking.bind(("", 0))
        yield asking


def _ask(asking: socket.socket, question: bytes) -> None:
    for index, _ in socket.if_nameindex():
        with contextlib.suppress(OSError):  # an interface without an address, or that is down
            send_multicast(asking, question, index)


def send_multicast(sending: socket.socket, data: bytes, interface: int) -> None:
    """Send to the group over one interface, by its index. Raises OSError."""
    if sending.family == socket.AF_INET:
        choice = struct.pack("4s4si", b"\0" * 4, b"\0" * 4, interface)  # struct ip_mreqn
        sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, choice)
        sending.sendto(data, (GROUP4, PORT))
    else:
        sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface)
        sending.sendto(data, (GROUP6, PORT, 0, interface))
