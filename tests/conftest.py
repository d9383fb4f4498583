"""What all tests share: caches that tests make lie in the test's own directory, never in the person's home."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from rekindle_server import users

from recovery.format import keys

# How long an example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile("rekindle", deadline=None)
hypothesis.settings.load_profile("rekindle")


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End-to-end tests keep their images in the common cache: building them again would take most of an hour."""
    if "e2e" not in request.keywords:
        cache: Path = tmp_path_factory.getbasetemp() / "cache"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(autouse=True)
def cheap_secrets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase and a password cost 64 MiB and a third of a second, on purpose; here that would be most of the
    tests' time. Key files and password hashes carry their cost, so other processes read them as cheaply."""
    if "strong_secrets" not in request.keywords:
        for name, value in (("ARGON2_MEMORY_KIB", 64), ("ARGON2_ITERATIONS", 1), ("ARGON2_LANES", 1)):
            monkeypatch.setattr(keys, name, value)
        for name, value in (("_MEMORY_KIB", 64), ("_PASSES", 1), ("_LANES", 1)):
            monkeypatch.setattr(users, name, value)


@pytest.fixture
def time_zone() -> Iterator[Callable[[str], None]]:
    """Set this process' time zone, as in ``time_zone("Europe/Berlin")``. It is as before when the test ends: the C
    library keeps a zone until it is told, whatever the variable says by then."""
    with pytest.MonkeyPatch.context() as patch:

        def choose(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        yield choose
    time.tzset()
