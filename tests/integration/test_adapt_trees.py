"""Steps on real directory trees: what is rewritten, what is kept, that a second run changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.adapt import initramfs, network, rename, selinux
from recovery.adapt.devices import Node
from recovery.adapt.host import ORIGINALS, HostTree
from recovery.adapt.model import AdaptRequest, Job
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError, NotFoundError, RekindleError, SpaceError
from recovery.events import Event, Message
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Address, SystemFacts
from recovery.machine.model import Disk, Machine, Nic

NODES = (
    Node("/dev/nvme0n1", "disk", 100, "disk1"),
    Node("/dev/nvme0n1p1", "part", 80, "disk1", 1, "ext4", "root-uuid", "", "p-1", "", "/dev/nvme0n1"),
    Node("/dev/nvme0n1p2", "part", 10, "disk1", 2, "swap", "swap-uuid", "", "p-2", "", "/dev/nvme0n1"),
)
NICS = (Nic(name="ens5", mac="52:54:00:00:00:05", carrier=True), Nic(name="enp1s0", mac="52:54:00:00:00:06"))


def make_request(*, nics: tuple[Nic, ...] = NICS, facts: SystemFacts | None = None) -> AdaptRequest:
    disk = PointDisk(name="disk1", size=50, sector_size=512, chunk_size=1, root="", device="/dev/vda")
    body = PointBody(disks=(disk,), consistency="offline", firmware="bios", system=facts or SystemFacts())
    header = PointHeader(version=1, repository="r", host="h", created=0.0)
    return AdaptRequest(
        point=Point(id="p", header=header, body=body),
        targets={"disk1": Disk(id="x", path="/dev/nvme0n1", size=100, bus="nvme")},
        machine=Machine(firmware="bios", nics=nics),
    )


def make_job(root: Path, request: AdaptRequest | None = None) -> tuple[Job, list[Event]]:
    events: list[Event] = []
    job = Job(request or make_request(), events.append, nodes=NODES, host=HostTree(root))
    return job, events


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_names_of_disks_are_replaced_and_originals_kept(tmp_path: Path) -> None:
    fstab = "/dev/vda1 / ext4 defaults 0 1\n/dev/vda2 none swap sw 0 0\n/dev/vdq1 /x ext4 defaults 0 2\n"
    write(
        tmp_path,
        {
            "/etc/fstab": fstab,
            "/etc/default/grub": "GRUB_DISABLE_LINUX_UUID=true\nGRUB_CMDLINE_LINUX='root=/dev/vda1 console=ttyS0'\n",
            "/etc/initramfs-tools/conf.d/resume": "RESUME=/dev/vda2\n",
            "/boot/grub/device.map": "(hd0) /dev/disk/by-id/old\n",
            "/etc/lvm/devices/system.devices": "IDTYPE=sys_wwid\n",
        },
    )
    (tmp_path / "etc/fstab").chmod(0o640)
    job, _ = make_job(tmp_path)
    rename.rename(job)
    assert (tmp_path / "etc/fstab").read_text().startswith("UUID=root-uuid / ext4")
    assert (tmp_path / "etc/fstab").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "etc/fstab.rekindle-orig").read_text() == fstab
    grub = (tmp_path / "etc/default/grub").read_text()
    assert grub == "#GRUB_DISABLE_LINUX_UUID=true\nGRUB_CMDLINE_LINUX='root=UUID=root-uuid console=ttyS0'\n"
    # conf.d is read whole: an original beside would be in force again
    assert [p.name for p in (tmp_path / "etc/initramfs-tools/conf.d").iterdir()] == ["resume"]
    assert (tmp_path / ORIGINALS.lstrip("/") / "etc/initramfs-tools/conf.d/resume").read_text() == "RESUME=/dev/vda2\n"
    assert not (tmp_path / "boot/grub/device.map").exists()
    assert (tmp_path / "etc/lvm/devices/system.devices.rekindle-orig").exists()
    assert len(job.warnings) == 1 and "/dev/vdq1" in job.warnings[0]

    before = snapshot(tmp_path)
    again, _ = make_job(tmp_path)
    rename.rename(again)
    assert snapshot(tmp_path) == before
    assert again.changes == []


INTERFACES = """
auto br0
iface enp1s0 inet manual
iface br0 inet static
    address 192.0.2.1/24
    bridge_ports enp1s0
"""


def test_the_old_name_is_bound_to_the_nic_with_a_link(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "/etc/network/interfaces": INTERFACES,
            "/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so": "",
            "/etc/udev/rules.d/70-persistent-net.rules": 'ATTR{address}=="52:54:00:00:00:99", NAME="enp1s0"\n',
            "/etc/systemd/network/10-rekindle-stale0.link": "[Link]\nName=stale0\n",
            "/etc/systemd/network/50-x.link": "[Match]\nMACAddress=52:54:00:00:00:99\n[Link]\nName=enp1s0\n",
        },
    )
    job, events = make_job(tmp_path)
    network.bring_up(job)
    folder = tmp_path / "etc/systemd/network"
    link = (folder / "10-rekindle-enp1s0.link").read_text()
    assert "PermanentMACAddress=52:54:00:00:00:05" in link and "Name=enp1s0" in link
    # the NIC that would be enp1s0 by nature must not take the name
    assert "PermanentMACAddress=52:54:00:00:00:06" in (folder / "10-rekindle-spare0.link").read_text()
    assert not (folder / "10-rekindle-stale0.link").exists()
    assert "52:54:00:00:00:05" in (folder / "50-x.link").read_text()
    assert (tmp_path / "etc/network/interfaces").read_text() == INTERFACES
    assert (tmp_path / "etc/udev/rules.d/70-persistent-net.rules").read_text().startswith("#rekindle#")
    assert any(isinstance(e, Message) and "192.0.2.1/24 on br0" in e.text for e in events)
    assert job.warnings == []

    before = snapshot(tmp_path)
    network.bring_up(make_job(tmp_path)[0])
    assert snapshot(tmp_path) == before


def test_addresses_that_stay_down_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"/etc/network/interfaces": INTERFACES})
    job, _ = make_job(tmp_path, make_request(nics=()))
    network.bring_up(job)
    assert "192.0.2.1/24 on br0" in job.warnings[0]


def test_without_configuration_the_captured_facts_count(tmp_path: Path) -> None:
    facts = SystemFacts(network=(Address(interface="ens3", mac="52:54:00:00:00:06", dhcp=True),))
    job, _ = make_job(tmp_path, make_request(facts=facts))
    network.bring_up(job)
    link = (tmp_path / "etc/systemd/network/10-rekindle-ens3.link").read_text()
    assert "52:54:00:00:00:06" in link  # the same card, though another one has a link


def kernel(root: Path, version: str) -> None:
    write(
        root,
        {
            f"/lib/modules/{version}/modules.dep": "kernel/nvme.ko: kernel/nvme-core.ko\nkernel/nvme-core.ko:\n",
            f"/boot/vmlinuz-{version}": "k",
        },
    )


def test_initramfs_tools_gets_modules_and_is_run_for_every_kernel(tmp_path: Path) -> None:
    kernel(tmp_path, "6.1.0-9")
    write(tmp_path, {"/usr/sbin/update-initramfs": "", "/etc/initramfs-tools/modules": "# mine\n"})
    write(tmp_path, {"/boot/initrd.img-6.1.0-9": "old"})
    fake = FakeRunner()
    with use_runner(fake):
        initramfs.rebuild(make_job(tmp_path)[0])
    assert fake.calls[-1][-4:] == ("update-initramfs", "-u", "-k", "all")
    assert fake.calls[-1][:2] == ("chroot", str(tmp_path))
    assert "MODULES=most" in (tmp_path / "etc/initramfs-tools/conf.d/zz-rekindle").read_text()
    assert (tmp_path / "etc/initramfs-tools/modules").read_text().splitlines()[2:4] == ["nvme", "nvme_core"]


def test_a_kernel_without_an_initramfs_gets_one(tmp_path: Path) -> None:
    kernel(tmp_path, "6.1.0-9")
    write(tmp_path, {"/usr/sbin/update-initramfs": ""})
    fake = FakeRunner()
    with use_runner(fake):
        initramfs.rebuild(make_job(tmp_path)[0])
    assert [call[-4:] for call in fake.calls[-2:]] == [
        ("update-initramfs", "-u", "-k", "all"), ("update-initramfs", "-c", "-k", "6.1.0-9"),
    ]  # fmt: skip


def test_dracut_is_told_to_be_general(tmp_path: Path) -> None:
    kernel(tmp_path, "5.14.0-427.el9.x86_64")
    write(tmp_path, {"/usr/bin/dracut": ""})
    fake = FakeRunner()
    with use_runner(fake):
        initramfs.rebuild(make_job(tmp_path)[0])
    words = fake.calls[-1]
    assert words[words.index("dracut") + 1 :][:3] == ("--regenerate-all", "--force", "--no-hostonly")


def test_a_host_without_kernel_or_tool_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no kernel"):
        initramfs.rebuild(make_job(tmp_path)[0])
    kernel(tmp_path, "6.1")
    with pytest.raises(NotFoundError, match="neither"):
        initramfs.rebuild(make_job(tmp_path)[0])


@pytest.mark.parametrize(
    ("said", "error"), [("gzip: No space left on device", SpaceError), ("E: mkinitramfs failure", CommandError)]
)
def test_a_failed_initramfs_is_classified(tmp_path: Path, said: str, error: type[RekindleError]) -> None:
    kernel(tmp_path, "6.1")
    write(tmp_path, {"/usr/sbin/update-initramfs": ""})
    with use_runner(FakeRunner({("chroot",): Completed((), 1, "", said)})), pytest.raises(error):
        initramfs.rebuild(make_job(tmp_path)[0])


def test_selinux_is_asked_only_when_it_is_on_and_something_changed(tmp_path: Path) -> None:
    write(tmp_path, {"/etc/selinux/config": "SELINUX=enforcing\n"})
    job, _ = make_job(tmp_path)
    selinux.relabel(job)
    assert not (tmp_path / ".autorelabel").exists()
    job.changed("x")
    selinux.relabel(job)
    assert (tmp_path / ".autorelabel").exists()


def test_links_of_the_host_never_lead_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    write(root, {"/etc/real": "old\n"})
    (root / "etc/fstab").symlink_to("/etc/real")
    (root / "etc/up").symlink_to("../../../../etc/real")
    (root / "var").symlink_to(f"{outside}")
    (root / "etc/loop").symlink_to("/etc/loop")
    host = HostTree(root)
    assert host.write("/etc/fstab", "new\n")
    assert (root / "etc/real").read_text() == "new\n" and (root / "etc/fstab").is_symlink()
    assert host.read("/etc/up") == "new\n"
    host.write("/var/file", "x")
    assert list(outside.iterdir()) == []
    with pytest.raises(RekindleError, match="circles"):
        host.path("/etc/loop")


def test_the_true_original_survives_many_runs(tmp_path: Path) -> None:
    write(tmp_path, {"/etc/fstab": "one"})
    host = HostTree(tmp_path)
    for text in ("two", "three"):
        host.write("/etc/fstab", text)
    assert (tmp_path / "etc/fstab.rekindle-orig").read_text() == "one"
    assert not host.write("/etc/fstab", "three")


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"caf\xe9 /dev/vda1\n")
    host = HostTree(tmp_path)
    host.write("/f", (host.read("/f") or "") + "x\n")
    assert (tmp_path / "f").read_bytes() == b"caf\xe9 /dev/vda1\nx\n"


def test_without_a_system_no_step_does_anything() -> None:
    steps: list[Callable[[Job], str]] = [rename.rename, network.bring_up, initramfs.rebuild, selinux.relabel]
    job = Job(make_request(), lambda event: None)
    for step in steps:
        assert step(job) == "No system to adapt."
