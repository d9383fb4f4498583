"""What all tests share: caches that tests make lie in the test's own directory, never in the person's home."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from rekindle_server import users

from recovery.format import keys
from tests.support.examples import FEW

# How long an example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile("rekindle", deadline=None)
# ``scripts/test --fast``: ``--hypothesis-profile few``.
hypothesis.settings.register_profile("few", deadline=None, max_examples=FEW)
hypothesis.settings.load_profile("rekindle")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files are handed to two workers in this order (``scripts/test``): first those with slow tests, the many
    small ones last, so that no worker sits at a long file when the other has nothing left to do."""
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: (item.path not in slow, "unit" in item.path.parts))


def pytest_collection_finish() -> None:
    """The garbage collector goes through all modules and all tests again and again: a tenth of the quick run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End-to-end tests keep their images in the common cache: building them again would take most of an hour."""
    if "e2e" not in request.keywords:
        cache: Path = tmp_path_factory.getbasetemp() / "cache"
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


#: What makes a passphrase and a password slow to try: where, by which name, and how little of it is enough here.
_COSTS = [(keys, "ARGON2_MEMORY_KIB", 64), (keys, "ARGON2_ITERATIONS", 1), (keys, "ARGON2_LANES", 1),
          (users, "_MEMORY_KIB", 64), (users, "_PASSES", 1), (users, "_LANES", 1)]  # fmt: skip
_STRONG = [(module, name, getattr(module, name)) for module, name, _ in _COSTS]


@pytest.fixture(autouse=True, scope="session")
def cheap_secrets() -> Iterator[None]:
    """A passphrase and a password cost 64 MiB and a third of a second, on purpose; here that would be most of the
    tests' time. Key files and password hashes carry their cost, so other processes read them as cheaply. For the
    whole session: repositories that the tests of a file share are made by fixtures of the file."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in _COSTS:
            patch.setattr(module, name, value)
        yield


@pytest.fixture(autouse=True)
def strong_secrets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost what they cost where a test is about that."""
    if "strong_secrets" in request.keywords:
        for module, name, value in _STRONG:
            monkeypatch.setattr(module, name, value)


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
