"""Where the fields of the kernel's structures lie, and what number a type has, from the kernel's own type information
(BTF). Pure: bytes in, numbers out.

Format: Linux ``Documentation/bpf/btf.rst``. A header (magic 0xEB9F) says where types and names are; each type is three
u32 (name, info, size or type) and, depending on its kind, more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from recovery.errors import DeviceError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_STRUCT, _UNION, _TYPEDEF = 4, 5, 8
#: Kinds that stand for another type: typedef, volatile, const, restrict, type tag.
_ALIASES = {8, 9, 10, 11, 18}
#: Bytes behind a type of each kind: fixed, and for each of its members.
_EXTRA = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0)}
_EXTRA[19] = (0, 12)
_LAST_KIND = 19

#: Structure name -> field name -> byte offset. Fields of unnamed members count as the structure's own.
Offsets = dict[str, dict[str, int]]


def kernel_types(data: bytes, structures: Iterable[str], alias: str) -> tuple[Offsets, int]:
    """The fields of ``structures``, where one that the kernel does not have is missing and bit fields are left out;
    and the number of the type that it names ``alias``.

    Raises DeviceError when ``data`` is not BTF that we understand, or has no such type.
    """
    try:
        types = _Types(data)
        return types.find(set(structures)), types.number(alias)
    except (struct.error, IndexError, ValueError, RecursionError) as error:
        raise DeviceError(
            f"The kernel's type information (BTF) is not understood: {error}.",
            hint="Changed blocks are found without it, at a higher cost.",
        ) from error


class _Types:
    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types, types_length, strings, strings_length = _HEADER.unpack_from(data, 0)
        if magic != _MAGIC:
            raise ValueError("the magic number is wrong")
        self._data = data
        self._strings = header + strings
        self._strings_end = self._strings + strings_length
        start, end = header + types, header + types + types_length
        if end > len(data) or self._strings_end > len(data):
            raise ValueError("it is cut short")
        #: The place of each type by its number; number 0 is void.
        self._places = [-1]
        while start < end:
            info = _TYPE.unpack_from(data, start)[1]
            kind, members = info >> 24 & 31, info & 0xFFFF
            if not 0 < kind <= _LAST_KIND:
                raise ValueError(f"there is a type of unknown kind {kind}")
            self._places.append(start)
            fixed, each = _EXTRA.get(kind, (0, 0))
            start += _TYPE.size + fixed + each * members

    def _name(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start, self._strings_end)].decode()

    def number(self, alias: str) -> int:
        wanted = self._offsets_of({alias})
        for number, place in enumerate(self._places[1:], 1):
            name_offset, info, _ = _TYPE.unpack_from(self._data, place)
            if name_offset in wanted and info >> 24 & 31 == _TYPEDEF:
                return number
        raise ValueError(f"there is no type {alias}")

    def _offsets_of(self, names: set[str]) -> dict[int, str]:
        """By the offset of the name, because reading 100 000 names takes a second."""
        strings = self._data[self._strings : self._strings_end]
        return {offset: name for name in names for offset in _places_of(strings, name)}

    def find(self, names: set[str]) -> Offsets:
        found: Offsets = {}
        wanted = self._offsets_of(names)
        for place in self._places[1:]:
            name_offset, info, _ = _TYPE.unpack_from(self._data, place)
            name = wanted.get(name_offset)
            if name is not None and info >> 24 & 31 == _STRUCT and info & 0xFFFF and name not in found:
                found[name] = dict(self._fields(place, 0))
        return found

    def _fields(self, place: int, base: int) -> Iterable[tuple[str, int]]:
        info = _TYPE.unpack_from(self._data, place)[1]
        sized = info >> 31
        for number in range(info & 0xFFFF):
            name, type_number, bits = _TYPE.unpack_from(self._data, place + 12 + 12 * number)
            if sized and bits >> 24:
                continue  # a bit field
            offset = base + (bits & 0xFFFFFF if sized else bits) // 8
            if name:
                yield self._name(name), offset
            else:
                inner = self._resolve(type_number)
                if inner >= 0:
                    yield from self._fields(inner, offset)

    def _resolve(self, number: int) -> int:
        """The place of the structure or union that a type is in the end, or -1."""
        for _ in range(32):
            place = self._places[number]
            if place < 0:
                return -1
            _, info, number = _TYPE.unpack_from(self._data, place)
            kind = info >> 24 & 31
            if kind in (_STRUCT, _UNION):
                return place
            if kind not in _ALIASES:
                return -1
        raise ValueError("its types go round in a circle")


def _places_of(strings: bytes, name: str) -> list[int]:
    """Offsets at which ``name`` is a string of its own or the end of one."""
    text = name.encode() + b"\0"
    found: list[int] = []
    at = strings.find(text)
    while at >= 0:
        found.append(at)
        at = strings.find(text, at + 1)
    return found


def need(offsets: Mapping[str, Mapping[str, int]], structure: str, field: str) -> int:
    """One offset. Raises DeviceError when this kernel has no such field."""
    try:
        return offsets[structure][field]
    except KeyError as error:
        raise DeviceError(
            f"This kernel's '{structure}' has no field '{field}'.",
            hint="Changed blocks are found without it, at a higher cost.",
        ) from error
