"""Blocking calls of the engine, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from recovery.errors import RekindleError

P = ParamSpec("P")
T = TypeVar("T")


def unexpected(error: BaseException) -> RekindleError:
    """A bug, or an engine that went away in the middle of a word, said without its traceback: the console lives on."""
    told = RekindleError(
        f"Something unexpected happened: {type(error).__name__}: {error}",
        hint="Try again. If it stays, open a shell with F2 and look at 'journalctl -b'; please report it.",
    )
    told.__cause__ = error
    return told


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread of its own and await its result; its exception is raised here, as RekindleError.

    Not ``asyncio.to_thread``: those threads are joined at exit, and a server that does not answer must not keep the
    console from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function(*args, **kwargs)
        except RekindleError as caught:
            error = caught
        except BaseException as caught:
            error = unexpected(caught)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name=getattr(function, "__name__", "call")).start()
    return await future
