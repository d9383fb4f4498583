"""The restored system's tree: files are read and changed inside it, originals are kept, programs run in its chroot.

Absolute symbolic links of the restored host (``/etc/resolv.conf -> /run/...``) mean the host's own tree, never the
medium's, so every path is resolved as a chroot would.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from recovery.commands import Completed, run
from recovery.errors import RekindleError, SpaceError

#: The original of a file that was changed lies beside it under this suffix.
KEPT = ".rekindle-orig"

#: But not in folders of which programs read every file, whatever its name: there it would be in force again.
ORIGINALS = "/var/lib/rekindle/originals"
_READ_WHOLE = (".d", "/system-connections", "/network-scripts", "/etc/sysconfig/network", "/loader/entries")

_CHROOT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "TMPDIR": "/tmp",  # noqa: S108 - the host's own
}


class HostTree:
    """A system's files below ``root``. Paths given are the host's absolute paths (``/etc/fstab``)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """The real path of a host path: links followed within the tree. The last component need not exist.

        Raises RekindleError when links go in circles.
        """
        todo = [part for part in PurePosixPath(name).parts if part != "/"]
        resolved: list[str] = []
        hops = 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                resolved = resolved[:-1]
                continue
            candidate = self.root.joinpath(*resolved, part)
            if candidate.is_symlink():
                hops += 1
                if hops > 40:
                    raise RekindleError(
                        f"Symbolic links of the restored host go in circles at '{name}'.",
                        hint="Repair the link in the restored system, then run 'rekindle adapt' again.",
                    )
                target = PurePosixPath(candidate.readlink())
                if target.is_absolute():
                    resolved = []
                todo = [p for p in target.parts if p != "/"] + todo
                continue
            resolved.append(part)
        return self.root.joinpath(*resolved)

    def exists(self, name: str) -> bool:
        """Whether the host has such a file or directory."""
        return self.path(name).exists()

    def is_dir(self, name: str) -> bool:
        """Whether the host has such a directory."""
        return self.path(name).is_dir()

    def read(self, name: str) -> str | None:
        """A text file's content (bytes that are not UTF-8 survive a write); None when there is no such file."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="surrogateescape")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def glob(self, pattern: str) -> Iterator[str]:
        """Host paths that match, sorted; originals kept by us and editors' backups are left out. The folder part
        of ``pattern`` has no wildcards unless no link is involved."""
        folder, _, last = pattern.rpartition("/")
        base = self.path(folder)
        if base.is_dir():
            for entry in sorted(base.glob(last)):
                if not entry.name.endswith((KEPT, "~")):
                    yield f"{folder}/{entry.name}"

    def write(self, name: str, text: str) -> bool:
        """Write a text file whole or not at all; keep what was there. False when it was so already.

        Owner and mode of an existing file stay. Raises SpaceError when the filesystem is full.
        """
        path = self.path(name)
        data = text.encode("utf-8", errors="surrogateescape")
        try:
            if path.is_file() and path.read_bytes() == data:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(path.name + ".rekindle-new")
            if path.exists():
                self._keep(name, path)
                shutil.copy2(path, new)
                status = path.stat()
                os.chown(new, status.st_uid, status.st_gid)
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            raise SpaceError(
                f"'{name}' of the restored host cannot be written: {error.strerror}.",
                hint="Make room on (or repair) the restored filesystem, then run 'rekindle adapt' again.",
            ) from error
        return True

    def _keep(self, name: str, path: Path) -> None:
        if name.rpartition("/")[0].endswith(_READ_WHOLE):
            original = self.path(f"{ORIGINALS}{name}")
            original.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not original.exists():
                shutil.copy2(path, original)
        else:
            keep(path)

    def move_aside(self, name: str) -> bool:
        """Rename a file to its kept name, so that it has no effect. False when there is no such file."""
        path = self.path(name)
        if not path.exists():
            return False
        path.replace(path.with_name(path.name + KEPT))
        return True

    def program(self, *names: str) -> str | None:
        """The first of these programs that the host has, as a host path."""
        for name in names:
            for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
                if self.exists(f"{folder}/{name}"):
                    return f"{folder}/{name}"
        return None

    def run(
        self,
        argv: list[str],
        *,
        check: bool = True,
        timeout: float | None = 600,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run the host's own program in its chroot; ``on_output`` gets its lines as they come. Raises CommandError."""
        words = [f"{key}={value}" for key, value in {**_CHROOT_ENVIRONMENT, **(env or {})}.items()]
        return run(["chroot", self.root, "env", *words, *argv], check=check, timeout=timeout, on_output=on_output)


def keep(path: Path) -> None:
    """Copy ``path`` beside itself under the kept name, once: a second run must not overwrite the true original."""
    original = path.with_name(path.name + KEPT)
    if not original.exists():
        shutil.copy2(path, original)
