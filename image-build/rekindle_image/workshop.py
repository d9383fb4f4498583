"""The place where a medium is made: a scratch directory, the cache, a log of everything the tools said, progress."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from recovery.commands import Completed
from recovery.commands import run as run_command
from recovery.errors import CommandError, RekindleError
from recovery.events import Listener, Message, Progress, StepFinished, StepStarted
from rekindle_image.scratch import discard, scratch_folder

HERE = Path(__file__).parent
#: Whoever reads one small file of a squashfs has the kernel unpack all of the block that it lies in, and Python starts
#: by reading hundreds: blocks of 1 MiB would save a few per cent of room and cost every start seconds.
BLOCK = "128K"


@dataclass
class Workshop:
    """Scratch space in ``work``, finished parts in ``cache``; ``log`` gets every command and its output."""

    work: Path
    cache: Path
    log: Path
    epoch: int
    listener: Listener
    steps: int = 0
    _number: int = field(default=0, init=False)
    _step: str = field(default="", init=False)
    _told: float = field(default=0.0, init=False)

    @contextlib.contextmanager
    def step(self, name: str, title: str) -> Iterator[list[str]]:
        """A named step. The block appends to the list it is given what the step's summary should say."""
        self._number += 1
        self._step = name
        start = time.monotonic()
        self.listener(StepStarted(step=name, title=title, number=self._number, of=self.steps))
        self.write_log(f"\n=== {self._number}/{self.steps} {title}\n")
        said: list[str] = []
        yield said
        seconds = time.monotonic() - start
        self.write_log(f"=== {name} took {seconds:.1f} s: {' '.join(said)}\n")
        self.listener(StepFinished(step=name, summary=" ".join(said), seconds=seconds))

    def tell(self, text: str) -> None:
        """Say something within the step."""
        self.write_log(text + "\n")
        self.listener(Message(text=text, step=self._step))

    def run(
        self, argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Completed:
        """Run a tool with its output in the log. Raises CommandError that names the log."""
        self.write_log("$ " + " ".join(os.fspath(word) for word in argv) + "\n")
        environment = {
            "SOURCE_DATE_EPOCH": str(self.epoch),
            "TZ": "UTC",
            "DEBIAN_FRONTEND": "noninteractive",
            **(env or {}),
        }
        try:
            return run_command(argv, env=environment, cwd=cwd, on_output=self._heard)
        except CommandError as error:
            raise CommandError(error.message, hint=f"Everything it said is in {self.log}") from error

    def _heard(self, line: str) -> None:
        self.write_log(line + "\n")
        now = time.monotonic()
        if now - self._told >= 1 and line.strip():
            self._told = now
            self.listener(Progress(step=self._step, done=0, total=0, note=line.strip()[:100]))

    def write_log(self, text: str) -> None:
        """Add to the log."""
        with self.log.open("a") as file:
            file.write(text)

    def scratch(self, name: str) -> Path:
        """A new empty directory that goes when the build ends."""
        path = self.work / name
        path.mkdir()
        return path

    def cached(self, name: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """The cached directory ``name``, made by ``make`` in a new directory first when it is not there.

        Returns it and whether it was there. It appears whole or not at all; of two builds at once one makes it and
        the other one waits.
        """
        finished = self.cache / name
        if not finished.is_dir():
            self.cache.mkdir(parents=True, exist_ok=True)
            with (self.cache / f".{name}.lock").open("w") as lock:
                self._wait_for(lock)
                if not finished.is_dir():
                    with scratch_folder(self.cache, f".{name}-") as temporary:
                        fresh = temporary / "part"
                        fresh.mkdir()
                        make(fresh)
                        fresh.rename(finished)
                    return finished, False
        os.utime(finished)
        return finished, True

    def _wait_for(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.listener(Message(text="Another build is making this part; waiting for it.", step=self._step))
            fcntl.flock(lock, fcntl.LOCK_EX)


def prune_cache(cache: Path, now: float) -> list[str]:
    """Remove parts that no build used for 30 days, and what builds that were killed left more than a day ago."""
    gone = []
    for path in sorted(cache.iterdir()):
        ours = path.name.lstrip(".").startswith(("base-", "python-", "build-"))
        days = 1 if path.name.startswith(".") else 30
        if not ours or now - path.stat().st_mtime <= days * 86400:
            continue
        if path.suffix == ".lock":
            path.unlink()
        elif path.is_dir():
            with contextlib.suppress(RekindleError):  # Something is mounted there: another day, then.
                discard(path)
                gone.append(path.name)
    return gone


def content_hash(*parts: Path | str) -> str:
    """A name for what is made from these files, folders (names, modes and contents) and words: 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(b"s" + part.encode() + b"\0")
            continue
        for file in sorted(p for p in ([part] if part.is_file() else part.rglob("*")) if p.is_file()):
            if "__pycache__" in file.parts:
                continue
            name = file.name if file == part else file.relative_to(part).as_posix()
            digest.update(
                f"f{name} {file.stat().st_mode & 0o111:o}\0".encode() + hashlib.sha256(file.read_bytes()).digest()
            )
    return digest.hexdigest()[:16]


def copy_overlay(source: Path, target: Path) -> None:
    """Copy a folder of the builder over a tree, with the modes a system has (0755 or 0644) whatever the umask was."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.readlink())
        elif path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            place.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def settle_times(tree: Path, epoch: int) -> None:
    """Give everything in the tree the build's date: what is written depends on content only."""
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def make_squashfs(shop: Workshop, tree: Path, target: Path, level: int, *, all_root: bool = False) -> None:
    """Pack a tree. zstd in blocks of 128 KiB; times after the build's date become that date."""
    words: list[str | Path] = ["mksquashfs", tree, target, "-noappend", "-no-progress", "-no-exports", "-b", BLOCK]
    words += ["-comp", "zstd", "-Xcompression-level", str(level)]
    shop.run([*words, "-all-root"] if all_root else words)
