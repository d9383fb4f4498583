"""The rows about networks: a far server, and a link that is the bottleneck. Root: they make network namespaces."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from functools import partial
from pathlib import Path

from recovery.units import MIB
from tests.bench.bench import Bench
from tests.bench.data import Disk, describe
from tests.bench.measure import Contestant, alternate, forget
from tests.bench.model import Measured, Row, Sample, goal
from tests.bench.ours import serving
from tests.bench.rows_restore import ours
from tests.support.netns import FAR, Link, link

GIGABIT = 10**9
DELAY = 0.030
NEAR_BY, FAR_AWAY = "rekindle, HTTP, no latency", "rekindle, HTTP, 30 ms"
SLOW, SLOW_TLS, RAW = "rekindle, HTTP, 1 Gbit/s", "rekindle, TLS, 1 Gbit/s", "plain TCP, 1 Gbit/s"
_RAW_BYTES = 512 * MIB


def network(bench: Bench) -> Row:
    """30 ms more for each round trip, and a link of 1 Gbit/s."""
    disk = bench.disk("files")
    repository = disk.repository(bench.say)
    found: dict[str, Measured] = {name: Measured(name=name) for name in (NEAR_BY, FAR_AWAY, SLOW, SLOW_TLS, RAW)}
    with bench.scratch() as scratch:
        out = scratch / "out.raw"
        for _ in range(bench.samples):
            for name, delay in ((NEAR_BY, 0.0), (FAR_AWAY, DELAY)):
                with link(delay=delay) as way:
                    _over(way, bench, disk, repository, scratch, found[name], tls=False)
            with link(rate=GIGABIT) as way:
                _over(way, bench, disk, repository, scratch, found[SLOW], tls=False)
                _over(way, bench, disk, repository, scratch, found[SLOW_TLS], tls=True)
                _add(found[RAW], bench, Contestant(RAW, partial(plain_tcp, way), _RAW_BYTES, "send, receive"))
        out.unlink(missing_ok=True)
    forget(disk.folder)
    row = Row(name="network", title="A far server, a slow link", data=describe(disk), contestants=list(found.values()))
    line = found[RAW].rate
    slow, secure = (found[name].median("transferred") / found[name].seconds for name in (SLOW, SLOW_TLS))
    row.goals = [
        goal("30 ms: of the rate without", 0.75, found[NEAR_BY].seconds / found[FAR_AWAY].seconds),
        goal("1 Gbit/s: stored bytes, of what plain TCP gets through", 0.95, slow / line),
        goal("1 Gbit/s, TLS: stored bytes, of what plain TCP gets through", 0.95, secure / line),
    ]
    row.notes = [
        "Client and server are in network namespaces of their own. Latency is made by a process that delays packets; "
        "what is measured without latency goes through the same process.",
        f"Over the link came {slow / 1e6:.1f} MB/s of stored bytes, by TLS {secure / 1e6:.1f}, by plain TCP "
        f"{line / 1e6:.1f}.",
    ]
    return row


def _over(
    way: Link, bench: Bench, disk: Disk, repository: Path, scratch: Path, measured: Measured, *, tls: bool
) -> None:
    """One sample with the server at the far end, and everything of ours at the near one."""
    with contextlib.ExitStack() as stack:
        with way.far.entered():
            served = stack.enter_context(serving(disk.secret, repository, scratch, tls=tls, address=FAR))
        with way.near.entered():
            one = ours(measured.name, served.source, repository, disk, scratch / "out.raw", pid=served.pid)
            if measured.checked:
                one.check = None
            _add(measured, bench, one)


def _add(measured: Measured, bench: Bench, one: Contestant) -> None:
    (taken,) = alternate([one], 1, bench.say)
    measured.samples += taken.samples
    measured.checked = measured.checked or taken.checked
    measured.work, measured.command, measured.error = taken.work, taken.command, taken.error


def plain_tcp(way: Link) -> Sample:
    """What the link lets through: one connection, from the far end to the near one."""
    with way.far.entered():
        listener = socket.create_server((FAR, 0))

    def send() -> None:
        connection, _ = listener.accept()
        with connection:
            block = bytes(MIB)
            for _ in range(_RAW_BYTES // MIB):
                connection.sendall(block)

    thread = threading.Thread(target=send)
    thread.start()
    with way.near.entered():
        client = socket.create_connection(listener.getsockname())
    buffer, got, begin = bytearray(MIB), 0, time.monotonic()
    with client:
        while count := client.recv_into(buffer):
            got += count
    seconds = time.monotonic() - begin
    thread.join()
    listener.close()
    return Sample(seconds=seconds, figures={"read": got})
