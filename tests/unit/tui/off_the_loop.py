"""Calls that would freeze the console, found where they are made and not by how long they take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def off_the_loop(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, which refuses to run in the thread of an event loop: keys and drawing would wait for it."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return function(*args, **kwargs)
        raise AssertionError(f"{function.__name__} of the engine was called in the thread of the event loop.")

    return call
