"""Tell the local network that a server is here, when somebody asks by multicast DNS (``recovery.repository.mdns``)."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from recovery.repository.mdns import (
    ANY,
    GROUP4,
    GROUP6,
    PORT,
    PTR,
    SERVICE,
    Message,
    decode,
    encode_answer,
    send_multicast,
    service_records,
)

log = logging.getLogger("rekindle.server")

#: Interfaces come and go; the group is joined on new ones after so many seconds.
_REJOIN = 15.0
_LARGEST = 9000


class Announcer:
    """Answers until ``stop``. ``addresses`` tells this machine's addresses when it is asked."""

    def __init__(
        self, port: int, addresses: Callable[[], list[str]], *, fingerprint: str = "", repository: str = ""
    ) -> None:
        host = socket.gethostname().partition(".")[0]
        self._name, self._host, self._port = f"Rekindle on {host}", host, port
        self._facts = {"fp": fingerprint.replace(":", "").lower(), "id": repository}
        self._addresses = addresses
        self._usable: list[str] = []
        self._stopping = threading.Event()
        self._sockets = [s for family in (socket.AF_INET, socket.AF_INET6) for s in _listen(family)]

    def start(self) -> None:
        """Answer in a thread."""
        threading.Thread(target=self._run, daemon=True, name="announce").start()

    def stop(self) -> None:
        """Be silent."""
        self._stopping.set()

    def _run(self) -> None:
        join = 0.0
        while not self._stopping.is_set():
            if time.monotonic() >= join:
                # Not at each question: a stranger must not make this machine work.
                self._usable = [
                    a for a in self._addresses() if _is_address(a) and not ipaddress.ip_address(a).is_loopback
                ]
                for listening in self._sockets:
                    _join(listening)
                join = time.monotonic() + _REJOIN
            ready, _, _ = select.select(self._sockets, [], [], 0.5) if self._sockets else ([], [], [])
            for heard in ready:
                # What strangers send must not end it.
                with contextlib.suppress(OSError, ValueError):
                    self._answer(heard)
            if not self._sockets:
                self._stopping.wait(1.0)
        for listening in self._sockets:
            listening.close()

    def _answer(self, heard: socket.socket) -> None:
        data, sender = heard.recvfrom(_LARGEST)
        message = decode(data)
        if not wants_us(message):
            return
        records = service_records(self._name, self._host, self._port, self._facts, self._usable)
        alone = sender[1] != PORT
        heard.sendto(encode_answer(message.id if alone else 0, records, question=alone), sender)
        if not alone and not message.questions[0].unicast:
            for index, _ in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    send_multicast(heard, encode_answer(0, records, question=False), index)


def wants_us(message: Message) -> bool:
    """Somebody looks for our service."""
    return not message.answer and any(q.name.lower() == SERVICE and q.kind in (PTR, ANY) for q in message.questions)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False  # a name
    return True


def _listen(family: socket.AddressFamily) -> list[socket.socket]:
    """A socket on the port of multicast DNS, beside avahi or systemd-resolved if they run."""
    try:
        listening = socket.socket(family, socket.SOCK_DGRAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(("", PORT))
    except OSError as error:
        log.warning("This server cannot be found by multicast DNS (%s): %s", family.name, error)
        return []
    return [listening]


def _join(listening: socket.socket) -> None:
    for index, _ in socket.if_nameindex():
        with contextlib.suppress(OSError):  # joined already, or no multicast there
            if listening.family == socket.AF_INET:
                group = struct.pack("4s4si", socket.inet_aton(GROUP4), b"\0" * 4, index)
                listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            else:
                wanted = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("@I", index)
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wanted)
