"""Stacks of md, LUKS and LVM: what is started in which order, what is said, and the pure decisions about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recovery.adapt import grow, luks, mount, prove_stack, stack
from recovery.adapt.devices import Node, below, is_part_of_volume, resolve
from recovery.adapt.luks import Passphrases
from recovery.adapt.mdconf import rewrite_mdadm
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.names import parse_fstab
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import AccessError
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import MdArray, SystemFacts
from recovery.machine.model import Disk, Machine

SECRET = "correct horse"
LEGS = (
    Node("/dev/sda2", "part", 1, "disk1", 2, "linux_raid_member", "aa-bb", "host:root"),
    Node("/dev/sdb2", "part", 1, "disk2", 2, "linux_raid_member", "aa-bb", "host:root"),
)
ARRAY = Node("/dev/md127", "raid1", 1, "disk1", 0, "crypto_LUKS", "luks-uuid", parent="/dev/sda2",
             parents=("/dev/sda2", "/dev/sdb2"))  # fmt: skip
CRYPT = Node("/dev/mapper/rekindle-luks-uui", "crypt", 1, "disk1", 0, "LVM2_member", "pv", parent="/dev/md127")
ROOT = Node("/dev/mapper/vg-root", "lvm", 1, "disk1", 0, "ext4", "root-uuid", parent=CRYPT.path)
STACK = (*LEGS, ARRAY, CRYPT, ROOT)


def make_job(
    nodes: tuple[Node, ...], system: SystemFacts, *, secret: str = "", md_arrays: tuple[MdArray, ...] = ()
) -> Job:
    disk = PointDisk(name="disk1", size=1, sector_size=512, chunk_size=1, root="")
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0),
        body=PointBody(disks=(disk,), consistency="offline", firmware="bios", system=system, md_arrays=md_arrays),
    )
    request = AdaptRequest(point=point, targets={"disk1": Disk(id="x", path="/dev/sda", size=1)}, machine=Machine())
    passphrases = Passphrases((secret,) if secret else ())
    return Job(request, lambda event: None, nodes=nodes, passphrases=passphrases)


def test_passphrases_are_shown_nowhere() -> None:
    job = make_job((), SystemFacts(), secret=SECRET)
    assert SECRET not in repr(job)
    assert SECRET not in f"{job.passphrases} {job.passphrases!r}"
    assert job.passphrases and not Passphrases()


def test_a_passphrase_goes_in_by_stdin_only() -> None:
    given: list[bytes | None] = []
    fake = FakeRunner()

    def runner(argv: list[str], **options: object) -> Completed:
        given.append(options.pop("input"))  # type: ignore[arg-type]
        return fake(argv, **options)  # type: ignore[arg-type]

    with use_runner(runner):  # type: ignore[arg-type]
        assert luks.open_volume(ARRAY, Passphrases((SECRET,))) == ""
        assert luks.opens("/dev/x", Passphrases((SECRET,))) is None
        luks.resize(CRYPT, Passphrases((SECRET,)))
    assert given == [SECRET.encode()] * 3
    assert not any(SECRET in word for call in fake.calls for word in call)
    assert fake.calls[0][-2:] == ("/dev/md127", "rekindle-luks-uui")
    assert fake.calls[2][-1] == "rekindle-luks-uui"


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [(2, "", "the passphrase does not open it"), (3, "", "its key needs more memory than this machine has free"),
     (1, "Device is in use.\n", "Device is in use"), (1, "", "cryptsetup ended with code 1")],
)  # fmt: skip
def test_why_a_volume_stays_closed(code: int, said: str, why: str) -> None:
    with use_runner(FakeRunner({("cryptsetup",): Completed((), code, "", said)})):
        assert luks.open_volume(ARRAY, Passphrases(("a", "b"))) == why


def test_closed_volumes_are_those_with_nothing_on_them() -> None:
    assert luks.closed(STACK) == []
    assert luks.closed(STACK[:3]) == [ARRAY]


def lsblk(*rows: dict[str, object]) -> Completed:
    return Completed((), 0, json.dumps({"blockdevices": list(rows)}))


def test_layers_are_started_one_after_the_other_and_without_a_passphrase_the_rest_stays_down() -> None:
    part = {"path": "/dev/sda1", "type": "part", "size": 1, "children": []}
    rows = lsblk({"path": "/dev/sda", "type": "disk", "size": 1, "children": [part]})
    answers = {
        ("lsblk",): rows,
        ("blkid", "-p", "-o", "export", "/dev/sda1"): Completed((), 0, "TYPE=crypto_LUKS\nUUID=12345678-9\n"),
    }
    disk = {"disk1": Disk(id="x", path="/dev/sda", size=1)}
    fake = FakeRunner(answers)
    with use_runner(fake):
        nodes, warnings = stack.assemble(disk)
    assert [n.content for n in nodes] == ["", "crypto_LUKS"]
    assert warnings == []
    assert not any(call[0] == "cryptsetup" for call in fake.calls)

    wrong = FakeRunner({**answers, ("cryptsetup",): Completed((), 2)})
    with use_runner(wrong):
        _, warnings = stack.assemble(disk, Passphrases((SECRET,)))
    assert warnings == ["The encrypted volume (LUKS) on /dev/sda1 stays closed: the passphrase does not open it."]
    assert sum(call[0] == "cryptsetup" for call in wrong.calls) == 1


def test_what_lies_on_top_is_let_go_of_first() -> None:
    fake = FakeRunner()
    on_lv = Node("/dev/mapper/inner", "crypt", 1, "disk1", 0, "ext4", parent=ROOT.path)
    with use_runner(fake):
        stack.release((*STACK, on_lv))
    words = [" ".join(call) for call in fake.calls]
    assert words[0] == "cryptsetup close inner"
    assert words[1] == "cryptsetup close rekindle-luks-uui"
    assert words[2].startswith("lvm vgchange --devices /dev/mapper/rekindle-luks-uui")
    assert words[-1] == "mdadm --stop /dev/md127"
    busy = FakeRunner({("cryptsetup", "close", "rekindle-luks-uui"): Completed((), 5)})
    with use_runner(busy):
        stack.release(STACK)
    assert [call[:2] for call in busy.calls] == [
        ("cryptsetup", "close"), ("lvm", "vgchange"), ("cryptsetup", "close"), ("mdadm", "--stop"),
    ]  # fmt: skip


def test_a_running_array_is_not_started_again_whichever_leg_is_its_first() -> None:
    assert stack.array_members(STACK) == {}
    assert stack.array_members(LEGS) == {"aa-bb": ["/dev/sda2", "/dev/sdb2"]}


def test_missing_disks_of_an_array(tmp_path: Path) -> None:
    folder = tmp_path / "class/block/md127/md"
    folder.mkdir(parents=True)
    assert stack.missing_disks(ARRAY, tmp_path) == (0, 0)
    (folder / "degraded").write_text("1\n")
    (folder / "raid_disks").write_text("2\n")
    assert stack.missing_disks(ARRAY, tmp_path) == (1, 2)


def test_what_a_root_lies_on() -> None:
    assert [n.path for n in below(ROOT, STACK)] == [
        "/dev/mapper/vg-root", CRYPT.path, "/dev/md127", "/dev/sda2", "/dev/sdb2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/dev/mapper/vg-root", False), ("/dev/mapper/vg--thin-vm--1", False), ("/dev/mapper/vg-data", False),
        ("/dev/mapper/vg-pool_tdata", True), ("/dev/mapper/vg-pool_tmeta", True), ("/dev/mapper/vg-pool-tpool", True),
        ("/dev/mapper/vg-root_rimage_0", True), ("/dev/mapper/vg-root_rmeta_1", True),
        ("/dev/mapper/vg-lvol0_pmspare", True), ("/dev/mapper/vg-root-real", True), ("/dev/mapper/vg-x_corig", True),
    ],
)  # fmt: skip
def test_parts_of_volumes_are_no_volumes(path: str, hidden: bool) -> None:
    assert is_part_of_volume(path) == hidden


def test_the_hosts_names_for_mappings() -> None:
    text = "# name source key options\ncryptroot UUID=luks-uuid none luks,discard\ndata /dev/sdz1 /etc/key\nbroken\n"
    entries = luks.parse_crypttab(text)
    assert [(e.name, e.key, e.options) for e in entries] == [
        ("cryptroot", "none", ("luks", "discard")), ("data", "/etc/key", ()),
    ]  # fmt: skip
    names = luks.host_names(entries, STACK, ())
    assert names == {CRYPT.path: "cryptroot"}
    named = (*STACK[:3], Node("/dev/mapper/cryptroot", "crypt", 1, parent="/dev/md127"))
    assert luks.host_names(entries, named, ()) == {}
    assert resolve("/dev/mapper/cryptroot", named) == named[3]


def test_a_closed_root_is_an_error_with_a_wrong_passphrase_and_a_warning_without_one(tmp_path: Path) -> None:
    locked = (Node("/dev/sda1", "part", 1, "disk1", 1, "crypto_LUKS", "u"),)
    with use_runner(FakeRunner()):
        job = make_job(locked, SystemFacts())
        assert mount.mount_system(job, tmp_path) == "The system is encrypted."
        assert "no passphrase was given" in job.warnings[0]
        with pytest.raises(AccessError, match="does not open it") as caught:
            mount.mount_system(make_job(locked, SystemFacts(), secret=SECRET), tmp_path)
    assert SECRET not in str(caught.value) + caught.value.hint


def test_a_root_on_an_array_is_found_by_its_uuid() -> None:
    on = SystemFacts(root="md/0a1b2c3d")
    plain = Node("/dev/md127", "raid1", 1, "disk1", 0, "ext4", "f", parent="/dev/sda2", parents=ARRAY.parents)
    arrays = (MdArray(uuid="aa:bb", level="raid1", volume="md/0a1b2c3d"),)
    job = make_job((*LEGS, plain), on, md_arrays=arrays)
    assert mount._named_root(job) == plain
    assert mount._named_root(make_job((*LEGS, plain), SystemFacts(root="md/root"))) == plain


def test_subvolumes_are_tried_the_usual_ones_first_and_a_snapshot_disagrees() -> None:
    listing = "".join(
        f"ID {n} gen 7 top level 5 path {p}\n" for n, p in enumerate(["snaps/1/root", "sys", "root", "@"])
    )
    assert mount.subvolumes(listing) == ["@", "root", "sys", "snaps/1/root"]
    mounts = parse_fstab("UUID=1 / btrfs defaults,subvol=/@ 0 0\n")
    assert mount._agrees(mounts, "subvol=@")
    assert not mount._agrees(mounts, "subvol=snaps/1/root")
    assert mount._agrees(parse_fstab("UUID=1 / ext4 defaults 0 1\n"), "")


MDADM = """\
# mdadm.conf
DEVICE /dev/sda2 /dev/sdb2
HOMEHOST <system>
ARRAY /dev/md/root metadata=1.2 UUID=aa:bb
   devices=/dev/sda2,/dev/disk/by-id/ata-X-part2 name=host:root
ARRAY /dev/md/data UUID=cc:dd devices=/dev/md/inner
MAILADDR root
"""


def test_mdadm_conf_names_no_disk_of_the_old_machine() -> None:
    new = rewrite_mdadm(MDADM)
    assert "DEVICE partitions\n" in new.text
    assert "/dev/sd" not in new.text
    assert "UUID=aa:bb\n name=host:root\n" in new.text
    assert "devices=/dev/md/inner" in new.text
    assert len(new.changes) == 2
    assert rewrite_mdadm(new.text).changes == ()
    untouched = "DEVICE partitions containers\nARRAY /dev/md0 UUID=aa:bb\n"
    assert rewrite_mdadm(untouched).text == untouched
    assert rewrite_mdadm("dev /dev/sd[ab]1\n").text == "DEVICE partitions\n"


def test_what_the_initramfs_needs_for_the_stack() -> None:
    chain = below(ROOT, STACK)
    assert prove_stack.stack_modules(chain) == ["dm_mod", "dm_crypt", "raid1"]
    listing = ["-rwxr-xr-x 1 root root 1 Jan 1 usr/sbin/mdadm", "usr/sbin/lvm", "usr/sbin/cryptsetup"]
    assert prove_stack.missing_programs(chain, listing) == []
    assert prove_stack.missing_programs(chain, listing[:2]) == ["cryptsetup"]
    assert prove_stack.missing_programs(chain, ["usr/lib/systemd/systemd-cryptsetup"]) == ["lvm", "mdadm"]
    assert prove_stack.missing_programs([LEGS[0]], []) == []
    assert prove_stack.unlisted(chain, luks.parse_crypttab("rekindle-luks-uui UUID=luks-uuid\n")) == []
    assert prove_stack.unlisted(chain, []) == [CRYPT.path]


def test_a_thin_root_needs_the_pools_tools() -> None:
    data = Node("/dev/mapper/vg-pool_tdata", "lvm", 1)
    pool = Node("/dev/mapper/vg-pool-tpool", "lvm", 1, parent=data.path)
    root = Node("/dev/mapper/vg-root", "lvm", 1, content="ext4", parent=pool.path)
    chain = below(root, (data, pool, root))
    assert prove_stack.is_thin(chain)
    assert "dm_thin_pool" in prove_stack.stack_modules(chain)
    assert prove_stack.missing_programs(chain, ["usr/sbin/lvm"]) == ["thin_check"]
    assert prove_stack.missing_programs(chain, ["usr/sbin/lvm", "usr/sbin/pdata_tools"]) == []


def test_whose_the_room_of_a_group_is() -> None:
    pool = stack.Volume("vg", "pool", 1, "thin-pool")
    thin = stack.Volume("vg", "root", 1, "thin", "pool")
    plain = stack.Volume("vg", "swap", 1, "linear")
    assert grow.only_heir([pool, thin]) == pool
    assert grow.only_heir([pool, thin, plain]) is None
    assert grow.only_heir([plain]) == plain
    assert grow.only_heir([plain, plain]) is None
    assert grow.only_heir([stack.Volume("vg", "x", 1, "raid1")]) is None
    assert grow.only_heir([]) is None


@pytest.mark.parametrize(
    ("version", "level", "why"),
    [
        ("1.2", "raid1", ""),
        ("1.0", "raid1", "superblock of version 1.0 lies at its end"),
        ("1.2", "raid5", "level raid5 is not grown"),
        ("", "raid1", "superblock of version ?"),
    ],
)
def test_which_array_members_grow(version: str, level: str, why: str) -> None:
    # As mdadm 4.4 and libblkid 2.41 print them.
    facts = f"MD_LEVEL={level}\nMD_DEVICES=2\nMD_NAME=host:root\nMD_UUID=8da6885b:5494846b:b8cf872b:c7e72e07\n"
    told = "UUID=8da6885b-5494-846b-b8cf-872bc7e72e07\nTYPE=linux_raid_member\n"
    told += f"VERSION={version}\n" if version else ""
    job = make_job((), SystemFacts())
    answers = {("mdadm", "--examine"): Completed((), 0, facts), ("blkid",): Completed((), 0, told)}
    with use_runner(FakeRunner(answers)):
        said = grow._why_not_growable(job, "/dev/sda2", "linux_raid_member")
    assert (why in said) if why else said == ""
    assert grow._why_not_growable(job, "/dev/sda2", "crypto_LUKS") == "the encrypted volume on it is not opened"
    assert grow._why_not_growable(make_job((), SystemFacts(), secret="x"), "/dev/sda2", "crypto_LUKS") == ""
