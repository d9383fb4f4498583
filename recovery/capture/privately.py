"""Run a function where its mounts are seen by nobody else and vanish with us, even when we are killed."""

from __future__ import annotations

import contextvars
import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 0x40000


def in_private_mounts(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread with a mount namespace of its own; where that is not allowed, in the common one.

    A thread, because a namespace can be left only by ending: the last one in it takes its mounts along.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            _leave_common_mounts()
            results.append(work())
        except BaseException as error:
            errors.append(error)

    # The context carries which Runner is in force (recovery.commands).
    thread = threading.Thread(target=contextvars.copy_context().run, args=(body,), name="capture-inventory")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _leave_common_mounts() -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    # Private, or what we mount would travel back to the common namespace.
    if libc.unshare(_CLONE_NEWNS) == 0:
        libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None)
