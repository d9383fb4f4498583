"""How fast a server on this machine gives and takes packs: ``python -m rekindle_server.bench [--plain-http]``.

A server in a process of its own, clients as threads of this one, over loopback: client and server share the CPUs.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from recovery.format.names import pack_name
from recovery.format.pack import Pack, PackBuilder
from recovery.repository.http import HttpStore, Trust, login_password
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.units import MIB
from rekindle_server.state import State
from rekindle_server.users import Users


def random_pack() -> Pack:
    """A pack of 64 MiB."""
    builder = PackBuilder()
    for _ in range(64):
        builder.add(os.urandom(32), os.urandom(MIB - 100), MIB)
    return builder.finish()


def read_for(store: HttpStore, pack: Pack, range_size: int, threads: int, seconds: float) -> float:
    """Random ranges of the pack by several threads; bytes per second."""
    end, total, lock = time.monotonic() + seconds, [0], threading.Lock()

    def read() -> None:
        buffer = memoryview(bytearray(range_size))
        while time.monotonic() < end:
            store.read_into(pack_name(pack.name), secrets.randbelow(len(pack.data) - range_size), buffer)
            with lock:
                total[0] += range_size

    started = time.monotonic()
    workers = [threading.Thread(target=read) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return total[0] / (time.monotonic() - started)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--plain-http", is_flag=True)
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), help="Where the repository lies. Default: /tmp.")
def main(plain_http: bool, seconds: float, directory: Path | None) -> None:
    """Measure ranges read and packs written through a server on loopback."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        root = Path(name) / "repository"
        Repository.create(open_local(root, create=True), secrets.token_hex(16))
        password = secrets.token_hex(16)
        Users(State(root / ".server")).add("bench", "admin", (), password)
        arguments = ["serve", str(root), "--listen", "127.0.0.1:0", "--json", "--plain-packs", "127.0.0.1:0"]
        arguments += ["--plain-http"] * plain_http
        # A long-lived child, so not run().
        server = subprocess.Popen(
            [sys.executable, "-m", "recovery.cli.main", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert server.stdout is not None  # noqa: S101
            ready = json.loads(server.stdout.readline())
            trust = Trust(fingerprint=ready["ca_fingerprint"])
            session = login_password(ready["url"], trust, "bench", password)
            store = HttpStore(ready["url"], trust=trust, tokens=session)
            packs = [random_pack() for _ in range(4)]
            started = time.monotonic()
            for pack in packs:
                store.put_if_absent(pack_name(pack.name), pack.data)
            rate = sum(len(pack.data) for pack in packs) / (time.monotonic() - started)
            click.echo(f"write, 64 MiB packs, synced   x1: {rate / 1e6:6.0f} MB/s")
            signed = HttpStore(ready["url"], trust=trust, tokens=session, plain_packs=True)
            for what, reader in (
                ("read, 8 MiB ranges, in cache ", store),
                ("the same by --plain-packs    ", signed),
            ):
                for threads in (1, 4):
                    begin = sum(os.times()[:2]) + cpu_seconds(server.pid)
                    rate = read_for(reader, packs[0], 8 * MIB, threads, seconds)
                    spent = (sum(os.times()[:2]) + cpu_seconds(server.pid) - begin) / (rate * seconds / 1e9)
                    click.echo(f"{what} x{threads}: {rate / 1e6:6.0f} MB/s, {spent:.2f} CPU-seconds a GB, both sides")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
