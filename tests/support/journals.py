"""Points with journals, made by hand: a keyframe, and what later minutes changed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import msgspec

from recovery.format.journal import BLOCK, ChainEntry, Change, Journal, JournalHeader, encode_journal
from recovery.format.point import JOURNAL_VERSION, JournalRef, Point, PointHeader
from recovery.repository.repository import Repository

DISK = "disk1"


def differences(old: bytes, new: bytes) -> Iterator[Change]:
    """The changes that make ``new`` of ``old``; runs of zeros are changes without data."""
    blocks = -(-len(new) // BLOCK)
    at = 0
    while at < blocks:
        if old[at * BLOCK : (at + 1) * BLOCK] == new[at * BLOCK : (at + 1) * BLOCK]:
            at += 1
            continue
        zero = not any(new[at * BLOCK : (at + 1) * BLOCK])
        end = at
        while (
            end < blocks
            and old[end * BLOCK : (end + 1) * BLOCK] != new[end * BLOCK : (end + 1) * BLOCK]
            and zero == (not any(new[end * BLOCK : (end + 1) * BLOCK]))
        ):
            end += 1
        yield Change(at, end - at, None if zero else new[at * BLOCK : end * BLOCK])
        at = end


class Minutes:
    """Goes on with a keyframe, one journal point after another."""

    def __init__(self, repository: Repository, keyframe: Point, disk: str = DISK) -> None:
        self.repository = repository
        self.point = keyframe
        self.disk = disk
        self.base = next(ref.map for ref in keyframe.header.maps if ref.disk == disk)
        self.base_root = keyframe.disk(disk).root
        self.chain: list[ChainEntry] = []
        self.root = bytes.fromhex(self.base_root)

    def header(self) -> JournalHeader:
        """Of the next journal."""
        return JournalHeader(
            repository=self.repository.id, host=self.point.header.host, disk=self.disk,
            size=self.point.disk(self.disk).size, base=self.base, parent_point=self.point.id,
        )  # fmt: skip

    def encode(self, changes: Iterator[Change] | list[Change]) -> Journal:
        """The next journal, not stored."""
        return encode_journal(self.repository.keys, self.header(), self.chain, self.root, changes)

    def add(self, old: bytes, new: bytes, *, created: float | None = None) -> Point:
        """The point at which the disk, which was ``old``, is ``new``."""
        journal = self.encode(differences(old, new))
        self.repository.put_journal(self.point.header.host, journal)
        self.chain.append(ChainEntry(bytes.fromhex(journal.digest), journal.head))
        self.root = journal.root
        before = self.point
        header = PointHeader(
            version=JOURNAL_VERSION, repository=self.repository.id, host=before.header.host,
            created=created or time.time(), parent=before.id, maps=before.header.maps,
            journals=(JournalRef(disk=self.disk, journal=journal.digest, head=journal.head),),
        )  # fmt: skip
        disks = tuple(
            msgspec.structs.replace(disk, root=self.root.hex(), base_root=self.base_root, journals=len(self.chain))
            if disk.name == self.disk
            else disk
            for disk in before.body.disks
        )
        self.point = self.repository.commit(header, msgspec.structs.replace(before.body, disks=disks))
        return self.point


def scribble(old: bytes, seed: int, writes: int = 12) -> bytes:
    """The same disk after some writes all over it, and some discards."""
    chance, new = random.Random(seed), bytearray(old)
    blocks = -(-len(old) // BLOCK)
    for number in range(writes):
        start = chance.randrange(blocks)
        count = min(chance.choice([1, 1, 2, 5, 40]), blocks - start)
        span = slice(start * BLOCK, min(len(new), (start + count) * BLOCK))
        length = span.stop - span.start
        new[span] = bytes(length) if number % 4 == 3 else chance.randbytes(length)
    return bytes(new)
