"""Running hosts whose filesystem lies on md or LUKS, and tracking without eBPF: the agent on Debian's kernel.

In a guest: this machine's kernel has no md and no dm-crypt, and only a guest's can be without type information (eBPF).
The agent captures the physical disks below; every point must hold a prefix of a writer's records without a hole, on
each leg of the array, below the encryption. Minutes a case without KVM, so they are asked for by name:
``REKINDLE_LIVE_LAYERS=uefi-sb`` (or ``uefi``, ``bios``); ``REKINDLE_POINTS`` for more points.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from recovery.events import ignore
from recovery.format.point import Point
from recovery.repository.check import check
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.units import MIB
from tests.e2e.lab.hardware import DiskSpec
from tests.e2e.lab.medium_shell import GUEST_SHARE, medium_shell
from tests.support.guest_agent import CONFIG
from tests.support.prefix import WRITER, check_prefix, mounted_image
from tests.support.repositories import PASSPHRASE, new_repository

pytestmark = [pytest.mark.e2e, pytest.mark.root]

WANTED = os.environ.get("REKINDLE_LIVE_LAYERS", "")
POINTS = int(os.environ.get("REKINDLE_POINTS", "8"))
KEY = bytes(range(64))
#: Where the encrypted filesystem begins: cryptsetup's own choice for LUKS2.
PAYLOAD, SECTOR = 16 * MIB, 512


def as_it_is(disk: bytes) -> bytes:
    """A leg of an array with its superblock at the end, or a disk without anything below its filesystem."""
    return disk


def decrypted(disk: bytes) -> bytes:
    """dm-crypt's aes-xts-plain64: each sector of 512 bytes with its number."""
    found = bytearray()
    for number, at in enumerate(range(PAYLOAD, len(disk), SECTOR)):
        cipher = Cipher(algorithms.AES(KEY), modes.XTS(number.to_bytes(16, "little")))
        found += cipher.decryptor().update(disk[at : at + SECTOR])
    return bytes(found)


@dataclass(frozen=True)
class Layers:
    """``make`` lays them on ``$1`` (and ``$2``) and sets ``fs``; ``inside``: a disk's bytes -> the filesystem's."""

    name: str
    disks: int
    make: str
    tracker: str
    inside: Callable[[bytes], bytes] = as_it_is
    esp: str = ""
    """A disk of the point that is a vfat, which cannot be frozen: a note there is written every two seconds."""


CASES = (
    # md writes its superblock by itself when nothing was written for a while: here that is within each freeze, whose
    # last passes take it in.
    Layers(
        "md", 2,
        "modprobe raid1; mdadm --create /dev/md/t --run --metadata=1.0 --level=1 --bitmap=internal "
        "--raid-devices=2 $1 $2; mdadm --wait /dev/md/t || true; "
        "echo 0.01 > /sys/block/$(basename $(realpath /dev/md/t))/md/safe_mode_delay; fs=/dev/md/t", "ebpf",
    ),
    Layers(
        "luks", 1,
        "modprobe dm_crypt; cryptsetup -q luksFormat --type luks2 --cipher aes-xts-plain64 --sector-size 512 "
        "--volume-key-file $share/key --key-size 512 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $1 $share/key; "
        "cryptsetup open --key-file $share/key $1 t; fs=/dev/mapper/t", "ebpf", decrypted,
    ),
    Layers(
        "vfat", 2,
        "modprobe vfat; mkfs.vfat -S 512 $2 > /dev/null; mkdir $here/esp; mount $2 $here/esp; fs=$1; "
        "(while sleep 2; do echo note $(date +%s) whole > $here/esp/note; done) &", "ebpf", esp="disk2",
    ),
    Layers("tracefs", 1, "mount --bind /dev/null /sys/kernel/btf/vmlinux; fs=$1", "tracefs"),
)  # fmt: skip

_DRIVE = r"""
set -eu
modprobe -a ext4 2> /dev/null || true
mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing || true
here=/run/lab-agent share={share}
mkdir -p $here/mnt && chmod 700 $here
cp -r $share/repository $here/
cp $share/secret $share/agent.toml $share/writer.py $here/ && chmod 600 $here/secret
set -- {disks}
{make}
mkfs.ext4 -q -F $fs && mount $fs $here/mnt
count() {{ ls $here/repository/points/hv1 2> /dev/null | wc -l; }}
rekindle agent --config $here/agent.toml >> $here/agent.log 2>&1 & pid=$!
reach() {{ for _ in $(seq 1500); do [ "$(count)" -ge "$1" ] && return; kill -0 $pid || break; sleep 1; done; false; }}
reach 1
python3 $here/writer.py $here/mnt 0.05 > $here/acks & writer=$!
reach {points}
kill $pid; wait $pid
kill -9 $writer
cp -r $here/repository $here/acks $here/agent.log $here/status $share/result/
"""


@pytest.mark.skipif(not WANTED or os.geteuid() != 0, reason="set REKINDLE_LIVE_LAYERS=uefi-sb, as root")
@pytest.mark.parametrize("layers", CASES, ids=lambda layers: layers.name)
def test_points_of_a_host_with_layers_below_its_filesystem(layers: Layers, tmp_path: Path) -> None:
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path)) / f"live-{layers.name}-{WANTED}"
    folder.mkdir(parents=True, exist_ok=True)
    specs = []
    for number in range(1, layers.disks + 1):
        disk = folder / f"data{number}.img"
        disk.write_bytes(b"")
        os.truncate(disk, 64 * MIB)
        specs.append(DiskSpec(disk, "virtio", f"DATA0{number}"))
    with medium_shell(folder, firmware=WANTED, disks=tuple(specs), memory=2048, say=print) as shell:  # type: ignore[arg-type]
        share = shell.share
        new_repository(share / "repository")
        (share / "result").mkdir()
        devices = [shell.disk(spec.serial) for spec in specs]
        (share / "secret").touch(0o600)
        (share / "secret").write_text(PASSPHRASE)
        (share / "key").write_bytes(KEY)
        (share / "agent.toml").write_text(CONFIG.format(disk='", "'.join(devices)))
        (share / "writer.py").write_text(WRITER)
        words = _DRIVE.format(share=GUEST_SHARE, disks=" ".join(devices), points=POINTS, make=layers.make)
        code, said = shell.run(words, 90 * POINTS)
        if code:
            _, log = shell.run("tail -n 60 /run/lab-agent/agent.log; cat /proc/mdstat; dmesg | tail -n 20")
            pytest.fail(f"exit code {code}: {said[-3000:]}\n{log}")
        shell.power_off()
    (share / "secret").unlink()
    _judge(share / "result", layers, folder)


def _judge(result: Path, layers: Layers, folder: Path) -> None:
    repository = Repository.open(open_local(result / "repository"), PASSPHRASE)
    acknowledged = [
        float(line.split()[1]) for line in (result / "acks").read_text().splitlines() if len(line.split()) == 2
    ]
    counts: list[int] = []
    freezes: list[int] = []
    noted = 0
    for summary in repository.points("hv1"):
        point = repository.point("hv1", summary.id)
        live = point.body.live
        assert live is not None and live.tracker == layers.tracker
        freezes.append(round(live.freeze_milliseconds))
        found: set[int] = set()
        for disk in point.body.disks:
            image = folder / "fs.img"
            if disk.name == layers.esp:
                image.write_bytes(_content(repository, point, disk.name, folder))
                noted += _has_the_note(image, live.moment)
                continue
            image.write_bytes(layers.inside(_content(repository, point, disk.name, folder)))
            with mounted_image(image, folder / "mnt") as mount:
                found.add(check_prefix(mount, live.moment, acknowledged))
        assert len(point.body.disks) == layers.disks and len(found) == 1, "the legs are of one moment"
        counts += found
    print(f"{layers.name}: {len(counts)} points, records {counts}, freezes {freezes} ms")
    log = (result / "agent.log").read_text()
    assert len(counts) >= POINTS, log[-3000:]
    assert counts == sorted(counts) and counts[-1] > counts[0]
    assert bool(noted) == bool(layers.esp), "the note was on no point's vfat"
    report = check(repository, read_data=True)
    assert report.ok, report.damages


def _content(repository: Repository, point: Point, name: str, folder: Path) -> bytes:
    image = folder / "restored.img"
    image.unlink(missing_ok=True)
    options = RestoreOptions(verify_all=True)
    assert restore_disk(repository, point, name, str(image), ignore, threading.Event(), options).root_matched
    return image.read_bytes()


def _has_the_note(image: Path, moment: float) -> bool:
    """Nothing froze it; it was written out and stood still, so the note is whole, and of just before. False where it
    was not there yet, or just cut to nothing to be written anew."""
    done = subprocess.run(["mtype", "-i", image, "::note"], capture_output=True, text=True, check=False)
    if done.returncode:
        assert "not found" in done.stderr, done.stderr
        return False
    match = re.fullmatch(r"note (\d+) whole\n", done.stdout)
    assert match or not done.stdout, done.stdout
    assert match is None or moment - 60 < int(match[1]) <= moment + 1
    return match is not None
