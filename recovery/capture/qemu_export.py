"""Image files that are not raw (qcow2, VHD, VHDX, VMDK) shown as raw files by QEMU's own drivers, read-only.

``qemu-storage-daemon`` puts a FUSE file in a private folder; holes of the image are holes of that file
(SEEK_HOLE), so unallocated clusters are never read.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from recovery.capture.image_header import HEAD_BYTES, names_other_files
from recovery.capture.ranges import read_range
from recovery.commands import run
from recovery.errors import BusyError, CommandError, NotFoundError, UsageError

#: QEMU's driver name -> what people call it.
FORMATS = {"raw": "raw", "qcow2": "qcow2", "vpc": "VHD", "vhdx": "VHDX", "vmdk": "VMDK"}
_START_SECONDS = 120.0


@dataclass(frozen=True)
class ImageInfo:
    """Format (QEMU's driver name) and virtual size in bytes of an image file."""

    format: str
    size: int


def probe_image(path: Path, driver: str | None = None) -> ImageInfo:
    """What the file is; ``driver`` is its format (a key of FORMATS) when the operator said so.

    Raises BusyError when a running VM holds its lock, UsageError for a format not supported, and for a header that
    names other files while the format is only a guess. Without ``-U``: a running VM's lock is what we want to see.
    """
    if driver is None:
        _refuse_other_files(path)
    said = ["-f", driver] if driver else []
    done = run(["qemu-img", "info", "--output=json", *said, path.absolute()], check=False, timeout=120)
    if not done:
        if "lock" in done.stderr:
            raise BusyError(
                f"'{path}' is in use by a running VM (QEMU holds its lock).",
                hint="Shut the VM down, or capture a snapshot of it.",
            )
        if "Could not open backing file" in done.stderr:
            raise NotFoundError(
                f"'{path}' needs its backing file, which cannot be opened: {done.stderr.strip().splitlines()[-1]}",
                hint="Put the backing file where the image expects it ('qemu-img info' names it).",
            )
        raise UsageError(
            f"'{path}' is not a disk image that can be read: {done.stderr.strip().splitlines()[-1:] or 'no reason'}.",
            hint="Use a raw, qcow2, VHD, VHDX or VMDK image, or a block device.",
        )
    facts = json.loads(done.stdout)
    image = ImageInfo(str(facts["format"]), int(facts["virtual-size"]))
    # Who says raw means every byte, also of a guest that wrote the footer of a VHD at its end.
    fixed = _fixed_vhd_size(path) if (image.format, driver) in (("raw", None), ("vpc", "vpc")) else None
    if fixed is not None:
        return ImageInfo("raw", fixed)
    if image.format not in FORMATS:
        raise UsageError(
            f"'{path}' is a {image.format} image, which is not supported.",
            hint=f"Convert it first: qemu-img convert -O qcow2 '{path}' NEW.qcow2",
        )
    return image


def _refuse_other_files(path: Path) -> None:
    named = names_other_files(read_range(path, 0, min(path.stat().st_size, HEAD_BYTES)))
    if named:
        raise UsageError(
            f"The first bytes of '{path}' are the header of an image that names {named}. "
            "A guest can write that into its raw disk, to have any file of this machine read.",
            hint="Say what it is: --format raw for a raw disk; --format qcow2 (or vmdk) if it really is one.",
        )


def _fixed_vhd_size(path: Path) -> int | None:
    """The disk's size in a VHD of fixed size: raw data with a footer, which QEMU does not recognise; else None."""
    end = path.stat().st_size - 512
    footer = read_range(path, max(0, end), 512)
    if footer[:8] != b"conectix" or int.from_bytes(footer[60:64], "big") != 2:
        return None
    size = int.from_bytes(footer[48:56], "big")
    return size if 0 < size <= end else None


@contextlib.contextmanager
def exported(path: Path, driver: str, *, alone: bool = False) -> Iterator[Path]:
    """A raw, read-only file with the image's content, for as long as the block runs. Raises CommandError, BusyError.

    ``driver`` is QEMU's block driver; ``alone``: never open a backing file, whatever the header says. The daemon
    holds QEMU's read lock: no VM can start on the image meanwhile.
    """
    with TemporaryDirectory(prefix="rekindle-export-") as folder, TemporaryFile() as said:
        target = Path(folder) / "disk.raw"
        target.touch(mode=0o600)
        node = {"driver": "file", "node-name": "file0", "filename": str(path.resolve()), "read-only": True}
        image: dict[str, object] = {"driver": driver, "node-name": "image0", "file": "file0", "read-only": True}
        if alone and driver in ("qcow2", "vmdk"):
            image["backing"] = None
        export = {"type": "fuse", "id": "export0", "node-name": "image0", "mountpoint": str(target), "writable": False}
        # When we are killed the daemon must go too, or it would hold the image's lock for ever.
        argv = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "qemu-storage-daemon",
            "--blockdev",
            json.dumps(node),
            "--blockdev",
            json.dumps(image),
        ]
        argv += ["--export", json.dumps(export)]
        try:
            # Popen, not run(): the daemon lives as long as the export. Its own session, so that Ctrl-C at a
            # terminal reaches only us and the file stays readable until we have let go of it.
            daemon = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except FileNotFoundError as error:
            raise CommandError(
                "The program 'setpriv' is not installed.", hint="Install the Debian package 'util-linux'."
            ) from error
        try:
            _wait_until_there(daemon, target, path, said.fileno())
            yield target
        finally:
            _stop(daemon, target)


def _wait_until_there(daemon: subprocess.Popen[bytes], target: Path, path: Path, said: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    # Its folder's device, not its own: the daemon may have been quicker than we are.
    plain = target.parent.stat().st_dev
    while target.stat().st_dev == plain:
        if daemon.poll() is not None or time.monotonic() > deadline:
            words = os.pread(said, 4096, 0).decode(errors="replace").strip()
            if "lock" in words:
                raise BusyError(f"'{path}' is in use by a running VM.", hint="Shut the VM down first.")
            raise CommandError(
                f"'qemu-storage-daemon' could not open '{path}': {words or 'it did not answer'}",
                hint="Are the packages 'qemu-utils' and 'fuse3' installed, is /dev/fuse there? See 'qemu-img check'.",
            )
        time.sleep(0.02)


def _stop(daemon: subprocess.Popen[bytes], target: Path) -> None:
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    # A daemon that died badly leaves a dead FUSE mount, which would keep the folder.
    if os.path.ismount(target) or _is_dead(target):
        run(["umount", "-l", target], check=False, timeout=30)


def _is_dead(target: Path) -> bool:
    try:
        target.stat()
    except OSError:
        return True
    return False


def write_flat_descriptor(folder: Path, extents: list[tuple[Path, int, int]]) -> Path:
    """A VMDK descriptor that joins ``(file, offset, length)`` pieces (bytes) to one disk for ``exported(...)``.

    How a logical volume of several segments becomes one readable file without device-mapper. Raises CommandError for a
    name that would end the quotes and name another file.
    """
    lines = ["# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff"]
    lines.append('createType="twoGbMaxExtentFlat"')
    for path, offset, length in extents:
        if not str(path.resolve()).isprintable() or '"' in str(path.resolve()):
            raise CommandError(f"'{path}' has a name that a VMDK cannot hold.", hint="Give the image a plain name.")
        lines.append(f'RW {length // 512} FLAT "{path.resolve()}" {offset // 512}')
    lines.append('ddb.adapterType = "lsilogic"')
    descriptor = folder / "volume.vmdk"
    descriptor.write_text("\n".join(lines) + "\n")
    return descriptor
