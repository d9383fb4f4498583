"""The disks that are measured with, and what is made of them once: kept in a folder by what they are made from."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from recovery.commands import run
from recovery.errors import SpaceError
from recovery.format.chunk import is_zero
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.units import GIB, MIB, format_size
from tests.bench.measure import digest_of, forget
from tests.e2e.lab.host_image import build as host_image
from tests.e2e.lab.server import rekindle

PASSPHRASE = "bench"
HOST = "bench"
#: Room that is left to others.
_RESERVE = 2 * GIB
#: Another one when what ``files_disk`` or ``random_disk`` makes changes.
_RECIPES = "1"
_CHECKOUT = Path(__file__).parents[2]
#: What decides how a repository looks: one made by other code is made anew.
_FORMAT = ("recovery/format", "recovery/capture/packer.py")

Say = Callable[[str], None]


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``digest`` is the BLAKE3 of all ``size`` bytes; ``used`` the bytes in MiBs that are not zero."""

    title: str
    size: int
    used: int
    digest: str


@dataclass(frozen=True)
class Disk:
    """A disk and the folder with all that is made of it. ``raw`` may be gone when only its repository is wanted."""

    folder: Path
    facts: DiskFacts

    @property
    def raw(self) -> Path:
        """The disk itself."""
        return self.folder / "disk.raw"

    @property
    def secret(self) -> Path:
        """A file with the passphrase of everything that is encrypted."""
        path = self.folder / "secret"
        if not path.exists():
            path.write_text(PASSPHRASE + "\n")
            path.chmod(0o600)
        return path

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """``folder / name``, made by ``make`` if it is not there. An interrupted one leaves nothing behind."""
        path = self.folder / name
        if not path.exists():
            making = self.folder / f"making-{name}"
            remove(making)
            make(making)
            making.rename(path)
            forget(path)
        return path

    def repository(self, say: Say) -> Path:
        """Our repository with one point of the disk, captured by the command line."""
        name = f"repository-{_code_key()}"
        for old in self.folder.glob("repository-*"):
            if old.name != name:
                remove(old)

        def make(path: Path) -> None:
            say(f"  capturing {self.facts.title}")
            Repository.create(open_local(path, create=True), PASSPHRASE)
            rekindle("capture", path, "--host", HOST, "--secret-file", self.secret, self.raw)

        return self.made(name, make)


def host_disk(data: Path, say: Say) -> Disk:
    """The disk of the demo's virtualization host: Debian, libvirt, two VMs, one of them on LVM (root, minutes)."""

    def make(path: Path) -> str:
        image = host_image.build(lambda text: say(f"  {text}"))
        run(["cp", "--sparse=always", image.disk, path])
        return "the demo's host: a Debian virtualization host with two VMs"

    return _disk(data, f"host-{host_image.key()}", make, say)


def files_disk(data: Path, say: Say, source: Path = Path("/usr"), least: int = 6 * GIB) -> Disk:
    """An ext4 filesystem with the files of a directory: a disk that is nearly full of programs."""

    def make(path: Path) -> str:
        needed = int(run(["du", "-sx", "-B1", source]).stdout.split()[0]) * 21 // 20 + 128 * MIB
        size = max(least, -(-needed // (64 * MIB)) * 64 * MIB)
        with path.open("wb") as file:
            file.truncate(size)
        run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", "-d", source, path])
        # A block device has no holes that a program could skip: nobody is to gain by them.
        run(["cp", "--sparse=never", path, path.with_suffix(".whole")])
        path.with_suffix(".whole").replace(path)
        return f"ext4 with the files of {source}"

    return _disk(data, f"files-{_key(source, least)}", make, say)


def random_disk(data: Path, say: Say, size: int = 6 * GIB) -> Disk:
    """Bytes that do not compress. Only their repository is kept: the disk itself is as large once more.

    Raises SpaceError when there is no room for that, or for a restore of it.
    """
    free = shutil.disk_usage(data).free
    if free < 2 * size + _RESERVE:
        raise SpaceError(
            f"{format_size(free)} are free, incompressible data needs {format_size(2 * size + _RESERVE)}."
        )

    def make(path: Path) -> str:
        stream = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
        zeros = bytes(8 * MIB)
        with path.open("wb") as file:
            for _ in range(0, size, len(zeros)):
                file.write(stream.update(zeros))
            file.truncate(size)
        return "incompressible bytes"

    disk = _disk(data, f"random-{_key(size)}", make, say, keep=_has_repository)
    disk.repository(say)
    remove(disk.raw)
    return disk


def _has_repository(folder: Path) -> bool:
    return (folder / f"repository-{_code_key()}").exists()


def _disk(
    data: Path, name: str, make: Callable[[Path], str], say: Say, keep: Callable[[Path], bool] = lambda folder: False
) -> Disk:
    """The disk of that name. ``keep`` says that it can do without its raw file."""
    folder = data / name
    for old in data.glob(f"{name.partition('-')[0]}-*"):
        if old.name != name:
            remove(old)
    facts = folder / "facts.json"
    if not facts.exists() or not ((folder / "disk.raw").exists() or keep(folder)):
        remove(folder)
        folder.mkdir(parents=True)
        say(f"  making the disk {name} (once)")
        title = make(folder / "making.raw")
        (folder / "making.raw").rename(folder / "disk.raw")
        found = look_at(folder / "disk.raw", title)
        forget(folder / "disk.raw")
        facts.write_bytes(msgspec.json.encode(found))
    return Disk(folder, msgspec.json.decode(facts.read_bytes(), type=DiskFacts))


def look_at(path: Path, title: str) -> DiskFacts:
    """The facts of a disk image."""
    used, buffer = 0, bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            used += 0 if is_zero(memoryview(buffer)[:count]) else count
    size = path.stat().st_size
    return DiskFacts(title=title, size=size, used=used, digest=digest_of(path))


def describe(disk: Disk) -> str:
    """The disk in a line."""
    facts = disk.facts
    return f"{facts.title}: {format_size(facts.size)}, {format_size(facts.used)} of it not zero"


def remove(path: Path) -> None:
    """Remove a file or a folder that may be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def tree_size(path: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())


def cache_folder() -> Path:
    """Where prepared data lies unless ``--data`` says otherwise."""
    home = os.environ.get("REKINDLE_CACHE")
    return (Path(home) if home else Path.home() / ".cache/rekindle") / "bench"


def _code_key() -> str:
    digest = hashlib.sha256()
    for place in _FORMAT:
        path = _CHECKOUT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _key(*parts: object) -> str:
    return hashlib.sha256("\0".join([_RECIPES, *map(str, parts)]).encode()).hexdigest()[:12]
