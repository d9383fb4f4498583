"""The pure parts: the run's model, forms, words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.engine.api import NetworkConfig
from recovery.errors import ErrorReport, UsageError
from recovery.events import Message, Progress, RunFinished, StepFinished, StepStarted
from recovery.plan.model import Choices, RestorePlan
from recovery.restore.report import Damage
from recovery.tui.describe import age, disk_contents, fingerprint_lines, unavailable
from recovery.tui.forms import network_config, server_access, server_url
from recovery.tui.glyphs import DRAWABLE, drawable
from recovery.tui.report_text import report_text
from recovery.tui.run_model import RunModel
from recovery.tui.run_text import disk_figures, log_text, now_text, steps_text, whole_text
from recovery.tui.screens.another_copy import AnotherCopyScreen
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.confirm import ConfirmScreen
from recovery.tui.screens.confirm_files import ConfirmFilesScreen
from recovery.tui.screens.failed import FailedScreen
from recovery.tui.screens.host import HostScreen
from recovery.tui.screens.network import NetworkScreen
from recovery.tui.screens.place import PlaceScreen
from recovery.tui.screens.plan import PlanScreen
from recovery.tui.screens.point import PointScreen
from recovery.tui.screens.repository import RepositoryScreen
from recovery.tui.screens.restore import RestoreScreen
from recovery.tui.screens.result import ResultScreen
from recovery.tui.screens.start import StartScreen
from recovery.tui.screens.target import TargetScreen
from recovery.tui.screens.vm import VmScreen
from recovery.tui.terminal import is_plain
from recovery.tui.theme import fit
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, BUSY, MEDIUM_DISK, USED


def two_disk_model() -> RunModel:
    engine = FakeEngine(disks=2)
    point = engine.all_points[-1]
    choices = Choices(host=point.header.host, point=point.id, targets={"disk1": BLANK.id, "disk2": USED.id})
    return RunModel(plan=engine.plan(choices))


def test_whole_counts_disks_that_have_not_begun() -> None:
    model = two_disk_model()
    assert isinstance(model.plan, RestorePlan)
    size = model.plan.assignments[0].source.size
    model.apply(Progress(step="stream:disk1", disk="disk1", done=size, total=size, rate=1e8, retries=2))
    total = model.total()
    assert total is not None
    assert (total.done, total.total, total.retries) == (size, model.plan.logical, 2)
    model.apply(Progress(step="stream:disk2", disk="disk2", done=10, total=100, rate=5.0, transferred=7))
    total = model.total()
    assert total is not None
    assert (total.done, total.rate, total.transferred) == (size + 10, 5.0, 7)


def test_steps_and_failure() -> None:
    model = two_disk_model()
    model.apply(StepStarted(step="open", title="Check"))
    model.apply(StepFinished(step="open", seconds=2.0))
    model.apply(StepStarted(step="stream:disk1", title="Restore"))
    model.apply(Message(text="quiet", level="debug"))
    model.apply(RunFinished(error=ErrorReport("DeviceError", "broken")))
    assert [step.state for step in model.steps.values()] == ["done", "failed", "waiting", "waiting", "waiting"]
    assert model.error is not None
    assert model.log[-1][1:] == ("error", "broken")
    assert "quiet" not in str(log_text(model, 20, 80))


def test_a_run_is_not_over_when_all_data_is_there() -> None:
    """Who sees 100 % would pull the plug: what is still to be done is said beside it."""
    model = two_disk_model()
    assert model.phase == "running"
    model.apply(StepStarted(step="open", title="Check"))
    model.apply(StepFinished(step="open", seconds=2.0))
    model.apply(StepStarted(step="stream:disk1", title="Restore"))
    assert model.phase == "running, step 2 of 5"
    total = model.plan.logical if model.plan else 0
    for disk in ("disk1", "disk2"):
        model.apply(Progress(step=f"stream:{disk}", disk=disk, done=total, total=total))
    assert "not bootable yet" in whole_text(model)
    model.apply(RunFinished())
    assert model.phase == "done"
    assert "yet" not in whole_text(model)


@given(st.integers(1, 30), st.integers(0, 29), st.integers(1, 12))
def test_the_running_step_is_always_in_sight(count: int, running: int, room: int) -> None:
    model = RunModel()
    for number in range(count):
        model.apply(StepStarted(step=str(number), title=f"step-{number};"))
        if number != min(running, count - 1):
            model.apply(StepFinished(step=str(number)))
    lines = str(steps_text(model, room, 80)).splitlines()
    assert len(lines) == min(room, count)
    assert any(f"step-{min(running, count - 1)};" in line for line in lines)


def test_an_outage_stands_where_the_rate_was() -> None:
    model = RunModel()
    note = "reconnecting, attempt 13, next in 15 s"
    model.apply(Progress(step="stream:disk1", disk="disk1", done=5, total=10, rate=1.0, retries=13, note=note))
    assert note in whole_text(model)
    assert max(map(len, whole_text(model).splitlines())) <= 78
    assert disk_figures(model.disks["disk1"]).startswith("reconnecting, attempt 13")
    assert len(disk_figures(model.disks["disk1"])) <= 26
    model.apply(Progress(step="stream:disk1", disk="disk1", done=6, total=10, rate=1.0, retries=13))
    assert "reconnecting" not in whole_text(model) + disk_figures(model.disks["disk1"])


@given(st.text())
def test_drawable_keeps_the_length_and_only_what_the_font_has(text: str) -> None:
    shown = drawable(text)
    assert len(shown) == len(text)
    assert text.isascii() or set(shown) <= DRAWABLE | {"\n", "\t"} | {c for c in text if c.isascii()}
    assert len(fit(text, 10)) == 10
    assert fit("a日b", 4) == "a??b"


@pytest.mark.parametrize(
    ("dhcp", "fields", "complaint"),
    [
        (False, {"address": "10.0.0.5"}, "prefix"),
        (False, {"address": "10.0.0.5/99"}, "prefix"),
        (False, {"address": "10.0.0.5/24", "gateway": "x"}, "gateway"),
        (False, {"address": "10.0.0.5/24", "dns": "10.0.0.1 y"}, "DNS"),
        (True, {"vlan": "5000"}, "VLAN"),
    ],
)
def test_network_forms_name_the_field(dhcp: bool, fields: dict[str, str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        network_config("eth0", dhcp, fields)


def test_network_form_with_dhcp_ignores_static_fields() -> None:
    assert network_config("eth0", True, {"address": "junk"}) == NetworkConfig(interface="eth0")
    with pytest.raises(UsageError, match="No network interface"):
        network_config("", True, {})


def test_server_form() -> None:
    assert server_url(" backup:8460/ ") == "https://backup:8460"
    for bad in ("", "http://backup"):
        with pytest.raises(UsageError):
            server_url(bad)
    with pytest.raises(UsageError, match="signed in"):
        server_access({"server": "backup", "user": "u", "secret": "s"}, "")
    with pytest.raises(UsageError, match="passphrase"):
        server_access({"server": "backup", "user": "u", "password": "p"}, "")
    with_code = server_access({"server": "backup", "user": "u", "password": "p", "code": "c", "secret": "s"}, "ab")
    assert (with_code.code, with_code.user, with_code.password, with_code.fingerprint) == ("c", "", "", "ab")


def test_words() -> None:
    assert unavailable(BLANK) == "" == unavailable(USED)
    assert "repository" in unavailable(BUSY)
    assert "started from" in unavailable(MEDIUM_DISK)
    assert [age(0, passed) for passed in (5, 120, 7200, 90000, -500)] == [
        "just now",
        "2 minutes ago",
        "2 hours ago",
        "1 day ago",
        "in the future (check the clock)",
    ]
    assert fingerprint_lines("AB:CD:01:02") == "AB:CD:\n01:02"
    assert all(is_plain(term) for term in ("linux", "vt220", "vt100"))
    assert not any(is_plain(term) for term in ("xterm-256color", "screen"))


def test_help_fits_the_dialog() -> None:
    screens: list[type[ConsoleScreen]] = [
        StartScreen, NetworkScreen, RepositoryScreen, HostScreen, PointScreen, TargetScreen, PlanScreen, ConfirmScreen,
        RestoreScreen, ResultScreen, VmScreen, PlaceScreen, ConfirmFilesScreen, FailedScreen, AnotherCopyScreen,
    ]  # fmt: skip
    for screen in screens:
        lines = screen.HELP.splitlines()
        assert 3 <= len(lines) <= 16, screen.NAME
        assert max(len(line) for line in lines) <= 76, screen.NAME
        assert len(screen.HINTS) <= 78, screen.NAME


def test_the_report_names_what_was_lost_and_the_root() -> None:
    engine = FakeEngine()
    plan = engine.plan(Choices(host="hv1.example.org", point=engine.all_points[-1].id, targets={"disk1": BLANK.id}))
    report = engine._report(plan)
    (disk,) = report.disks
    text = report_text(report, {}, 76).plain
    assert "256 MiB of it read back as a sample" in text and "checked as it came, by the signed root 3fa9c1d2" in text
    matched = msgspec.structs.replace(disk, root_matched=True, verified_bytes=disk.logical)
    text = report_text(msgspec.structs.replace(report, disks=(matched,)), {}, 76).plain
    assert disk.root in text and "checked as it came" not in text
    damaged = (Damage(offset=4096, length=512), Damage(offset=10**9, length=65536, partition=3, content="ext4"))
    hurt = msgspec.structs.replace(disk, damaged=damaged)
    text = report_text(msgspec.structs.replace(report, disks=(hurt,)), {}, 76).plain
    assert "lost in 2 places" in text
    assert "lost: byte 4096: 512 bytes, outside of any partition" in text
    assert "lost: byte 1000000000: 65536 bytes, partition 3 (ext4)" in text
    assert max(len(line) for line in text.splitlines()) <= 76


def test_a_long_step_says_what_its_program_does_and_for_how_long() -> None:
    model = RunModel()
    model.apply(StepStarted(step="adapt.initramfs", title="Rebuild the initramfs", at=1000.0))
    assert now_text(model, 80, 1009.0).plain == "Now: Rebuild the initramfs"
    model.apply(Message(step="adapt.initramfs", text="Generating /boot/initrd.img", level="debug", at=1001.0))
    assert now_text(model, 80, 1286.0).plain == "Now: Generating /boot/initrd.img (this step: 4:46)"
    model.apply(Message(step="adapt.initramfs", text="The initramfs was rebuilt.", at=1290.0))
    assert now_text(model, 80, 1291.0).plain == "Now: The initramfs was rebuilt. (this step: 4:51)"
    model.apply(StepFinished(step="adapt.initramfs", at=1292.0))
    assert now_text(model, 80, 1400.0).plain == "Now: between two steps"


def test_one_is_not_many() -> None:
    table = msgspec.structs.replace(USED.table, partitions=USED.table.partitions[:1])
    assert "GPT partition table, 1 partition:" in disk_contents(msgspec.structs.replace(USED, table=table))
    assert "GPT partition table, 2 partitions:" in disk_contents(USED)
