"""The continuous agent on Debian's kernel under Secure Boot (lockdown: integrity), on a disk of its own in a guest.

The agent's tracking is a BPF program that Python assembles and loads; whether a locked down kernel takes it, only such
a kernel can tell. The medium has it, and the agent: a filesystem on a blank disk is written to, the agent is killed
with -9 at random moments, and every point must hold a prefix of the records without a hole. Ten minutes without KVM,
so it is asked for by name: ``REKINDLE_AGENT_GUEST=uefi-sb`` (or ``uefi``, ``bios``); ``REKINDLE_POINTS`` for more.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from recovery.repository.check import check
from recovery.repository.repository import Repository
from recovery.repository.store import open_local
from recovery.units import MIB
from tests.e2e.lab.hardware import DiskSpec
from tests.e2e.lab.medium_shell import GUEST_SHARE, medium_shell
from tests.support.guest_agent import CONFIG
from tests.support.prefix import WRITER, check_prefix, restored
from tests.support.repositories import PASSPHRASE, new_repository

pytestmark = [pytest.mark.e2e, pytest.mark.root]

WANTED = os.environ.get("REKINDLE_AGENT_GUEST", "")
POINTS = int(os.environ.get("REKINDLE_POINTS", "12"))
#: Seconds between two records, so that the writer's few thousand last until the last point.
PAUSE = 0.02 if POINTS < 50 else 0.25

#: The repository is in the guest's memory: it must not lie on a disk that is captured. A writer's and the agent's
#: clocks are the guest's, so that they can be compared.
_DRIVE = r"""
set -eu
modprobe -a ext4 2> /dev/null || true
mountpoint -q /sys/kernel/security || mount -t securityfs none /sys/kernel/security
mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing || true
here=/run/lab-agent share={share}
mkdir -p $here/mnt && chmod 700 $here
cp -r $share/repository $here/
cp $share/secret $share/agent.toml $share/writer.py $here/ && chmod 600 $here/secret
mkfs.ext4 -q -F {disk} && mount {disk} $here/mnt
count() {{ ls $here/repository/points/hv1 2> /dev/null | wc -l; }}
agent() {{ rekindle agent --config $here/agent.toml >> $here/agent.log 2>&1 & pid=$!; }}
reach() {{ for _ in $(seq 1500); do [ "$(count)" -ge "$1" ] && return; kill -0 $pid || break; sleep 1; done; false; }}
RANDOM={seed}
agent
reach 1
python3 $here/writer.py $here/mnt {pause} > $here/acks & writer=$!
while [ "$(count)" -lt {points} ]; do
    reach $(($(count) + 2 + RANDOM % 3))
    sleep 0.$((RANDOM % 1000))
    kill -9 $pid; wait $pid || true
    echo killed >> $here/kills
    agent
done
reach $(($(count) + 1))
kill $pid; wait $pid
kill -9 $writer
cp -r $here/repository $here/acks $here/kills $here/agent.log $here/status $share/result/
"""


@pytest.mark.skipif(not WANTED or os.geteuid() != 0, reason="set REKINDLE_AGENT_GUEST=uefi-sb, as root")
def test_the_agent_tracks_a_guest_under_its_firmware(tmp_path: Path) -> None:
    folder = Path(os.environ.get("REKINDLE_E2E_OUTPUT", tmp_path)) / f"agent-{WANTED}"
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / "data.img"
    disk.write_bytes(b"")
    os.truncate(disk, 48 * MIB)
    spec = DiskSpec(disk, "virtio", "DATA01")
    with medium_shell(folder, firmware=WANTED, disks=(spec,), memory=2048, say=print) as shell:  # type: ignore[arg-type]
        share = shell.share
        new_repository(share / "repository")
        (share / "result").mkdir()
        device = shell.disk("DATA01")
        secret = share / "secret"
        secret.touch(0o600)
        secret.write_text(PASSPHRASE)
        (share / "agent.toml").write_text(CONFIG.format(disk=device))
        (share / "writer.py").write_text(WRITER)
        kernel = shell.check(
            "uname -r; mount -t securityfs none /sys/kernel/security; cat /sys/kernel/security/lockdown"
        )
        print(kernel)
        seed = os.environ.get("REKINDLE_SEED", "1")
        words = _DRIVE.format(share=GUEST_SHARE, disk=device, seed=seed, points=POINTS, pause=PAUSE)
        code, said = shell.run(words, 90 * POINTS)
        log = share / "result/agent.log"
        if code:
            _, log_text = shell.run("tail -n 40 /run/lab-agent/agent.log; ls /run/lab-agent/repository/points/hv1")
            pytest.fail(f"exit code {code}: {said[-3000:]}\n{log_text}")
        shell.power_off()
    secret.unlink()
    if WANTED == "uefi-sb":
        assert "[integrity]" in kernel
    _judge(share / "result", folder, log.read_text())


def _judge(result: Path, folder: Path, log: str) -> None:
    repository = Repository.open(open_local(result / "repository"), PASSPHRASE)
    acknowledged = [
        float(line.split()[1]) for line in (result / "acks").read_text().splitlines() if len(line.split()) == 2
    ]
    kills = len((result / "kills").read_text().splitlines())
    counts, trackers, freezes = [], Counter[str](), []
    summaries = repository.points("hv1")
    for summary in summaries:
        point = repository.point("hv1", summary.id)
        live = point.body.live
        assert live is not None, "each of them is a point of a running host"
        trackers[live.tracker] += 1
        freezes.append(live.freeze_milliseconds)
        with restored(repository, point, folder) as mount:
            counts.append(check_prefix(mount, live.moment, acknowledged))
    print(f"{len(counts)} points, {kills} kills, records {counts}, {dict(trackers)}, "
          f"freezes {[round(f) for f in freezes]} ms")  # fmt: skip
    assert len(counts) >= POINTS and kills >= 2
    assert counts == sorted(counts) and counts[-1] > counts[0]
    # By BPF, on every point: a kernel that refuses it would have sent the agent back to tracefs.
    assert set(trackers) == {"ebpf"}, log[-3000:]
    report = check(repository, read_data=True)
    assert report.ok, report.damages
