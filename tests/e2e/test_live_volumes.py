"""VMs on logical volumes while they write: the agent captures a disk with LVM, plain and thin, in a guest.

One writer stands for a VM: record N is written to a plain volume, then to a thin one, then to a file of a filesystem
on a third, each time synced. No filesystem can be frozen for the first two; device-mapper suspends them. Every point
must hold all records up to one, and the three places must agree to one record. Ten minutes without KVM, so it is asked
for by name: ``REKINDLE_LIVE_VOLUMES=uefi-sb`` (or ``uefi``, ``bios``); ``REKINDLE_POINTS`` for more points.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.explore.host import HostView
from recovery.repository.check import check
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.units import MIB
from tests.e2e.lab.hardware import DiskSpec
from tests.e2e.lab.medium_shell import GUEST_SHARE, medium_shell
from tests.support.guest_agent import CONFIG
from tests.support.repositories import PASSPHRASE, new_repository

pytestmark = [pytest.mark.e2e, pytest.mark.root]

WANTED = os.environ.get("REKINDLE_LIVE_VOLUMES", "")
POINTS = int(os.environ.get("REKINDLE_POINTS", "8"))
#: Volumes that are open while nobody writes to them: they cost the freeze their suspension.
IDLE = 24
RECORD, CHUNK = 4096, 65536

#: Record N is a page full of its number. On the thin volume each has a chunk of its own, so that the pool gives out
#: room all the time.
_WRITER = """
import glob, os, struct, sys, time
places = [os.open(path, os.O_RDWR | os.O_CREAT * (number == 2)) for number, path in enumerate(sys.argv[1:4])]
steps = [4096, 65536, 4096]
idle = [os.open(path, os.O_RDWR) for path in glob.glob("/dev/vg/idle*")]
for number in range(10**9):
    for place, step in zip(places, steps):
        try:
            os.pwrite(place, struct.pack("<Q", number + 1) * 512, number * step)
        except OSError:
            sys.exit("full")
        os.fsync(place)
    print(number + 1, time.time(), flush=True)
    time.sleep(0.03)
"""
_DRIVE = r"""
set -eu
modprobe -a ext4 dm_mod dm_thin_pool 2> /dev/null || true
mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing || true
here=/run/lab-agent share={share}
mkdir -p $here/mnt && chmod 700 $here
cp -r $share/repository $here/
cp $share/secret $share/agent.toml $share/writer.py $here/ && chmod 600 $here/secret
pvcreate -qq -y {disk}; vgcreate -qq vg {disk}
lvcreate -qq -y -Wn -L 64M -n plain vg
lvcreate -qq -y -L 32M -n fs vg
for n in $(seq {idle}); do lvcreate -qq -y -Wn -l 1 -n idle$n vg; done
lvcreate -qq -y --type thin-pool -c 64K -L 300M -n pool vg
lvcreate -qq -y -V 1G -T vg/pool -n thin
mkfs.ext4 -q -F /dev/vg/fs; mount /dev/vg/fs $here/mnt
udevadm settle
python3 $here/writer.py /dev/vg/plain /dev/vg/thin $here/mnt/file > $here/acks & writer=$!
rekindle agent --config $here/agent.toml >> $here/agent.log 2>&1 & pid=$!
count() {{ ls $here/repository/points/hv1 2> /dev/null | wc -l; }}
for _ in $(seq 1500); do [ "$(count)" -ge {points} ] && break; kill -0 $pid; sleep 1; done
dmsetup info -c --noheadings -o name,suspended > $here/dm
kill $pid; wait $pid
kill -0 $writer; kill -9 $writer
cp -r $here/repository $here/acks $here/agent.log $here/status $here/dm $share/result/
[ "$(count)" -ge {points} ]
"""


@pytest.mark.skipif(not WANTED or os.geteuid() != 0, reason="set REKINDLE_LIVE_VOLUMES=bios, as root")
def test_volumes_that_are_written_to_directly_are_of_one_moment(tmp_path: Path) -> None:
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path)) / f"live-volumes-{WANTED}"
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / "data.img"
    disk.write_bytes(b"")
    os.truncate(disk, 600 * MIB)
    spec = DiskSpec(disk, "virtio", "DATA01")
    with medium_shell(folder, firmware=WANTED, disks=(spec,), memory=2048, say=print) as shell:  # type: ignore[arg-type]
        share = shell.share
        new_repository(share / "repository")
        (share / "result").mkdir()
        device = shell.disk("DATA01")
        (share / "secret").touch(0o600)
        (share / "secret").write_text(PASSPHRASE)
        (share / "agent.toml").write_text(CONFIG.format(disk=device))
        (share / "writer.py").write_text(_WRITER)
        code, said = shell.run(_DRIVE.format(share=GUEST_SHARE, disk=device, points=POINTS, idle=IDLE), 90 * POINTS)
        if code:
            _, log = shell.run("tail -n 60 /run/lab-agent/agent.log; dmsetup info -c; dmesg | tail -n 20")
            pytest.fail(f"exit code {code}: {said[-3000:]}\n{log}")
        shell.power_off()
    (share / "secret").unlink()
    _judge(share / "result")


def _judge(result: Path) -> None:
    assert not [line for line in (result / "dm").read_text().split() if line.endswith("Suspended")]
    acknowledged = [line.split() for line in (result / "acks").read_text().splitlines() if len(line.split()) == 2]
    repository = Repository.open(open_local(result / "repository"), PASSPHRASE)
    report = check(repository, read_data=True)
    assert report.ok, report.damages
    points = [repository.point("hv1", each.id) for each in repository.points("hv1")]
    assert len(points) >= POINTS
    freezes: list[float] = []
    for point in points:
        live = point.body.live
        assert live is not None
        view = HostView(repository, point)
        plain, thin = (
            _records(_reader(view, name), step) for name, step in (("vg/plain", RECORD), ("vg/thin", CHUNK))
        )
        file = _records_in_file(view, result)
        print(f"{live.moment:.3f}: {plain} {thin} {file}; {live.freeze_milliseconds} ms, {live.volumes[-3:]}")
        safe = max((int(number) for number, at in acknowledged if float(at) < live.moment), default=0)
        assert safe <= file <= thin <= plain <= file + 1, "what was synced is there, in the order of writing"
        assert {"vg-plain", "vg-thin", "vg-pool-tpool"} <= {each.name for each in live.volumes}
        assert len(live.volumes) == 3 + IDLE
        freezes.append(live.freeze_milliseconds)
    print(f"{len(points)} points, freezes of {min(freezes)} to {max(freezes)} ms")


def _reader(view: HostView, name: str) -> Callable[[int], bytes]:
    where = view.volume(name)
    return lambda at: view.read(where, at, RECORD)


def _records(read: Callable[[int], bytes], step: int) -> int:
    """The number of the last record; there must be no hole before it and nothing torn behind it."""
    number = 0
    while (data := read(number * step)) == struct.pack("<Q", number + 1) * (RECORD // 8):
        number += 1
    assert not any(data), f"record {number + 1} is torn"
    return number


def _records_in_file(view: HostView, folder: Path) -> int:
    where = view.volume("vg/fs")
    image, mount = folder / "fs.img", folder / "mnt"
    image.write_bytes(view.read(where, 0, where.size))
    mount.mkdir(exist_ok=True)
    # Nothing is replayed: it was frozen.
    subprocess.run(["mount", "-o", "loop,ro,noload", image, mount], check=True)
    try:
        data = (mount / "file").read_bytes()
    finally:
        subprocess.run(["umount", mount], check=True)
    return _records(lambda at: data[at : at + RECORD], RECORD)
