"""Guests of a Proxmox host: its database, its configuration files, and where their disks lie."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.capture.proxmox import DATABASE, parse_guest, parse_storages, read_guests
from recovery.capture.tree import Tree
from recovery.guestconf import current, options
from recovery.units import GIB, MIB
from tests.support.proxmox import lay_database

STORAGES = """\
dir: local
\tpath /srv/pve
\tcontent iso,images

lvmthin: local-lvm
\tthinpool data
\tvgname pve
\tcontent rootdir,images

zfspool: tank
\tpool rpool/data

nfs: nas
\tpath /mnt/pve/nas
\tserver 192.0.2.9
"""
WEB = """\
#the shop
boot: order=scsi0;net0
cores: 2
cpu: x86-64-v2-AES
ide2: local:iso/debian.iso,media=cdrom,size=600M
memory: 4096
name: web
net0: virtio=BC:24:11:00:00:01,bridge=vmbr0
onboot: 1
scsi0: local-lvm:vm-100-disk-0,iothread=1,size=32G
scsi1: local:100/vm-100-disk-1.qcow2,size=8G
scsi2: nas:100/vm-100-disk-2.raw,size=8G
scsi3: /dev/disk/by-id/ata-OLD,size=1T
smbios1: uuid=11111111-2222-3333-4444-555555555555
sockets: 2
unused0: local-lvm:vm-100-disk-9

[before-update]
memory: 1024
scsi0: local-lvm:vm-100-disk-0,size=16G
"""
CONTAINER = """\
arch: amd64
hostname: mail
memory: 1024
mp0: /srv/shared,mp=/shared
mp1: tank:subvol-101-disk-1,mp=/var,size=4G
rootfs: local:101/vm-101-disk-0.raw,size=8G
"""


def nowhere(source: str, driver: str) -> tuple[str, int | None]:
    return "", None


FILES = {
    "storage.cfg": STORAGES,
    "nodes/pve1/qemu-server/100.conf": WEB,
    "nodes/pve1/lxc/101.conf": CONTAINER,
    "nodes/pve1/qemu-server/9.conf": "template: 1\n",
    "nodes/pve2/qemu-server/102.conf": "name: elsewhere\n",
    "priv/authkey.key": "secret",
}


def test_the_guests_of_this_node_are_found_by_number(tmp_path: Path) -> None:
    guests, problems = read_guests(Tree({"/": lay_database(tmp_path, FILES)}), nowhere)
    assert problems == []
    assert [(guest.name, guest.manager) for guest in guests] == [
        ("9", "proxmox"), ("100-web", "proxmox"), ("101-mail", "proxmox-container"),
    ]  # fmt: skip
    # Only the copy was opened: the database and its log are what they were.
    assert Path(tmp_path / f"{DATABASE.lstrip('/')}-wal").stat().st_size > 0


def test_the_guests_of_other_nodes_are_not_this_ones(tmp_path: Path) -> None:
    files = {**FILES, "nodes/pve3/pve-ssl.pem": "x"}
    assert read_guests(Tree({"/": lay_database(tmp_path / "a", files, hostname="pve3")}), nowhere) == ([], [])
    guests, (problem,) = read_guests(Tree({"/": lay_database(tmp_path / "b", files, hostname="other")}), nowhere)
    assert guests == [] and "pve1, pve2, pve3" in problem


def test_a_node_that_was_renamed_is_the_only_one(tmp_path: Path) -> None:
    files = {path: text for path, text in FILES.items() if "pve2" not in path}
    assert len(read_guests(Tree({"/": lay_database(tmp_path, files, hostname="other")}), nowhere)[0]) == 3


def test_no_proxmox_and_a_damaged_one(tmp_path: Path) -> None:
    assert read_guests(Tree({"/": tmp_path}), nowhere) == ([], [])
    file = tmp_path / DATABASE.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 100)
    guests, (problem,) = read_guests(Tree({"/": tmp_path}), nowhere)
    assert guests == [] and "cannot be read" in problem
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE tree (inode, parent, name, data)")
        other.execute("INSERT INTO tree VALUES ('x', 'y', 'a.conf', 5)")
        other.commit()
    guests, (problem,) = read_guests(Tree({"/": tmp_path}), nowhere)
    assert guests == [] and "cannot be read" in problem
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as endless:
        endless.execute(
            "CREATE VIEW tree AS WITH RECURSIVE n(inode) AS (SELECT 1 UNION ALL SELECT inode + 1 FROM n) "
            "SELECT inode, 0 AS parent, 'x' AS name, NULL AS data FROM n"
        )
        endless.commit()
    assert "no table of files" in read_guests(Tree({"/": tmp_path}), nowhere)[1][0]
    file.unlink()
    file.symlink_to("/dev/zero")
    assert read_guests(Tree({"/": tmp_path}), nowhere) == ([], [])


def test_a_vm_as_it_is_now_not_as_it_was_in_a_snapshot() -> None:
    asked: list[tuple[str, str]] = []

    def find(source: str, driver: str) -> tuple[str, int | None]:
        asked.append((source, driver))
        return ("pve/vm-100-disk-0", 32 * GIB) if source.startswith("/dev/pve/") else ("", None)

    vm = parse_guest(100, WEB, parse_storages(STORAGES), find, container=False)
    assert (vm.name, vm.memory, vm.vcpus, vm.autostart) == ("100-web", 4096 * MIB, 4, True)
    assert vm.uuid == "11111111-2222-3333-4444-555555555555" and vm.definition == WEB
    assert [(disk.target, disk.source, disk.format) for disk in vm.disks] == [
        ("scsi0", "/dev/pve/vm-100-disk-0", "raw"),
        ("scsi1", "/srv/pve/images/100/vm-100-disk-1.qcow2", "qcow2"),
        ("scsi2", "nas:100/vm-100-disk-2.raw", "raw"),
        ("scsi3", "/dev/disk/by-id/ata-OLD", "raw"),
    ]
    assert (vm.disks[0].on, vm.disks[0].size) == ("pve/vm-100-disk-0", 32 * GIB)
    assert asked[1] == ("/srv/pve/images/100/vm-100-disk-1.qcow2", "qcow2")


def test_a_container() -> None:
    guest = parse_guest(101, CONTAINER, parse_storages(STORAGES), nowhere, container=True)
    assert (guest.name, guest.memory, guest.autostart) == ("101-mail", 1024 * MIB, False)
    assert [(disk.target, disk.source) for disk in guest.disks] == [
        ("mp1", "/dev/zvol/rpool/data/subvol-101-disk-1"), ("rootfs", "/srv/pve/images/101/vm-101-disk-0.raw"),
    ]  # fmt: skip


def test_linked_clones_and_btrfs_lie_where_proxmox_puts_them() -> None:
    storages = parse_storages("btrfs: pool\n\tpath /pool\n")
    text = "scsi0: local:9/base-9-disk-0.qcow2/100/vm-100-disk-0.qcow2\nscsi1: pool:100/vm-100-disk-1.raw\n"
    vm = parse_guest(100, text, storages, nowhere, container=False)
    assert [disk.source for disk in vm.disks] == [
        "/var/lib/vz/images/100/vm-100-disk-0.qcow2", "/pool/images/100/vm-100-disk-1/disk.raw",
    ]  # fmt: skip


@pytest.mark.parametrize("memory", ["memory: 2048", "memory: current=2048"])
def test_both_ways_of_writing_memory(memory: str) -> None:
    assert parse_guest(1, memory, {}, nowhere, container=False).memory == 2048 * MIB


def test_a_host_without_storage_cfg_has_its_local_one() -> None:
    vm = parse_guest(1, "scsi0: local:1/vm-1-disk-0.raw", parse_storages(""), nowhere, container=False)
    assert vm.disks[0].source == "/var/lib/vz/images/1/vm-1-disk-0.raw"


@given(st.text())
def test_any_text_is_a_guest_of_something_or_nothing(text: str) -> None:
    parse_storages(text)
    options(text, "first")
    assert all(not key.startswith("#") for key in current(text))
    assert parse_guest(7, text, {}, nowhere, container=False).name.startswith("7")
