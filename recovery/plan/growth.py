"""What of a host could take the room of a larger disk, what it would become, and which of it was chosen. Pure.

A partition in the middle of a disk may grow too: what follows it is moved to the end while it is restored, which costs
nothing there (``recovery.plan.landing``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from recovery.errors import UsageError
from recovery.format.point import Point, PointDisk
from recovery.layout import WINDOWS, Content, GrowPlace, Landing, Partition, VolumeGroup
from recovery.machine.model import Disk
from recovery.plan.check_stack import LUKS, array_members
from recovery.plan.laidout import followers, landing_of, lay_out
from recovery.plan.landing import real_partitions
from recovery.plan.model import Choices, GrowthCandidate
from recovery.plan.names import BOOT_TYPES
from recovery.units import MIB
from recovery.windows.partitions import KEPT

Pairs = Sequence[tuple[PointDisk, Disk]]

#: The word for "nothing grows".
NONE = "none"
_FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs")
_PV, _MD = "LVM2_member", "linux_raid_member"


def wishes(words: Sequence[str], grow: bool = True) -> tuple[bool, tuple[str, ...]]:
    """(grow at all, where to) of what was asked for; ``none`` is the same as not to grow. Raises UsageError."""
    named = tuple(dict.fromkeys(word for word in words if word != NONE))
    if named and (len(named) < len(set(words)) or not grow):
        raise UsageError(
            "Growth is to go somewhere and nowhere.", hint="Name what grows, or 'none' (the same as --no-grow) alone."
        )
    return grow and NONE not in words, named


def candidates(point: Point, pairs: Pairs, choices: Choices) -> tuple[GrowthCandidate, ...]:
    """Everything that lies on the disks of ``pairs``, those that cannot be chosen too (``why_not``)."""
    room = _Room(point, pairs, choices)
    found: list[GrowthCandidate] = []
    for source, _ in pairs:
        found += [_of_partition(room, source, part) for part in real_partitions(source)
                  if part.type not in (*BOOT_TYPES, *KEPT) and part.content.kind not in (_PV, _MD)]  # fmt: skip
    for array in point.body.md_arrays:
        places = [place for place in array_members(point, array) if room.has(place)]
        if places and array.content.kind != _PV:
            why = room.why_not_mirror(places, array.level)
            name = array.volume or array.name or array.uuid
            found.append(_candidate(room, name, (f"/dev/{name}",), array.content, f"md array {name}", places, why=why,
                                    before=min(room.size(place) for place in places)))  # fmt: skip
    for group in point.body.volume_groups:
        found += _of_group(room, group)
    chosen = {match.name for word in choices.grow_to if (match := named(word, found))}
    return tuple(msgspec.structs.replace(one, chosen=one.name in chosen) for one in found)


def named(word: str, found: Iterable[GrowthCandidate]) -> GrowthCandidate | None:
    """The candidate that a name means."""
    return next((one for one in found if word in (one.name, *one.names)), None)


def places_of(found: Iterable[GrowthCandidate]) -> tuple[GrowPlace, ...]:
    """The partitions that grow for what was chosen, at most one of a disk."""
    places: dict[str, GrowPlace] = {}
    for one in found:
        if one.chosen and not one.why_not:
            for place in one.places:
                places.setdefault(place.disk, place)
    return tuple(places.values())


def landings(point: Point, pairs: Pairs, choices: Choices) -> dict[str, Landing]:
    """The disks that are laid out anew: they do not fit as they are, or a partition grows behind which others lie."""
    places = {place.disk: place for place in places_of(candidates(point, pairs, choices))}
    found: dict[str, Landing] = {}
    for source, target in pairs:
        place = places.get(source.name)
        groups = point.body.volume_groups
        landing = landing_of(source, target, choices, place.number if place else None, groups)
        if landing is not None:
            found[source.name] = landing
    return found


class _Room:
    """The disks, and how much a partition of them would gain."""

    def __init__(self, point: Point, pairs: Pairs, choices: Choices) -> None:
        self.point, self.choices = point, choices
        self._pairs = {source.name: (source, target) for source, target in pairs}
        self._gains: dict[str, int] = {}
        facts = point.body.system
        own = {"/": facts.root} if facts.root and facts.os_id != WINDOWS else {}
        own |= {"/boot": facts.boot} if facts.boot and facts.boot != facts.root else {}
        self._mounts = {**facts.mounts, **own}

    @property
    def sources(self) -> list[PointDisk]:
        """The disks that are restored."""
        return [source for source, _ in self._pairs.values()]

    def has(self, place: str) -> bool:
        """Whether what is called ``disk1:2`` is restored."""
        return place.partition(":")[0] in self._pairs

    def mounts(self, place: str) -> list[str]:
        """Where it is mounted, the shortest path first."""
        return sorted((mount for mount, on in self._mounts.items() if on == place), key=lambda m: (len(m), m))

    def size(self, place: str) -> int:
        """Bytes as it was captured."""
        source, number = self._find(place)
        parts = {part.number: part.size for part in real_partitions(source)}
        return parts.get(number, source.size)

    def _find(self, place: str) -> tuple[PointDisk, int]:
        name, _, number = place.partition(":")
        return self._pairs[name][0], int(number or 0)

    def gain(self, place: str) -> int:
        """Bytes that a partition gets when it grows."""
        if place not in self._gains:
            source, number = self._find(place)
            target = self._pairs[source.name][1]
            self._gains[place] = 0
            if target.bus != "file" and target.size > source.size:
                found = lay_out(source, target, self.choices, number)
                if isinstance(found, Landing):
                    grown = next((p for p in found.placements if p.number == number), None)
                    self._gains[place] = max(0, grown.size - grown.old_size) if grown else 0
        return self._gains[place]

    def is_member(self, place: str) -> bool:
        """Whether it is a leg of a mirror."""
        source, number = self._find(place)
        return any(part.number == number and part.content.kind == _MD for part in real_partitions(source))

    def moved(self, place: str) -> list[str]:
        """The partitions that move out of the way."""
        source, number = self._find(place)
        return [f"{source.name}:{part.number}" for part in followers(source, number)]

    def why_not(self, place: str, content: Content) -> str:
        """Why a partition with this content cannot grow; empty when it can."""
        source, number = self._find(place)
        if content.kind == LUKS and not self.choices.luks_secret:
            return "it is encrypted, and its passphrase was not given"
        if content.kind not in (*_FILESYSTEMS, _PV, _MD, LUKS):
            return f"{content.kind or 'what lies on it, which was not recognised,'} is not grown"
        if content.unclean:
            return f"only its own system may write to it: {content.unclean}"
        if self.gain(place) < MIB:
            return f"the target of {source.name} has no room for more"
        if content.kind == _MD and followers(source, number):
            return "an array's superblock may lie at its end, so that only a last partition grows below one"
        if followers(source, number) and self.point.header.journal(source.name) is not None:
            return "other partitions would have to move, and in a point with journals none can; take one of chunks"
        return ""

    def why_not_mirror(self, places: Sequence[str], level: str) -> str:
        """The same of an array with these members."""
        if level != "raid1":
            return f"an array of level {level or '?'} is not grown"
        whys = (self.why_not(place, Content(kind=_MD)) for place in places)
        return next((why for why in whys if why), "")

    def usual(self, place: str) -> bool:
        """Whether it is what grows where nobody chooses: the last partition that is none of the firmware's."""
        source, number = self._find(place)
        parts = [part for part in real_partitions(source) if part.type not in BOOT_TYPES]
        return bool(parts) and max(parts, key=lambda part: part.start + part.size).number == number


def _of_partition(room: _Room, source: PointDisk, part: Partition) -> GrowthCandidate:
    place = f"{source.name}:{part.number}" if part.number else source.name
    names = [place]
    if source.device.startswith("/dev/"):
        names.insert(0, _device(source.device, part.number))
    what = f"partition {part.number} of {source.name}" if part.number else f"all of {source.name}"
    return _candidate(
        room, names[0], names, part.content, what, [place], why=room.why_not(place, part.content), before=part.size
    )


def _of_group(room: _Room, group: VolumeGroup) -> list[GrowthCandidate]:
    """A group's volumes, and the group itself, whose free room grows."""
    places, why = _physical(room, group)
    if not places and not why:
        return []
    found = []
    heir = _heir(group)
    for lv in group.volumes:
        name = f"{group.name}/{lv.name}"
        no = why or _why_not_volume(room, lv.segment, lv.content)
        names = (name, f"/dev/{name}", f"/dev/mapper/{group.name.replace('-', '--')}-{lv.name.replace('-', '--')}")
        found.append(_candidate(room, name, names, lv.content, f"volume {name}", places, why=no, before=lv.size,
                                volume=name, usual=heir == lv.name))  # fmt: skip
    found.append(_candidate(room, group.name, (f"/dev/{group.name}",), Content(), f"free room of volume group "
                            f"{group.name}", places, why=why, before=group.free, volume=group.name,
                            usual=not heir))  # fmt: skip
    return found


def _physical(room: _Room, group: VolumeGroup) -> tuple[list[str], str]:
    """The partitions below a group that can grow, at most one of a disk; or why none can."""
    found: dict[str, str] = {}
    why = ""
    for source in room.sources:
        for part in reversed(real_partitions(source)):
            if part.content.kind == _PV and part.content.uuid in group.pv_uuids:
                place = f"{source.name}:{part.number}" if part.number else source.name
                no = room.why_not(place, part.content)
                why = why or no
                if not no:
                    found.setdefault(source.name, place)
    for array in room.point.body.md_arrays:
        members = [place for place in array_members(room.point, array) if room.has(place)]
        if members and array.content.kind == _PV and array.content.uuid in group.pv_uuids:
            no = room.why_not_mirror(members, array.level)
            why = why or no
            if not no and not any(place.partition(":")[0] in found for place in members):
                found |= {place.partition(":")[0]: place for place in members}
    return list(found.values()), "" if found else why


def _why_not_volume(room: _Room, segment: str, content: Content) -> str:
    if segment == "thin":
        return "a thin volume keeps the size that it promises; its pool can grow"
    if segment not in ("linear", "thin-pool"):
        return f"a volume of the kind {segment} is not grown"
    if content.kind == LUKS and not room.choices.luks_secret:
        return "it is encrypted, and its passphrase was not given"
    return "swap is not grown" if content.kind == "swap" else ""


def _heir(group: VolumeGroup) -> str:
    """The volume that grows where nobody chooses (as ``recovery.adapt.grow`` has it)."""
    pools = [lv for lv in group.volumes if lv.segment == "thin-pool"]
    if len(pools) == 1 and all(lv.segment == "thin" for lv in group.volumes if lv != pools[0]):
        return pools[0].name
    only = group.volumes[0] if len(group.volumes) == 1 else None
    return only.name if only and only.segment == "linear" else ""


def _candidate(
    room: _Room, name: str, names: Sequence[str], content: Content, what: str, places: Sequence[str], *,
    why: str, before: int, volume: str = "", usual: bool = True,
) -> GrowthCandidate:  # fmt: skip
    """``places`` are the partitions that grow. Those of a mirror grow together, those of a group add up."""
    mounts = room.mounts(volume or name) or room.mounts(places[0] if places and not volume else "")
    gains = [room.gain(place) for place in places if not room.is_member(place)] if not why else []
    legs = [room.gain(place) for place in places if room.is_member(place)] if not why else []
    kind = f"{content.kind}, " if content.kind else ""
    return GrowthCandidate(
        name=mounts[0] if mounts else name,
        names=tuple(dict.fromkeys((*mounts[1:], name, *names))),
        what=f"{kind}{what}",
        before=before,
        after=before + (sum(gains) + min(legs, default=0)) // MIB * MIB,
        places=tuple(
            GrowPlace(disk=place.partition(":")[0], number=int(place.partition(":")[2] or 0), volume=volume)
            for place in places
        ),
        moved=tuple(moved for place in places for moved in room.moved(place)) if not why else (),
        usual=usual and not why and all(room.usual(place) for place in places),
        why_not=why,
    )


def _device(disk: str, number: int) -> str:
    """The kernel's name of a partition of a captured disk."""
    return disk if not number else f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"
