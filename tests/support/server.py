"""A real repository server on loopback for tests: TLS, users, stores that are logged in, stop and start."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

from obstore.store import MemoryStore
from rekindle_server.policy import Role
from rekindle_server.ratelimit import RateLimiter
from rekindle_server.server import Server, ServerConfig

from recovery.repository.bucket import BucketStore
from recovery.repository.http import HttpStore, Session, Trust, login_password
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from tests.support.repositories import PASSPHRASE

PASSWORD = "a password for tests"


@functools.cache
def _model() -> Repository:
    """An empty repository, to be copied: the passphrase is made slow on purpose."""
    return Repository.create(BucketStore(MemoryStore(), "memory"), PASSPHRASE)[0]


class ServerRig:
    """A server of a new repository in ``directory / "repository"``; it may be stopped and started again."""

    def __init__(self, directory: Path, *, tls: bool = True, reserve: int = 0, plain_packs: bool = False,
                 address: str = "127.0.0.1") -> None:  # fmt: skip
        self.root = directory / "repository"
        model = _model()
        self.local = Repository(open_local(self.root, create=True), model.file, model.keys)
        for info in model.store.list(""):
            self.local.store.put_if_absent(info.name, model.store.get(info.name))
        self._tls = tls
        self._address = address
        self._reserve = reserve
        self._port = 0
        self.plain_port: int | None = 0 if plain_packs else None
        self._sessions: dict[str, Session] = {}
        self._stores: list[HttpStore] = []
        self.limiter = RateLimiter()
        self.start()

    def start(self) -> None:
        """Start, on the same port as before."""
        config = ServerConfig(
            root=self.root,
            state=self.root / ".server",
            address=self._address,
            port=self._port,
            tls=self._tls,
            reserve=self._reserve,
            plain_packs=None if self.plain_port is None else (self._address, self.plain_port),
        )
        self.server = Server(config, self.limiter)
        self._port = self.server.listener.port
        if self.server.plain_listener is not None:
            self.plain_port = self.server.plain_listener.port
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Stop gracefully."""
        self.server.stop(seconds)
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """Stop and close what was opened."""
        for store in self._stores:
            store.close()
        if self._thread.is_alive():
            self.stop()

    @property
    def url(self) -> str:
        """Where the server answers."""
        return self.server.url

    @property
    def trust(self) -> Trust:
        """The pin of the server's CA."""
        certificate = self.server.certificate
        return Trust(fingerprint=certificate.fingerprint if certificate else "", plain=certificate is None)

    def session(self, role: Role, *hosts: str) -> Session:
        """A login with this role, limited to the hosts; made once for each combination."""
        name = "-".join([role, *(host.strip("*") for host in hosts)])
        if name not in self._sessions:
            self.server.app.users.add(name, role, hosts, PASSWORD)
            self._sessions[name] = login_password(self.url, self.trust, name, PASSWORD)
        return self._sessions[name]

    def store(self, role: Role, *hosts: str, patience: float = 20.0, plain_packs: bool = False) -> HttpStore:
        """A store with this role."""
        store = HttpStore(
            self.url, trust=self.trust, tokens=self.session(role, *hosts), patience=patience, plain_packs=plain_packs
        )
        self._stores.append(store)
        return store

    def repository(self, role: Role, *hosts: str) -> Repository:
        """The repository, opened through the server."""
        return Repository(self.store(role, *hosts), self.local.file, self.local.keys)
