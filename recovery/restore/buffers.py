"""Memory that disks are read into and written from: page-aligned, as O_DIRECT wants it, and in huge pages."""

from __future__ import annotations

import contextlib
import ctypes
import mmap

#: A huge page of x86-64, and of arm64 with pages of 4 KiB.
_HUGE = 2 * 1024 * 1024


def page_buffer(size: int) -> memoryview:
    """``size`` bytes of zeros, aligned to pages.

    From 2 MiB on in huge pages where the kernel has some: the kernel pins and maps a buffer page by page for each
    O_DIRECT write, and a fresh buffer faults page by page.
    """
    huge = size >= _HUGE
    # Private: shared anonymous memory is a file in tmpfs, which has no huge pages by default.
    memory = mmap.mmap(-1, size + _HUGE if huge else size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if not huge:
        return memoryview(memory)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE
    with contextlib.suppress(OSError):  # a kernel built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[start : start + size]
