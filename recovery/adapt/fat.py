"""A FAT filesystem made anew for sectors of another size, with the same files, label and volume id.

By mtools, because they read and write FAT of any sector size, without a kernel that has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from recovery.commands import run
from recovery.errors import IntegrityError
from recovery.layout import Content

#: FAT32 begins with 65525 clusters; below, firmware would take it for FAT16 (Microsoft's FAT specification, 3.5).
_FAT32_CLUSTERS = 65525 + 64


def remake(old: Path, new: Path, size: int, sector: int, content: Content) -> int:
    """Make a FAT filesystem of ``size`` bytes in the file ``new`` and copy all files of ``old``; returns how many.

    Raises CommandError, IntegrityError (a file is missing or differs in size afterwards).
    """
    words = ["mkfs.vfat", "-S", str(sector)]
    if content.uuid:
        words += ["-i", content.uuid.replace("-", "")]
    if content.label:
        words += ["-n", content.label]
    if size // max(sector, 512) < _FAT32_CLUSTERS * (1 if sector == 4096 else 8):
        words += ["-F", "16"] if size >= 32 * 2**20 else []
    else:
        words += ["-F", "32", "-s", str(max(1, 4096 // sector))]
    run([*words, new])
    with _drives(old, new) as environment:
        found = _listed("o:", environment)
        if not found:
            return 0
        # -s folders too, -p attributes, -m times, -Q ends at the first error, -n never asks.
        run(["mcopy", "-s", "-p", "-m", "-Q", "-n", "o:/*", "n:/"], env=environment, timeout=3600)
        copied = _listed("n:", environment)
    missing = sorted(set(found) - set(copied))
    if missing:
        raise IntegrityError(f"{', '.join(missing[:3])} did not get into the new EFI system partition.")
    return sum(not path.endswith("/") for path in found)


def _listed(drive: str, environment: dict[str, str]) -> list[str]:
    done = run(["mdir", "-/", "-b", "-a", drive], env=environment, timeout=600)
    lines = (line.strip() for line in done.stdout.splitlines())
    return [line.partition(":")[2].lower() for line in lines if ":" in line]


@contextmanager
def _drives(old: Path, new: Path) -> Iterator[dict[str, str]]:
    with TemporaryDirectory(prefix="rekindle-fat-") as folder:
        settings = Path(folder) / "mtoolsrc"
        settings.write_text(f'drive o: file="{old}"\ndrive n: file="{new}"\nmtools_skip_check=1\n')
        yield {"MTOOLSRC": str(settings), "MTOOLS_SKIP_CHECK": "1"}
