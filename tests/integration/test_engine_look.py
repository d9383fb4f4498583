"""Looking into filesystems: real ones on loop devices, mounted read-only and left as they were."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recovery.commands import run
from recovery.engine import local_repositories
from recovery.engine.engine import Engine
from recovery.engine.local_repositories import Looker, describe_system
from recovery.machine.probe_busy import Node
from recovery.machine.probe_disks import lsblk
from recovery.plan.build import build_plan
from recovery.plan.model import Choices
from recovery.repository.location import open_store
from recovery.repository.repository import Repository
from recovery.units import MIB
from tests.integration.engine_world import World, make_world

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@contextmanager
def loop(image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A loop device that passes for a disk, and the only one: other tests' loop devices are not to be mounted."""
    device = run(["losetup", "--find", "--show", image]).stdout.strip()

    def only_ours() -> list[Node]:
        return [{**node, "type": "disk"} for node in lsblk() if node["path"] == device]

    monkeypatch.setattr(local_repositories, "lsblk", only_ours)
    try:
        yield device
    finally:
        run(["losetup", "-d", device])


def filesystem(image: Path, content: Path, kind: str = "ext4") -> Path:
    with image.open("wb") as file:
        file.truncate(40 * MIB)
    run([f"mkfs.{kind}", "-q", "-d", content, image])
    return image


def test_a_repository_on_a_disk_is_found_opened_and_protected(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "content" / "backup" / "rekindle"
    store = open_store(str(folder), create=True)
    repository, recovery_key = Repository.create(store, "a passphrase of its own")
    image = filesystem(tmp_path / "usb.img", tmp_path / "content")
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    engine = Engine(log_directory=tmp_path / "log", loops=True)
    try:
        with loop(image, monkeypatch) as device:
            mine = [r for r in engine.local_repositories() if r.device == device]
            try:
                (found,) = mine
                assert found.id == repository.id
                assert found.path.startswith("/run/rekindle/repositories/")
                assert f"{found.path.split('/backup')[0]} ext4 ro," in Path("/proc/mounts").read_text()
                assert engine.local_repositories() == engine.local_repositories()
                assert Repository.open(open_store(found.path), recovery_key).id == repository.id
                disk = engine.machine(refresh=True).disk(device)
                assert disk is not None
                assert disk.repository == repository.id
                choices = Choices(host="pve1", point=world.point.id, targets={"disk1": device}, adapt=False)
                plan = build_plan(world.point, engine.machine(), choices)
                assert "target-holds-repository" in {p.code for p in plan.problems if p.severity == "error"}
            finally:
                for repository_ in mine:
                    run(["umount", repository_.path.split("/backup")[0]], check=False)
    finally:
        engine.close()
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_a_system_that_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    for name, text in {
        "usr/lib/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
        "etc/hostname": "pve7\n",
        "etc/libvirt/qemu/web.xml": "<domain/>",
        "etc/libvirt/qemu/mail.xml": "<domain/>",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    image = filesystem(tmp_path / "disk.img", root)
    before = image.read_bytes()
    with loop(image, monkeypatch) as device:
        (inside,) = [i for i in Looker(tmp_path / "mounts").look() if i.device == device]
        assert inside.system == "'pve7' (Debian GNU/Linux 13 (trixie)) with the virtual machines mail, web"
        assert inside.repositories == ()
        assert device not in Path("/proc/mounts").read_text()
    assert image.read_bytes() == before


def test_a_filesystem_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying or strange disk in the machine must not keep the others from being restored to."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text("NAME=Strange\n")
    (root / "etc/hostname").symlink_to("hostname")
    with loop(filesystem(tmp_path / "disk.img", root), monkeypatch) as device:
        (inside,) = [i for i in Looker(tmp_path / "mounts").look() if i.device == device]
        assert inside.repositories == ()

        def dying(*_: object) -> str:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("recovery.engine.local_repositories.describe_system", dying)
        (inside,) = [i for i in Looker(tmp_path / "mounts").look() if i.device == device]
        assert inside.system == ""
        assert device not in Path("/proc/mounts").read_text()


def test_links_out_of_a_foreign_system_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib/os-release").write_text("NAME=Strange\n")
    (tmp_path / "etc/hostname").symlink_to("/etc/hostname")
    assert describe_system(tmp_path) == "'without a name' (Strange)"
    assert describe_system(tmp_path / "usr") == ""


def test_links_that_lead_round_in_a_foreign_system_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("NAME=Strange\n")
    (tmp_path / "etc/hostname").symlink_to("hostname")
    assert describe_system(tmp_path) == "'without a name' (Strange)"
