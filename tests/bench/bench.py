"""What every row is given, and the disks that they share, made when the first one asks."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recovery.units import GIB, MIB
from tests.bench import data
from tests.bench.data import Disk, Say
from tests.bench.live_scale import LiveScale

#: A quick look on little data: does the bench itself work? Its figures say nothing.
SMOKE = 64 * MIB


@dataclass
class Bench:
    """``samples`` is the number of turns, ``folder`` holds prepared data, ``smoke`` is little data; without
    ``peers`` only this project is measured (and the limit, b3sum, plain TCP). ``results`` is where everybody writes,
    beside the prepared data unless given; ``live``: how much of everything the row capture-live takes."""

    folder: Path
    samples: int
    say: Say
    smoke: bool = False
    peers: bool = True
    source: Path = Path("/usr")
    results: Path | None = None
    live: LiveScale = LiveScale()
    _disks: dict[str, Disk] = field(default_factory=dict)

    def disk(self, name: str) -> Disk:
        """``files``, ``host`` or ``random``."""
        if name not in self._disks:
            self.folder.mkdir(parents=True, exist_ok=True)
            makers: dict[str, Callable[[], Disk]] = {
                "files": lambda: data.files_disk(self.folder, self.say, self.source, SMOKE if self.smoke else 6 * GIB),
                "host": lambda: data.host_disk(self.folder, self.say),
                "random": lambda: data.random_disk(self.folder, self.say, SMOKE if self.smoke else 6 * GIB),
            }
            self._disks[name] = makers[name]()
        return self._disks[name]

    def drop(self, name: str) -> None:
        """Forget a disk that takes more room than it takes time to make again."""
        if disk := self._disks.pop(name, None):
            data.remove(disk.folder)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for results, removed afterwards."""
        place = self.results or self.folder
        place.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix="scratch-", dir=place))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
