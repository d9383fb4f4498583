"""The other programs, from Debian, each set up as its own documentation says for speed.

A peer makes its form of the disk once (untimed, kept with the disk); restoring is a line of shell. Where its
documentation leaves a choice there are several lines, and the fastest one counts.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from tests.bench.data import Disk
from tests.bench.measure import quote

CORES = os.cpu_count() or 1
#: Debian package -> a program of it
PACKAGES = {
    "restic": "restic", "borgbackup": "borg", "casync": "casync", "qemu-utils": "qemu-img", "libnbd-bin": "nbdcopy",
    "partclone": "partclone.ext4", "zstd": "zstd", "b3sum": "b3sum", "fio": "fio",
}  # fmt: skip


@dataclass(frozen=True)
class SetUp:
    """One way to restore ``disk`` with a program: a line of shell that writes ``out``, or a file of its own.

    ``sources`` are warmed before; ``result`` is the file with the disk's content afterwards.
    """

    script: str
    sources: tuple[Path, ...]
    result: Path
    env: dict[str, str]


@dataclass(frozen=True)
class Peer:
    """A program. ``set_ups`` prepares the disk's form and gives the ways to restore it to ``out``."""

    name: str
    packages: tuple[str, ...]
    set_ups: Callable[[Disk, Path], Sequence[SetUp]]

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed."""
        return missing(*self.packages)


def missing(*packages: str) -> tuple[str, ...]:
    """Which of these are not installed."""
    return tuple(package for package in packages if shutil.which(PACKAGES[package]) is None)


def direct(out: Path) -> str:
    """The end of a pipe that writes past the page cache, and waits until all is stable."""
    return f"dd of={quote(out)} bs=4M iflag=fullblock oflag=direct conv=notrunc,fsync status=none"


def restic_env(secret: Path, cache: Path) -> dict[str, str]:
    """Where restic finds its password and keeps its cache of metadata."""
    return {"RESTIC_PASSWORD_FILE": str(secret), "RESTIC_CACHE_DIR": str(cache)}


def restic_backup(repository: Path, disk: Path) -> str:
    """Its manual's "Tuning backup parameters": larger packs; compression is zstd's fastest level by default."""
    return quote("restic", "-q", "-r", repository, "backup", "--pack-size", "64", disk.name)


def _restic(disk: Disk, out: Path) -> Sequence[SetUp]:
    env = restic_env(disk.secret, disk.folder / "restic-cache")

    def make(path: Path) -> None:
        run(["restic", "-q", "-r", path, "init"], env=env)
        run(["bash", "-c", restic_backup(path, disk.raw)], env=env, cwd=disk.folder)

    repository = disk.made("restic", make)
    words: tuple[str | Path, ...] = ("restic", "-q", "-r", repository, "--no-lock", "-o", f"local.connections={CORES}")
    folder = out.parent / "restic-out"
    return (
        SetUp(f"{quote(*words, 'dump', 'latest', f'/{disk.raw.name}')} | {direct(out)}", (repository,), out, env),
        SetUp(
            f"{quote(*words, 'restore', 'latest', '--target', folder)} && sync -f {quote(folder)}", (repository,),
            folder / disk.raw.name, env,
        ),
    )  # fmt: skip


def borg_env(secret: Path, home: Path) -> dict[str, str]:
    """Where borg finds its passphrase and keeps its caches."""
    return {"BORG_PASSCOMMAND": quote("cat", secret), "BORG_BASE_DIR": str(home),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}  # fmt: skip


def borg_encryption() -> str:
    """Its manual: SHA-256 where the processor has it, BLAKE2 where not."""
    return "repokey" if "sha_ni" in Path("/proc/cpuinfo").read_text() else "repokey-blake2"


def borg_create(repository: Path, disk: Path, compression: str = "lz4") -> str:
    """Its manual: fixed chunks for disk images, and lz4 is the fastest compression."""
    words = ("borg", "create", "--chunker-params", "fixed,4194304", "--compression", compression)
    return quote(*words, f"{repository}::disk", disk.name)


def _borg(disk: Disk, out: Path) -> Sequence[SetUp]:
    env = borg_env(disk.secret, disk.folder / "borg-home")

    def make(path: Path) -> None:
        run(["borg", "init", "--encryption", borg_encryption(), path], env=env)
        run(["bash", "-c", borg_create(path, disk.raw)], env=env, cwd=disk.folder)

    repository = disk.made("borg", make)
    folder = out.parent / "borg-out"
    return (
        SetUp(
            f"{quote('borg', 'extract', '--stdout', f'{repository}::disk')} | {direct(out)}", (repository,), out, env
        ),
        SetUp(
            f"mkdir -p {quote(folder)} && cd {quote(folder)} && "
            f"{quote('borg', 'extract', '--sparse', f'{repository}::disk')} && sync -f .",
            (repository,), folder / disk.raw.name, env,
        ),
    )  # fmt: skip


def _casync(disk: Disk, out: Path) -> Sequence[SetUp]:
    def make(path: Path) -> None:
        path.mkdir()
        run(["casync", "make", f"--store={path}/store.castr", path / "disk.caibx", disk.raw])

    store = disk.made("casync", make)
    # It writes a file beside its target and renames it: one that was preallocated would not help it.
    result = out.with_name("casync.raw")
    words = ("casync", "extract", "--seed-output=no", f"--store={store}/store.castr", store / "disk.caibx", result)
    return (SetUp(quote(*words), (store,), result, {}),)


def _qcow2(disk: Disk) -> Path:
    def make(path: Path) -> None:
        run(
            [
                "qemu-img",
                "convert",
                "-O",
                "qcow2",
                "-c",
                "-W",
                "-m",
                "8",
                "-o",
                "compression_type=zstd",
                disk.raw,
                path,
            ]
        )

    return disk.made("disk.qcow2", make)


def _qemu_img(disk: Disk, out: Path) -> Sequence[SetUp]:
    source = _qcow2(disk)

    def words(cache: str) -> str:
        return quote(
            "qemu-img", "convert", "-n", "-W", "-m", "16", "-T", cache, "-t", "none", "-f", "qcow2", "-O", "raw",
            source, out,
        )  # fmt: skip

    return tuple(SetUp(words(cache), (source,), out, {}) for cache in ("none", "writeback"))


def _nbdcopy(disk: Disk, out: Path) -> Sequence[SetUp]:
    source = _qcow2(disk)

    def words(*options: str) -> str:
        server = ("[", "qemu-nbd", "--read-only", "--shared=8", "--format=qcow2", source, "]")
        return quote("nbdcopy", "--flush", *options, "--", *server, out)

    tuned = (f"--threads={CORES}", "--connections=4", "--requests=16", "--request-size=1048576")
    return tuple(SetUp(words(*options), (source,), out, {}) for options in ((), tuned))


def _zstd(disk: Disk, out: Path) -> Sequence[SetUp]:
    def make(path: Path) -> None:
        run(["zstd", "-q", "-1", "-T0", disk.raw, "-o", path])

    source = disk.made("disk.zst", make)
    return (SetUp(f"{quote('zstd', '-q', '-dc', source)} | {direct(out)}", (source,), out, {}),)


def _partclone(disk: Disk, out: Path) -> Sequence[SetUp]:
    """As Clonezilla: each filesystem by its own program, what has none by ``partclone.dd``; the table by itself."""
    parts = list(_parts(disk.raw))

    def make(path: Path) -> None:
        path.mkdir()
        for number, (start, size, program) in enumerate(parts):
            with _loop(disk.raw, start, size) as device:
                # Without checksums: "no slowdown, smallest image", says its help.
                words: list[str | Path] = [program, "-s", device, "-o", "-", "-q", "-L", f"{path}/log"]
                words += [] if program == "partclone.dd" else ["-c", "-a0"]
                image = path / f"{number}.zst"
                run(["bash", "-o", "pipefail", "-c", f"{quote(*words)} | zstd -q -1 -T0 -o {quote(image)}"])
        run(["dd", f"if={disk.raw}", f"of={path}/head", "bs=1M", f"count={_head(parts)}", "status=none"])
        run(
            ["dd", f"if={disk.raw}", f"of={path}/tail", "bs=1M", f"skip={disk.facts.size // 2**20 - 1}", "status=none"]
        )

    source = disk.made("partclone", make)
    lines = []
    if parts[0][0]:
        lines += [f"dd if={quote(source)}/head of={quote(out)} bs=1M conv=notrunc status=none",
                  f"dd if={quote(source)}/tail of={quote(out)} bs=1M seek={disk.facts.size // 2**20 - 1} conv=notrunc "
                  "status=none"]  # fmt: skip
    for number, (start, size, program) in enumerate(parts):
        options = f"--show --find --direct-io=on --offset {start} --sizelimit {size}"
        restore = "partclone.dd" if program == "partclone.dd" else "partclone.restore"
        lines += [
            f"device=$(losetup {options} {quote(out)})",
            f"zstd -q -dc {quote(source)}/{number}.zst | {restore} -s - -o $device -q -L /dev/null || failed=1",
            "losetup --detach $device",
        ]
    script = "; ".join(["failed=0", *lines, "exit $failed"])
    return (SetUp(script, (source,), out, {}),)


def _head(parts: Sequence[tuple[int, int, str]]) -> int:
    """MiBs before the first partition."""
    return max(1, parts[0][0] // 2**20)


def _parts(raw: Path) -> Iterator[tuple[int, int, str]]:
    """Start, size and partclone's program for each partition; a disk without a table is one."""
    done = run(["sfdisk", "--json", raw], check=False)
    table = json.loads(done.stdout)["partitiontable"]["partitions"] if done else []
    places = [(part["start"] * 512, part["size"] * 512) for part in table] or [(0, raw.stat().st_size)]
    for start, size in places:
        probe = run(["blkid", "-p", "-O", str(start), "-S", str(size), "-s", "TYPE", "-o", "value", raw], check=False)
        kind = probe.stdout.strip()
        yield start, size, f"partclone.{kind}" if kind in ("ext4", "vfat", "xfs", "btrfs") else "partclone.dd"


@contextmanager
def _loop(raw: Path, start: int, size: int) -> Iterator[str]:
    place = ("--offset", str(start), "--sizelimit", str(size))
    device = run(["losetup", "--show", "--find", "--read-only", *place, raw]).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


PEERS = (
    Peer("zstd -dc | dd oflag=direct", ("zstd",), _zstd),
    Peer("qemu-img convert, compressed qcow2", ("qemu-utils",), _qemu_img),
    Peer("nbdcopy, compressed qcow2", ("libnbd-bin", "qemu-utils"), _nbdcopy),
    Peer("partclone + zstd", ("partclone", "zstd"), _partclone),
    Peer("borg extract", ("borgbackup",), _borg),
    Peer("casync extract", ("casync",), _casync),
    Peer("restic restore", ("restic",), _restic),
)
