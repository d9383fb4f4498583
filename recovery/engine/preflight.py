"""Checks before the first write that need asking: are all packs there, is there room, may we write at all?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recovery.adapt.land import tools_for
from recovery.errors import AccessError, IntegrityError, NotFoundError, UnreachableError
from recovery.format.chunkmap import ChunkMap
from recovery.format.names import REPOSITORY, pack_name
from recovery.format.overlay import Overlay
from recovery.format.point import Point
from recovery.machine.probe_disks import read_text
from recovery.plan.model import Problem, RestorePlan
from recovery.repository.content import disk_content
from recovery.repository.failover import copies_of
from recovery.repository.repository import Repository
from recovery.units import MIB, format_size
from recovery.windows.hives import hivex_is_there

#: Above this many packs one listing is cheaper than asking for each.
_LIST_FROM = 32
_NAMED = 3
#: Sizes that are asked for at once.
_ASKED = 8
#: Three workers, six write buffers and a rebuilt initramfs find room in it; more decoders and readers join where there
#: is more. The medium leaves as much to a restore on a machine of 700 MiB.
_FREE_MEMORY = 256 * MIB


def ask(repository: Repository, point: Point, plan: RestorePlan) -> list[Problem]:
    """All problems found by asking. Raises UnreachableError and AccessError: then nothing is known."""
    return [
        *check_rights(plan),
        *check_tools(plan),
        *check_windows_tools(plan),
        *check_not_into_repository(repository, plan),
        *check_memory(),
        *check_room(plan),
        *check_packs(
            repository,
            point,
            [assignment.source.name for assignment in plan.assignments],
            skip_damaged=plan.choices.skip_damaged,
        ),
    ]


def check_rights(plan: RestorePlan) -> Iterator[Problem]:
    """Disks are written by root only."""
    disks = [
        a.target.path for a in plan.assignments if a.target.bus != "file" and not os.access(a.target.path, os.W_OK)
    ]
    if disks:
        yield Problem(
            severity="error",
            code="no-write-access",
            what=f"This user may not write to {', '.join(disks)}.",
            why="Disks belong to root.",
            todo="Run the command as root.",
        )


def check_tools(plan: RestorePlan) -> Iterator[Problem]:
    """What lays a disk out anew is there: programs, and files that a program of ours serves (FUSE)."""
    needed: set[str] = set()
    for assignment in plan.assignments:
        needed |= tools_for(assignment.landing) if assignment.landing else set()
    missing = sorted(tool for tool in needed if shutil.which(tool) is None)
    if needed and not Path("/dev/fuse").exists():
        missing.append("/dev/fuse")
    if missing:
        yield Problem(
            severity="error",
            code="tool-missing",
            what=f"{', '.join(missing)} is not there.",
            why="A disk of another size or sector size is laid out anew with it.",
            todo="Restore on the recovery medium, or install e2fsprogs, btrfs-progs, dosfstools and mtools here.",
        )


def check_windows_tools(plan: RestorePlan) -> Iterator[Problem]:
    """What Windows is adapted with is there. Beside a Linux host it is no reason to stop."""
    steps = {step.id for step in plan.steps}
    if not any(id.startswith("adapt.windows") for id in steps):
        return
    missing = [tool for tool in ("ntfs-3g", "ntfs-3g.probe", "ntfsresize") if shutil.which(tool) is None]
    missing += [] if hivex_is_there() else ["python3-hivex"]
    if missing:
        yield Problem(
            severity="warning" if "adapt.mount" in steps else "error",
            code="tool-missing",
            what=f"{', '.join(missing)} is not there.",
            why="Windows is adapted with it.",
            todo="Restore on the recovery medium, or install ntfs-3g and python3-hivex here.",
        )


def check_not_into_repository(repository: Repository, plan: RestorePlan) -> Iterator[Problem]:
    """No image file goes into the repository that is read, least of all over one of its files."""
    # A server's files are not here.
    roots = [root for copy in copies_of(repository.store) if isinstance(root := getattr(copy, "root", None), Path)]
    for assignment in plan.assignments:
        path = Path(assignment.target.path)
        # Also that of another repository, or of the one that a server of this machine serves.
        inside = any(path.resolve().is_relative_to(root.resolve()) for root in roots) or any(
            (folder / REPOSITORY).is_file() for folder in path.resolve().parents
        )
        if assignment.target.bus == "file" and inside:
            yield Problem(
                severity="error",
                code="target-holds-repository",
                what=f"{path} lies in a repository.",
                why="Nothing but backups belongs there, and none of them is ever overwritten.",
                todo="Choose a file in another folder.",
            )


def check_memory(procfs: Path = Path("/proc")) -> Iterator[Problem]:
    """Memory that is really free now."""
    for line in read_text(procfs / "meminfo").splitlines():
        if line.startswith("MemAvailable:") and (free := int(line.split()[1]) * 1024) < _FREE_MEMORY:
            yield Problem(
                severity="error",
                code="memory-low",
                what=f"Only {format_size(free)} of memory are free.",
                why=f"A restore needs {format_size(_FREE_MEMORY)}.",
                todo="End other programs, or restore on a machine with more memory.",
            )


def check_room(plan: RestorePlan) -> Iterator[Problem]:
    """Image files take as much room as there is content; what a file holds already counts as free."""
    needed: dict[int, tuple[Path, int]] = {}
    for assignment in plan.assignments:
        if assignment.target.bus != "file":
            continue
        path = Path(assignment.target.path)
        held = path.stat().st_blocks * 512 if path.exists() else 0
        device = path.parent.stat().st_dev
        folder, so_far = needed.get(device, (path.parent, 0))
        needed[device] = (folder, so_far + max(0, assignment.source.used - held))
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            yield Problem(
                severity="error",
                code="no-room",
                what=f"There is no room for the image in {folder}.",
                why=f"It needs {format_size(size)}, {format_size(free)} are free.",
                todo="Make room, or choose another place.",
            )


def check_packs(
    repository: Repository, point: Point, disks: list[str], *, skip_damaged: bool = False
) -> Iterator[Problem]:
    """Every pack that a chunk map names exists in one copy of the repository and is long enough there. Content is
    verified while it is restored. With ``skip_damaged`` what is missing is only warned of."""
    ends: dict[bytes, int] = {}
    users: dict[bytes, set[str]] = {}
    for disk in disks:
        try:
            content = disk_content(repository, point, disk)
        except (IntegrityError, NotFoundError) as error:
            yield Problem(
                severity="error",
                code="map-damaged",
                what=f"The chunk map of {disk} can't be used.",
                why=error.message,
                todo=error.hint or "Choose another point, or another copy of the repository.",
            )
            continue
        if content.overlay is not None:
            yield from check_journals(repository, content.overlay, disk)
        for pack, end in pack_ends(content.map).items():
            ends[pack] = max(end, ends.get(pack, 0))
            users.setdefault(pack, set()).add(disk)
    yield from check_ends(repository, ends, users, skip_damaged=skip_damaged)


def check_ends(
    repository: Repository, ends: Mapping[bytes, int], users: Mapping[bytes, Collection[str]], *, skip_damaged: bool
) -> Iterator[Problem]:
    """Every pack is there and has as many bytes as ``ends`` says; ``users``: what its content belongs to."""
    sizes = _sizes(repository, list(ends))
    missing = [pack for pack in ends if sizes.get(pack) is None]
    short = [pack for pack, end in ends.items() if (size := sizes.get(pack)) is not None and size < end]
    for code, what, packs in (("pack-missing", "missing", missing), ("pack-truncated", "truncated", short)):
        if packs:
            hurt = sorted({disk for pack in packs for disk in users[pack]})
            names = ", ".join(pack.hex()[:16] for pack in packs[:_NAMED]) + (", ..." if len(packs) > _NAMED else "")
            yield Problem(
                severity="warning" if skip_damaged else "error",
                code=code,
                what=f"{len(packs)} of {len(ends)} packs of the point are {what} in the repository ({names}).",
                why=f"The content of {', '.join(hurt)} would not be complete.",
                todo="What they hold is left as zeros, and listed in the report."
                if skip_damaged
                else "Run 'rekindle repo check', and choose another point, or give another copy of the repository "
                "with --also.",
            )


def check_journals(repository: Repository, overlay: Overlay, disk: str) -> Iterator[Problem]:
    """Every journal of the disk is long enough in one copy of the repository; that it is there is known already."""
    with ThreadPoolExecutor(_ASKED) as pool:
        sizes = list(pool.map(repository.store.size, overlay.names))
    ends = [head.frames[-1].offset + head.frames[-1].length if head.frames else head.length for head in overlay.heads]
    short = sum(size is None or size < end for size, end in zip(sizes, ends, strict=True))
    if short:
        yield Problem(
            severity="error",
            code="journal-truncated",
            what=f"{short} of {len(ends)} journals of {disk} are truncated in the repository.",
            why=f"The content of {disk} would not be that of this minute.",
            todo="Choose a point before that minute, or give another copy of the repository with --also.",
        )


def pack_ends(map: ChunkMap) -> dict[bytes, int]:
    """Pack -> how many of its bytes the map needs it to have. By columns: a disk of 20 TiB has 20 million chunks."""
    ends: dict[int, int] = {}
    for page in map.pages:
        if page is None:
            continue
        for ref, offset, length in zip(page.refs, page.offsets, page.lengths, strict=True):
            if length and offset + length > ends.get(ref, 0):
                ends[ref] = offset + length
    return {map.packs[ref]: end for ref, end in ends.items()}


def _sizes(repository: Repository, packs: list[bytes]) -> dict[bytes, int | None]:
    names = {pack: pack_name(pack.hex()) for pack in packs}
    if len(packs) > _LIST_FROM:
        try:
            listed = {info.name: info.size for info in repository.store.list("packs/")}
        except AccessError:
            pass  # A role may read what it can name and yet not list.
        else:
            return {pack: listed.get(name) for pack, name in names.items()}
    try:
        return {pack: repository.store.size(name) for pack, name in names.items()}
    except UnreachableError as error:
        raise UnreachableError(f"While asking for the packs of the point: {error.message}", hint=error.hint) from error
