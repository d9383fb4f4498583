"""The one door to registry hives, by hivex, which is Debian's package ``python3-hivex``.

The package of that name on package indexes is another project, so hivex is no dependency of ours: it is imported where
it is used, and its absence is one clear error.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recovery.errors import CommandError, IntegrityError

#: Types of values (winreg's REG_...).
SZ, BINARY, DWORD = 1, 3, 4

_MAGIC = b"regf"


class Hive:
    """A hive in a file. Keys are paths from its root (``Select``, ``ControlSet001/Services``), in any case.

    Raises what ``__init__`` does; changes are in memory until ``save``.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Raises CommandError without hivex, IntegrityError for a file that is no hive, a damaged one, or (to
        ``write``) one of which a part is in its logs only."""
        try:
            import hivex
        except ImportError as error:
            raise CommandError(
                "Registry hives of Windows cannot be read here: hivex is not installed.",
                hint="Install the Debian package 'python3-hivex'; the recovery medium has it.",
            ) from error
        if write and not is_whole(path):
            raise IntegrityError(
                f"The registry hive {path.name} was not written out in full when Windows was stopped.",
                hint="Start the host where it was, shut it down in full, and capture it again.",
            )
        self.path = path
        try:
            self._hive: Any = _quiet(hivex.Hivex)(str(path), write=write)
            self._root: int = self._hive.root()
        except RuntimeError as error:
            raise damaged(path) from error

    def key(self, path: str) -> int | None:
        """The key of this path, or None."""
        node: int | None = self._root
        for name in path.split("/") if path else ():
            node = self._child(node, name) if node is not None else None
        return node

    def children(self, path: str) -> list[str]:
        """The names of the keys in a key; none where it is not there."""
        node = self.key(path)
        if node is None:
            return []
        try:
            return [str(self._hive.node_name(child)) for child in self._hive.node_children(node)]
        except RuntimeError as error:
            raise damaged(self.path) from error

    def values(self, path: str) -> dict[str, tuple[int, bytes]]:
        """Name -> (type, data) of a key's values; none where it is not there. Raises IntegrityError."""
        node = self.key(path)
        try:
            found = self._hive.node_values(node) if node is not None else ()
            return {str(self._hive.value_key(value)): self._hive.value_value(value) for value in found}
        except RuntimeError as error:
            raise damaged(self.path) from error

    def dword(self, path: str, name: str) -> int | None:
        """A number, or None."""
        kind, data = self._value(path, name)
        return int(struct.unpack("<I", data[:4])[0]) if kind == DWORD and len(data) >= 4 else None

    def text(self, path: str, name: str) -> str:
        """A text, or the empty one."""
        kind, data = self._value(path, name)
        return data.decode("utf-16-le", "replace").split("\0")[0] if kind in (SZ, 2) else ""

    def set_value(self, path: str, name: str, kind: int, data: bytes) -> None:
        """Put a value into a key that is there. Raises IntegrityError."""
        self._change(path, lambda node: self._hive.node_set_value(node, {"key": name, "t": kind, "value": data}))

    def set_dword(self, path: str, name: str, number: int) -> None:
        """Put a number into a key that is there. Raises IntegrityError."""
        self.set_value(path, name, DWORD, struct.pack("<I", number))

    def delete(self, path: str) -> None:
        """Delete a key and all in it. Raises IntegrityError."""
        self._change(path, self._hive.node_delete_child)

    def save(self, path: Path) -> None:
        """Write all of it to a file. Raises IntegrityError, OSError."""
        try:
            self._hive.commit(str(path))
        except RuntimeError as error:
            raise IntegrityError(f"The registry hive {self.path.name} cannot be written: {error}.") from error

    def _value(self, path: str, name: str) -> tuple[int, bytes]:
        found = {key.lower(): value for key, value in self.values(path).items()}
        return found.get(name.lower(), (0, b""))

    def _child(self, node: int, name: str) -> int | None:
        try:
            found: int | None = self._hive.node_get_child(node, name)
        except RuntimeError as error:
            raise damaged(self.path) from error
        return found

    def _change(self, path: str, change: Any) -> None:
        node = self.key(path)
        if node is None:
            raise IntegrityError(f"The registry hive {self.path.name} has no key '{path}'.")
        try:
            change(node)
        except RuntimeError as error:
            raise damaged(self.path) from error


def _quiet(base: Any) -> Any:
    """hivex' class closes at its end what it may not have opened, and complains of that on the screen."""

    def close(self: Any) -> None:
        if hasattr(self, "_o"):
            base.__del__(self)

    return type("Hivex", (base,), {"__del__": close})


def hivex_is_there() -> bool:
    """Whether hives can be read on this machine."""
    try:
        return importlib.util.find_spec("hivex") is not None
    except ValueError:  # somebody put nothing in its place
        return False


def is_whole(path: Path) -> bool:
    """Whether all of a hive is in its file: its two sequence numbers agree. Else Windows would go on from its logs
    over what was changed here. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] != _MAGIC or head[4:8] == head[8:12]


def control_sets(hive: Hive) -> list[str]:
    """The control sets that Windows used last and that it will use next (mostly one): ``ControlSet001``."""
    numbers: Iterable[int | None] = (hive.dword("Select", name) for name in ("Current", "Default"))
    names = dict.fromkeys(f"ControlSet{number:03d}" for number in numbers if number)
    return [name for name in names if hive.key(name) is not None]


def damaged(path: Path) -> IntegrityError:
    """The error for a file that is no hive, or a damaged one."""
    return IntegrityError(
        f"The registry hive {path.name} is damaged.",
        hint="Choose an earlier recovery point, or let Windows' own repair put its copy back.",
    )
