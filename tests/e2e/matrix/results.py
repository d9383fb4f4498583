"""What became of each cell, in the cache and beside the table in docs/, by the content of the code that matters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from rekindle_image.workshop import content_hash

from recovery.errors import UsageError
from tests.e2e.matrix.model import Cell
from tests.e2e.matrix.observe import Check, Seen
from tests.e2e.matrix.rootfs import cache_folder

#: ``booted``: everything held, twice. ``refused``: the plan said why not. Of what was planned fine: ``adapt-failed``
#: ended in an error, ``no-boot`` never came to its login, ``broken`` came up and something did not hold.
#: ``untested``: this QEMU cannot emulate it. ``lab-failed``: the test itself did not get that far.
Status = Literal["booted", "refused", "adapt-failed", "no-boot", "broken", "untested", "lab-failed"]
#: What counts as planned fine but not booted.
PROMISES_BROKEN: tuple[Status, ...] = ("adapt-failed", "no-boot", "broken")

ROOM = Path(__file__).parents[3] / "recovery"
#: The code that decides whether a restored system boots. Windows, servers and stores do not.
_DECIDING = ("adapt", "machine", "plan", "layout.py", "restore", "format", "capture", "windows")


class Result(msgspec.Struct):
    """One cell's outcome. ``seconds`` by phase; ``code``: the key of the code and test that it was made with."""

    cell: str
    source: str
    target: dict[str, str | int]
    status: Status
    reason: str = ""
    restored: str = ""
    """Where the restore ran: outside QEMU onto the image file, or on the medium."""
    checks: list[Check] = []
    changes: list[str] = []
    warnings: list[str] = []
    seconds: dict[str, float] = {}
    first: Seen | None = None
    second: Seen | None = None
    accelerator: str = ""
    emulator: str = ""
    """QEMU's version; empty in results of before 2026-11-28, which are of 7.2."""
    at: float = 0.0
    code: str = ""
    revision: str = ""

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


def code_key(parts: Iterable[Path] = ()) -> str:
    """The key of the deciding code, and of the test's own judgement."""
    here = Path(__file__).parent
    judging = [here / "observe.py", here / "network.py", here / "layout.py", here / "image.py", here / "rootfs.py"]
    return content_hash(*(ROOM / name for name in _DECIDING), *judging, *parts)


def target_facts(cell: Cell) -> dict[str, str | int]:
    """The target's axes for a report."""
    return dataclasses.asdict(cell.target)


class Store:
    """Results by cell; the last one of each counts. Several processes may write: one file a cell."""

    def __init__(self, cache: Path, published: Path | None = None) -> None:
        self.folder = cache_folder(cache) / "results"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._published = published

    def put(self, result: Result) -> None:
        """Keep it; whole or not at all."""
        file = self.folder / f"{result.cell}.json"
        new = file.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
        new.replace(file)

    def all(self) -> dict[str, Result]:
        """Every result by cell: those published beside the table, and newer ones made here."""
        found = {result.cell: result for result in read(self._published)} if self._published else {}
        for file in sorted(self.folder.glob("*.json")):
            result = msgspec.json.decode(file.read_bytes(), type=Result)
            if result.cell not in found or found[result.cell].at <= result.at:
                found[result.cell] = result
        return found

    def done(self, cell: Cell, code: str) -> Result | None:
        """The cell's result with this very code; one that the lab failed to get does not count."""
        result = self.all().get(cell.name)
        return result if result and result.code == code and result.status != "lab-failed" else None


def read(file: Path) -> list[Result]:
    """The results in a report. Raises UsageError when the file is none."""
    if not file.exists():
        return []
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Result])
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"'{file}' is not a report of the matrix: {error}.", hint="Remove it; 'scripts/matrix' writes it anew."
        ) from error


def write(file: Path, results: Iterable[Result]) -> None:
    """The report as JSON, in the order of the cells' names."""
    ordered = sorted(results, key=lambda result: result.cell)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
