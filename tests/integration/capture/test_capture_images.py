"""What a capture takes as a disk: raw files and the images of hypervisors."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from recovery.errors import (
    DeviceError,
    NotFoundError,
    UsageError,
)
from recovery.repository.repository import Repository
from tests.integration.capture_images import MIB, sh, sparse
from tests.support.captures import noise, take


def test_wrong_sources_are_named(repository: Repository, tmp_path: Path) -> None:
    path = noise(tmp_path / "disk.img", MIB)
    (tmp_path / "empty").touch()
    with pytest.raises(NotFoundError, match="no disk or file"):
        take(repository, tmp_path / "missing")
    with pytest.raises(UsageError, match="named twice"):
        take(repository, path, path)
    with pytest.raises(UsageError, match="neither"):
        take(repository, tmp_path)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DeviceError, match="links"):
        take(repository, tmp_path / "a")
    with pytest.raises(UsageError, match="empty"):
        take(repository, tmp_path / "empty")
    with pytest.raises(UsageError, match="host's name"):
        take(repository, path, host="../x")
    assert repository.hosts() == []


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("qcow2", []),
        ("vhdx", []),
        ("vmdk", []),
        ("vpc", ["-o", "force_size=on"]),
        ("vpc", ["-o", "force_size=on,subformat=fixed"]),
    ],
)
def test_images_have_the_content_of_the_raw_disk(
    repository: Repository, tmp_path: Path, driver: str, options: list[str]
) -> None:
    raw = sparse(tmp_path / "disk.raw", 24 * MIB)
    with raw.open("r+b") as file:
        file.seek(7 * MIB + 4096)
        file.write(random.Random(5).randbytes(3 * MIB))
    image = tmp_path / "disk.image"
    sh("qemu-img", "convert", "-O", driver, *options, raw, image)
    from_raw, from_image = take(repository, raw), take(repository, image)
    assert from_image.body.disks[0].root == from_raw.body.disks[0].root
    assert from_image.body.disks[0].size == 24 * MIB
    assert from_image.body.disks[0].stored == 0
    assert not subprocess.run(["pgrep", "-P", str(os.getpid()), "qemu-storage"], capture_output=True).stdout


def test_holes_of_a_qcow2_are_not_read(tmp_path: Path, repository: Repository) -> None:
    image = tmp_path / "big.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", image, "2T")
    sh("qemu-io", "-c", "write -P 7 1T 64k", image)
    point = take(repository, image)
    assert point.body.disks[0].used == MIB
    runs = list(repository.chunk_map(point, "disk1").zero_runs())
    assert all(not allocated for _, _, allocated in runs)
