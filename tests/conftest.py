"""What all tests share: caches that tests make lie in the test's own directory, never in the person's home."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("rekindle", deadline=None)
settings.load_profile("rekindle")

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
