"""The running source host of the demo, as far as it needs no boot: what is put on its disk, and how it is judged."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from recovery.agent.config import parse_settings
from recovery.commands import run
from tests.e2e.lab import host_agent
from tests.e2e.lab.accel import TCG
from tests.e2e.lab.hardware import command_line
from tests.e2e.lab.host_image import recipe
from tests.e2e.lab.storyboard.live import DISK, LiveSource
from tests.e2e.lab.storyboard.report import DemoReport
from tests.e2e.lab.storyboard.stage import Stage
from tests.e2e.lab.storyboard.told import Listener, Safe, lag_of
from tests.support.prefix import WRITER, check_prefix

SETUP = host_agent.AgentSetup("https://10.0.2.2:4711", "5a" * 32, "agent", "password", "passphrase", DISK)


def test_the_agent_takes_its_configuration_and_makes_a_point_every_minute() -> None:
    settings = parse_settings(SETUP.config(), "agent.toml")
    assert settings.host == recipe.HOST_NAME and settings.disks == (Path("/dev/sda"),)
    assert (settings.journal, settings.keyframe, settings.freeze) == (60.0, 3600.0, 0.5)
    assert settings.repository.location == "https://10.0.2.2:4711"


def test_only_root_reads_the_secrets_and_the_unit_starts_with_the_old_machine_only(tmp_path: Path) -> None:
    host_agent.write_settings(tmp_path, SETUP)
    host_agent.write_settings(tmp_path, SETUP)
    for name in ("agent.password", "agent.secret"):
        assert (tmp_path / "etc/rekindle" / name).stat().st_mode & 0o077 == 0
    units = tmp_path / "etc/systemd/system"
    assert "ConditionPathExists=/dev/sda\n" in (units / "rekindle-agent.service.d/lab.conf").read_text()
    link = (units / "multi-user.target.wants/rekindle-agent.service").readlink()
    unit = (tmp_path / link.relative_to("/")).read_text()
    assert f"ExecStart=/{host_agent.COMMAND} agent\n" in unit


def test_what_the_host_has_is_left_alone(tmp_path: Path) -> None:
    files, folder = tmp_path / "files", tmp_path / "usr"
    for place, text in ((files, "new"), (folder, "old")):
        (place / "lib/common").mkdir(parents=True)
        (place / "lib/common/shared").write_text(text)
    (files / "lib/python").write_text("new")
    (files / "lib64").mkdir()
    (files / "lib64/loader").write_text("new")
    (folder / "lib64").symlink_to("lib")
    host_agent.lay_beside(files, folder)
    assert (folder / "lib/common/shared").read_text() == "old"
    assert (folder / "lib/python").read_text() == "new"
    assert (folder / "lib64").is_symlink() and (folder / "lib/loader").read_text() == "new"


def test_the_writer_is_heard_up_to_the_line_that_was_cut(tmp_path: Path) -> None:
    listener = Listener()
    before = time.time()
    script = f'exec {sys.executable} -c "$0" $1 0 5 > /dev/tcp/127.0.0.1/{listener.port}'
    run(["bash", "-c", script, WRITER, tmp_path])
    with socket.create_connection(("127.0.0.1", listener.port), 10) as connection:
        connection.sendall(b"5 1234.5\n6 12")
    end = time.monotonic() + 60
    while len(listener.records) < 6:
        assert time.monotonic() < end
        time.sleep(0.02)
    listener.close()
    assert listener.records[-1].there == 1234.5
    safe = [record.there for record in listener.records[:5]]
    assert all(before <= record.there <= record.here for record in listener.records[:5])
    assert check_prefix(tmp_path, time.time(), safe) == 5
    listener.write(tmp_path / "records.txt")
    assert len((tmp_path / "records.txt").read_text().splitlines()) == 6


def test_the_lag_is_that_of_the_last_record_that_came_back_by_our_clock() -> None:
    records = [Safe(there, there + 1000.0) for there in (60.0, 80.0, 100.0, 102.0)]
    assert lag_of(1102.5, records, 2) == pytest.approx(1102.5 - 1080.0)
    assert lag_of(1102.5, records, 4) == lag_of(1102.5, records, 5) == pytest.approx(0.5)
    for wrong in (0, 1):
        with pytest.raises(ValueError):
            lag_of(1102.5, records[:wrong], 1 - wrong)


@pytest.mark.parametrize("firmware", ["bios", "uefi", "uefi-sb"])
def test_the_old_machine_has_its_disk_and_its_card(firmware: str, tmp_path: Path) -> None:
    stage = Stage(tmp_path, DemoReport(firmware), Console(quiet=True))
    source = LiveSource(stage, seed=1)
    hardware = source.hardware(firmware, tmp_path / "host.img", tmp_path / "recovery.iso")  # type: ignore[arg-type]
    words = " ".join(command_line(hardware, tmp_path, TCG))
    assert "ide-hd,bus=ide.0" in words and "virtio-net-pci,netdev=net0" in words and "addr=0x3" in words
    # Only signed loaders start with Secure Boot; the others need no loader.
    assert ("recovery.iso" in words) == (firmware == "uefi-sb") == ("-kernel" not in words)
