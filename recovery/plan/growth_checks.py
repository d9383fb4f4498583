"""What becomes of the room that is left on a larger target, and what speaks against where it was asked to go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from recovery.format.point import Point, PointDisk
from recovery.layout import Landing
from recovery.machine.model import Disk
from recovery.plan.growth import named
from recovery.plan.model import Choices, GrowthCandidate, Problem, RestorePlan
from recovery.plan.names import short_name
from recovery.units import MIB, format_size


def check_growth(
    pairs: Iterable[tuple[PointDisk, Disk]], choices: Choices, found: Sequence[GrowthCandidate]
) -> Iterator[Problem]:
    """What grows on each larger target; ``found`` are all the candidates."""
    yield from _check_names(choices, found)
    for source, target in pairs:
        extra = target.size - source.size
        if extra < MIB or target.bus == "file":
            continue
        yield Problem(
            severity="info",
            code="target-larger",
            what=f"{target.path} is {format_size(extra)} larger than {source.name}.",
            why=_what_grows(source, choices, found),
        )


def describe(one: GrowthCandidate) -> str:
    """``/var (ext4, volume vg0/var) from 8.0 GiB to 72.0 GiB``, and what moves for it."""
    moved = f"; {', '.join(one.moved)} moved to the end" if one.moved else ""
    return f"{one.name} ({one.what}) from {format_size(one.before)} to {format_size(one.after)}{moved}"


def growing(plan: RestorePlan) -> set[str]:
    """The names of what will grow: what was chosen, and the usual on disks of which nothing was."""
    if not (plan.choices.grow and plan.choices.adapt):
        return set()
    taken = {place.disk for one in plan.growth if one.chosen for place in one.places}
    usual = (one for one in plan.growth if one.usual and not taken.intersection(p.disk for p in one.places))
    return {one.name for one in plan.growth if one.chosen} | {one.name for one in usual}


def _what_grows(source: PointDisk, choices: Choices, found: Sequence[GrowthCandidate]) -> str:
    if not (choices.grow and choices.adapt):
        return "The rest stays unused."
    here = [one for one in found if not one.why_not and any(place.disk == source.name for place in one.places)]
    grown = [one for one in here if one.chosen] or [one for one in here if one.usual]
    return f"Grown: {'; '.join(map(describe, grown))}." if grown else "The rest stays unused."


def _check_names(choices: Choices, found: Sequence[GrowthCandidate]) -> Iterator[Problem]:
    possible = "; ".join(describe(one) for one in found if not one.why_not)
    todo = f"What can grow: {possible}." if possible else "Nothing can grow on these targets: choose larger ones."
    taken: dict[str, str] = {}
    for word in choices.grow_to:
        match = named(word, found)
        if match is None:
            yield Problem(
                severity="error",
                code="grow-to-unknown",
                what=f"The point has nothing called '{word}' that could grow.",
                why="Names are those of the host: a mount point, a device, a logical volume (vg0/data), or disk1:2.",
                todo=todo,
            )
            continue
        why = match.why_not
        if not choices.adapt:
            why = "growing is a part of making the host start here, which was not asked for"
        for place in match.places if not why else ():
            other = taken.setdefault(place.disk, match.name)
            if other != match.name:
                why = f"{other} already gets the room of {place.disk}"
        if why:
            yield Problem(
                severity="error",
                code="grow-to-refused",
                what=f"{match.name} ({match.what}) cannot grow.",
                why=f"{why[0].upper()}{why[1:]}.",
                todo=todo,
            )


def check_journals(
    point: Point, pairs: Iterable[tuple[PointDisk, Disk]], laid_out: Mapping[str, Landing]
) -> Iterator[Problem]:
    """A disk that is laid out anew is read by the filesystems' own tools, which can't see what journals changed."""
    for source, target in pairs:
        if point.header.journal(source.name) is not None and source.name in laid_out:
            yield Problem(
                severity="error",
                code="journal-laid-out-anew",
                what=f"{source.name} has to be laid out anew on {short_name(target)}, and this point has journals.",
                why="Partitions are shrunk and moved from points of chunks only, not from those a minute apart.",
                todo="Choose the point of chunks at the beginning of the hour, or a disk of at least the same size.",
            )
