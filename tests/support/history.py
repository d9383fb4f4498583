"""A repository with some days of points, to be pruned."""

from __future__ import annotations

import random
import time
from pathlib import Path

from recovery.explore.chunks import ChunkSource
from recovery.format.chunkmap import ChunkMap
from recovery.format.mapcodec import encode_map
from recovery.format.point import Retention
from recovery.repository.check import check
from recovery.repository.content import disk_content
from recovery.repository.prune import PruneReport, prune
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore, open_local
from recovery.units import MIB
from tests.support.journals import Minutes
from tests.support.repositories import commit, new_repository, reopen, store_disk

DAY = 86400.0
HOST = "hv1"


class History:
    """Some days of a host: a keyframe, two minutes with journals, and the next day; the content of each point. The
    maps of the first ``deltas`` days build on each other, later ones stand alone."""

    def __init__(self, folder: Path, days: int = 5, deltas: int = 0) -> None:
        self.repository = new_repository(folder)
        self.content: dict[str, bytes] = {}
        dice = random.Random(1)
        data = bytearray(dice.randbytes(2 * MIB))
        start = time.time() // DAY * DAY - (days + 2) * DAY
        parent = None
        for day in range(days):
            data[day * 262144 : day * 262144 + 300_000] = dice.randbytes(300_000)
            parent = store_disk(self.repository, bytes(data), frames_per_pack=2, parent=parent)
            if day >= deltas:
                parent = stand_alone(self.repository, parent[1])
            point = commit(self.repository, HOST, {"disk1": parent}, created=start + day * DAY)
            self.content[point.id] = bytes(data)
            minutes = Minutes(self.repository, point)
            for minute in (1, 2):
                old = bytes(data)
                data[dice.randrange(400) * 4096] ^= 1
                point = minutes.add(old, bytes(data), created=start + day * DAY + 60 * minute)
                self.content[point.id] = bytes(data)

    @property
    def store(self) -> DirectoryStore:
        assert isinstance(self.repository.store, DirectoryStore)
        return self.repository.store

    def prune(
        self, later: float = 0.0, *, dry_run: bool = False, grace: float = 3 * DAY, exact: bool = True
    ) -> PruneReport:
        """As ``later`` seconds from now; two days are kept."""
        return prune(
            open_local(self.store.root), {HOST: Retention(days=2)}, grace=grace, dry_run=dry_run,
            now=time.time() + later, exact=reopen(open_local(self.store.root)) if exact else None,
        )  # fmt: skip

    def verify(self) -> list[str]:
        """Every byte of the repository, and every point read back; the ids of the points."""
        repository = reopen(open_local(self.store.root))
        report = check(repository, read_data=True)
        assert report.ok, report.damages
        found = repository.points(HOST)
        for summary in found:
            point = repository.point(HOST, summary.id)
            source = ChunkSource(repository, disk_content(repository, point, "disk1"), "disk1")
            assert source.read(0, 2 * MIB) == self.content[summary.id]
        return [summary.id for summary in found]


def stand_alone(repository: Repository, map: ChunkMap) -> tuple[str, ChunkMap]:
    """The map stored whole."""
    return repository.put_map(encode_map(map, repository.keys)), map


def listing(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*")
            if path.is_file() and not path.name.startswith(".") and ".writing" not in path.parts}  # fmt: skip
