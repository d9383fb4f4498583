"""Filesystems made smaller by their own tools, each shown as a file of its old size. Never xfs: it cannot be."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recovery.adapt.mount import place_to_mount
from recovery.commands import run
from recovery.errors import CommandError, IntegrityError

#: Says a line of what a tool prints.
Note = Callable[[str], None]

_PAGE = 4096
#: linux/swap.h: version, last page and bad pages follow 1024 bytes of boot sector; the signature ends the first page.
_SWAP_FACTS = struct.Struct("<III")
_SWAP_SIGNATURE = b"SWAPSPACE2"


def shrink_filesystem(path: Path, kind: str, size: int, note: Note) -> None:
    """Make the filesystem in a file ``size`` bytes large. Raises CommandError, IntegrityError."""
    if kind in ("ext2", "ext3", "ext4"):
        _shrink_ext(path, size, note)
    elif kind == "btrfs":
        _shrink_btrfs(path, size)
    elif kind == "swap":
        _shrink_swap(path, size)
    else:
        raise CommandError(f"A {kind} filesystem cannot be shrunk here.")


def _shrink_ext(path: Path, size: int, note: Note) -> None:
    done = run(["e2fsck", "-f", "-p", path], check=False)
    if done.returncode > 1:  # 0 clean, 1 corrected
        raise CommandError(
            f"The filesystem has errors that need a person, so it cannot be shrunk: {done.stdout.strip()[-300:]}",
            hint="Restore it to a disk of at least the captured size, repair it there with 'e2fsck -f', and capture "
            "it again.",
        )
    # With a progress bar it would say nothing that lines carry; -p is for people.
    run(["resize2fs", path, f"{size // 1024}K"], on_output=note)


def _shrink_btrfs(path: Path, size: int) -> None:
    with loop_device(path) as device, place_to_mount("shrink") as folder:
        run(["mount", "-t", "btrfs", device, folder])
        shown = run(["btrfs", "filesystem", "show", "--raw", folder]).stdout
        devices = [line.split()[1] for line in shown.splitlines() if line.split()[:1] == ["devid"]]
        if len(devices) != 1:
            raise CommandError("The btrfs filesystem lies on several devices, and is not shrunk here.")
        run(["btrfs", "filesystem", "resize", f"{devices[0]}:{size}", folder])


def _shrink_swap(path: Path, size: int) -> None:
    """Say in its header that it ends earlier. Label and UUID stay; of what was in it nothing is needed."""
    with path.open("r+b") as file:
        page = bytearray(file.read(_PAGE))
        if page[_PAGE - 10 :] != _SWAP_SIGNATURE:
            raise IntegrityError("The swap space has no header of the usual kind.", hint="Make it anew with 'mkswap'.")
        version, _, bad = _SWAP_FACTS.unpack_from(page, 1024)
        if bad:
            raise IntegrityError("The swap space lists bad pages.", hint="Make it anew with 'mkswap'.")
        _SWAP_FACTS.pack_into(page, 1024, version, size // _PAGE - 1, 0)
        file.seek(0)
        file.write(page)


@contextmanager
def loop_device(path: Path) -> Iterator[str]:
    """A loop device over a file. Raises CommandError."""
    device = run(["losetup", "--find", "--show", path]).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device], check=False)
