"""What of the packs that are kept nobody needs any more: pruning removes whole packs only."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from recovery.format.names import pack_name
from recovery.repository.repository import Repository

#: Bytes of a pack besides its frames, and of each frame's entry in the footer (docs/format.md, "Packs").
_FIXED, _ENTRY = 16 + 64, 44


class DeadShare(msgspec.Struct, frozen=True, kw_only=True):
    """``dead`` of ``stored`` bytes in ``packs`` packs that are needed; ``partly`` of these are only partly alive."""

    packs: int
    partly: int
    stored: int
    dead: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.dead / self.stored if self.stored else 0.0


def dead_share(repository: Repository) -> DeadShare:
    """Measure it: reads every map of every point, and keeps the place of every chunk in memory (some 100 bytes each).

    Raises IntegrityError, NotFoundError.
    """
    used: dict[bytes, dict[int, int]] = defaultdict(dict)
    read: set[str] = set()
    for host in repository.hosts():
        for summary in repository.points(host):
            for reference in repository.point(host, summary.id).header.maps:
                if reference.map in read:
                    continue
                read.add(reference.map)
                for _, entry in repository.map(reference.map).blobs():
                    used[entry.pack][entry.offset] = entry.length
    stored = dead = partly = 0
    for pack, frames in used.items():
        size = repository.store.size(pack_name(pack.hex())) or 0
        rest = size - _FIXED - sum(frames.values()) - _ENTRY * len(frames)
        stored, dead, partly = stored + size, dead + max(0, rest), partly + (rest > 0)
    return DeadShare(packs=len(used), partly=partly, stored=stored, dead=dead)
