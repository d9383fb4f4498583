"""A captured system's files, read below the folders where its filesystems are mounted read-only.

Links are followed inside the captured tree only: ``/etc/os-release`` may be an absolute link, and what a link points
to must never be read from the machine that captures.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MAX_LINKS = 40
_MAX_TEXT = 4 * 1024 * 1024


@dataclass(frozen=True)
class Located:
    """A path of the captured system: its mount point there, its path without links, and where to read it here."""

    mount: str
    path: str
    here: Path


class Tree:
    """Read access by the captured system's own paths. Nothing raises for what is missing or unreadable."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        """``mounts`` gives the folder here of each mount point there; ``/`` must be among them."""
        self._mounts = {str(PurePosixPath("/") / point): folder for point, folder in mounts.items()}

    def mount_of(self, path: str) -> str:
        """The mount point (of those known) that ``path`` lies below."""
        parents = [path, *(str(parent) for parent in PurePosixPath(path).parents)]
        return next((parent for parent in parents if parent in self._mounts), "/")

    def _here(self, path: str) -> Path:
        mount = self.mount_of(path)
        return self._mounts[mount] / os.path.relpath(path, mount)

    def locate(self, path: str) -> Located | None:
        """Where ``path`` really lies, links followed; None when it does not exist."""
        waiting = [part for part in reversed(PurePosixPath(path).parts) if part != "/"]
        there = "/"
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                there = str(PurePosixPath(there).parent)
                continue
            step = str(PurePosixPath(there) / part)
            try:
                mode = os.lstat(self._here(step)).st_mode
                target = str(self._here(step).readlink()) if stat.S_ISLNK(mode) else ""
            except OSError:
                return None
            if not target:
                there = step
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if target.startswith("/"):
                there = "/"
            waiting += [piece for piece in reversed(PurePosixPath(target).parts) if piece != "/"]
        return Located(self.mount_of(there), there, self._here(there))

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return self.locate(path) is not None

    def text(self, path: str) -> str:
        """The file's text (its first 4 MiB), empty when there is none."""
        return self.head(path, _MAX_TEXT).decode("utf-8", "replace")

    def head(self, path: str, length: int) -> bytes:
        """The first bytes of a regular file, empty when there is none."""
        found = self.locate(path)
        try:
            if found is None or not stat.S_ISREG(found.here.lstat().st_mode):
                return b""
            with found.here.open("rb") as file:
                return file.read(length)
        except OSError:
            return b""

    def size(self, path: str) -> int | None:
        """Bytes of a file, or None."""
        found = self.locate(path)
        return found.here.lstat().st_size if found else None

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; empty when there is none."""
        found = self.locate(folder)
        try:
            return sorted(entry.name for entry in found.here.iterdir()) if found else []
        except OSError:
            return []

    def of_this_machine(self) -> bool:
        """Whether it is the system that we run on (its disk or a snapshot of it is captured): by its machine-id."""
        ours, theirs = Path("/etc/machine-id"), self.text("/etc/machine-id").strip()
        return bool(theirs) and ours.exists() and ours.read_text().strip() == theirs
