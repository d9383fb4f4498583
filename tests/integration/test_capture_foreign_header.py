"""A guest that writes an image header into its raw disk gets no other file of the host into a point."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery.capture.qemu_export import write_flat_descriptor
from recovery.capture.sources import open_sources
from recovery.errors import CommandError, UsageError
from recovery.units import MIB
from tests.integration.capture_images import sh

SECRET = b"a file of the host" * 1000


def of(path: Path, driver: str | None) -> bytes:
    with open_sources([path], driver) as sources:
        return sources[0].path.read_bytes()[: sources[0].size]


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """What qemu-img makes of a qcow2 on top of the host's file, grown to the size of a raw disk."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET.ljust(MIB, b"\0"))
    path = tmp_path / "disk.img"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", path)
    with path.open("r+b") as file:
        file.truncate(4 * MIB)
    return path


def test_a_header_that_names_a_backing_file_is_refused(overlay: Path) -> None:
    with pytest.raises(UsageError, match="backing file") as caught:
        of(overlay, None)
    assert "--format raw" in caught.value.hint


def test_the_operator_says_what_it_is(overlay: Path) -> None:
    assert of(overlay, "raw") == overlay.read_bytes()
    assert of(overlay, "qcow2")[: len(SECRET)] == SECRET


def test_extents_and_data_files_are_refused(tmp_path: Path) -> None:
    flat = tmp_path / "disk.vmdk"
    sh("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", flat, "4M")
    external = tmp_path / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", external, "4M")
    for path, named in ((flat, "extents"), (external, "data file")):
        with pytest.raises(UsageError, match=named):
            of(path, None)
    assert of(flat, "vmdk") == bytes(4 * MIB)


def test_a_wrong_format_says_so(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    with pytest.raises(UsageError, match="not a disk image"):
        of(path, "qcow2")


def test_a_file_name_cannot_name_another_file(tmp_path: Path) -> None:
    nasty = tmp_path / 'a" 0\nRW 8 FLAT "b'
    with pytest.raises(CommandError, match="name"):
        write_flat_descriptor(tmp_path, [(nasty, 0, MIB)])
