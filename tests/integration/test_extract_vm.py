"""The disks of one VM come back out of a captured host, by the command: from files and from a logical volume."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from recovery.events import ignore
from recovery.explore.extract import extract
from recovery.explore.host import HostView
from recovery.explore.newfiles import NewFiles
from recovery.explore.vm import find_disks
from recovery.repository.repository import Repository
from recovery.repository.store import DirectoryStore
from tests.support.processes import environment, rekindle
from tests.support.repositories import PASSPHRASE
from tests.support.vm_host import VmHost, make_vm_host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and loop devices")]


class CountingStore(DirectoryStore):
    """A directory that counts reads within packs."""

    reads = 0

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        self.reads += name.startswith("packs/")
        super().read_into(name, offset, buffer)


class World:
    def __init__(self, folder: Path, *, thin: bool = False) -> None:
        self.folder = folder
        self.host: VmHost = make_vm_host(folder, thin=thin)
        (folder / "secret").write_text(PASSPHRASE)
        repository = str(folder / "repository")
        self.run("repo", "init", repository, "--passphrase-file", str(folder / "secret"))
        words = ["--host", "vhost1", "--firmware", "bios", "--secret-file", str(folder / "secret")]
        self.run("capture", repository, str(self.host.disk), *words)
        self.host.disk.unlink()  # the host is gone

    def run(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            rekindle(*words), env=environment(self.folder), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def extract(self, vm: str, *more: str, into: str = "out", expect: int = 0) -> str:
        (self.folder / into).mkdir(exist_ok=True)
        return self.run(
            "extract", str(self.folder / "repository"), "--host", "vhost1", "--vm", vm, "--into",
            str(self.folder / into), "--secret-file", str(self.folder / "secret"), *more, expect=expect,
        )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_disks_in_files_come_back_as_those_files(world: World) -> None:
    said = [json.loads(line) for line in world.extract("web", "--json").splitlines() if line.startswith("{")]
    out = world.folder / "out"
    assert (out / "web-vda.qcow2").read_bytes() == world.host.web
    log = (out / "web-vdb.raw").read_bytes()
    assert log[: len(world.host.log)] == world.host.log
    assert not any(log[len(world.host.log) :])
    assert len(log) == 8 << 20
    assert (out / "web-vdb.raw").stat().st_blocks * 512 < 3 << 20, "holes stay holes"
    assert (out / "web-vda.qcow2").stat().st_mode & 0o777 == 0o600
    assert "<name>web</name>" in (out / "web.xml").read_text()
    assert said[-1]["type"] == "extracted"
    assert [disk["target"] for disk in said[-1]["disks"]] == ["vda", "vdb"]


def test_a_logical_volume_comes_back_as_a_raw_image(world: World) -> None:
    said = world.extract("db")
    assert (world.folder / "out/db-vda.raw").read_bytes() == world.host.db
    assert "It was /dev/vg0/db" in said


def test_the_point_says_where_the_disks_lie(world: World) -> None:
    words = (
        str(world.folder / "repository"),
        "vhost1",
        "--point",
        "latest",
        "--secret-file",
        str(world.folder / "secret"),
    )
    told = json.loads(world.run("points", *words, "--json").splitlines()[0])
    disks = {(vm["name"], disk["target"]): disk for vm in told["body"]["vms"] for disk in vm["disks"]}
    assert disks["web", "vda"]["occupies"]["size"] == len(world.host.web)
    (db,) = disks["db", "vda"]["occupies"]["disks"]
    assert db["disk"] == "disk1"
    assert sum(length for _, _, length in db["extents"]) == 64 << 20
    shown = world.run("points", *words)
    assert "64.0 MiB in 1 extent of disk1" in shown
    # The file's hole is in no extent.
    (log,) = disks["web", "vdb"]["occupies"]["disks"]
    assert sum(length for _, _, length in log["extents"]) < 3 << 20


def test_only_chunks_of_the_disk_are_read(world: World) -> None:
    repository = Repository.open(CountingStore(world.folder / "repository"), PASSPHRASE)
    store = repository.store
    assert isinstance(store, CountingStore)
    point = repository.point("vhost1", "latest")
    view = HostView(repository, point)
    (vm,) = [vm for vm in point.body.vms if vm.name == "web"]
    (log,) = find_disks(view, vm, "vdb")
    with NewFiles(world.folder / "few") as files:
        extract(view, log.where, files, "log.raw", ignore, threading.Event())
    size = point.disk("disk1").chunk_size
    wanted = {piece.offset // size for piece in log.where.pieces} | {
        (piece.offset + piece.length - 1) // size for piece in log.where.pieces
    }
    assert 0 < store.reads <= len(wanted)
    # An older point does not say it: its filesystem is walked, and comes to the same bytes.
    old = msgspec.structs.replace(log.disk, occupies=None)
    (walked,) = find_disks(HostView(repository, point), msgspec.structs.replace(vm, disks=(old,)), "vdb")
    assert walked.where == log.where


def test_one_disk_of_it(world: World) -> None:
    world.extract("web", "--disk", "vdb", into="one")
    assert {path.name for path in (world.folder / "one").iterdir()} == {"web-vdb.raw", "web.xml"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["mail"], 3, "It has: db, web."),
        (["web", "--disk", "sda"], 3, "It has: vda, vdb."),
        (["web"], 11, "web-vda.qcow2 is there already."),
        (["web", "--overwrite"], 9, "Give --confirm web"),
        (["web", "--overwrite", "--confirm", "db"], 9, "exactly as it is shown"),
    ],
)
def test_refusals_are_one_sentence(world: World, words: list[str], code: int, text: str) -> None:
    (world.folder / "full").mkdir(exist_ok=True)
    (world.folder / "full/web-vda.qcow2").write_bytes(b"mine")
    said = world.extract(*words, into="full", expect=code)
    assert text in said
    assert "Traceback" not in said
    assert (world.folder / "full/web-vda.qcow2").read_bytes() == b"mine"
    assert len(list((world.folder / "full").iterdir())) == 1


def test_only_a_plan_writes_nothing_and_overwriting_takes_the_name(world: World) -> None:
    said = [json.loads(line) for line in world.extract("web", "--plan", "--json", into="again").splitlines()]
    assert said[-1]["type"] == "plan"
    assert [file["name"] for file in said[-1]["plan"]["files"]] == ["web-vda.qcow2", "web-vdb.raw"]
    assert not list((world.folder / "again").iterdir())
    (world.folder / "again/web-vda.qcow2").write_bytes(b"mine")
    world.extract("web", "--overwrite", "--confirm", "web", into="again")
    assert (world.folder / "again/web-vda.qcow2").read_bytes() == world.host.web


def test_damage_leaves_no_file(world: World) -> None:
    packs = sorted((world.folder / "repository").rglob("packs/**/*"))
    kept = {pack: pack.read_bytes() for pack in packs if pack.is_file()}
    try:
        for pack, data in kept.items():
            pack.chmod(0o600)
            pack.write_bytes(bytes(len(data)))
        world.extract("db", into="damaged", expect=5)
        assert not list((world.folder / "damaged").iterdir())
    finally:
        for pack, data in kept.items():
            pack.write_bytes(data)
