"""The status page over real HTTP: what it shows, to whom, and that it is nothing but shown."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from recovery.engine.api import RunState, Unattended
from recovery.engine.remote import readable_secret
from recovery.engine.statuspage import StatusPage, render
from recovery.errors import ErrorReport
from recovery.events import Event, Message, Progress, StepFinished, StepStarted
from recovery.plan.build import build_plan
from recovery.units import GIB
from tests.unit.plan.hosts import choices, point, recorded
from tests.unit.plan.test_plan_vm import plan as vm_plan

CODE = "ABCD-EFGH-JKMN"


def events() -> list[Event]:
    return [
        StepStarted(step="open", title="Open the targets"),
        StepFinished(step="open", summary="ok"),
        StepStarted(step="stream:disk1", title="Restore disk1"),
        Message(text="a guest named <script>alert(1)</script>"),
        Message(text="not for people", level="debug"),
        Progress(step="stream:disk1", disk="disk1", done=50 * GIB, total=100 * GIB, rate=2e8, eta=250.0),
    ]


def state() -> RunState:
    machine = recorded("small_server")
    return RunState(phase="running", plan=build_plan(point(), machine, choices(disk1=machine.disks[1].id)))


@pytest.fixture
def page() -> Iterator[StatusPage]:
    made = StatusPage(CODE, lambda: (state(), events(), Unattended()), port=0)
    made.start()
    yield made
    made.stop()


def get(page: StatusPage, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_it_shows_the_run(page: StatusPage) -> None:
    status, text, headers = get(page, f"/{CODE}")
    assert status == 200
    assert "pve1: running" in text
    assert "50.0 GiB of 100 GiB, 200 MB/s, 4:10 left" in text
    assert 'value="53687091200"' in text
    assert "Open the targets <em>(done)</em>" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "not for people" not in text
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_the_code_as_a_person_types_it(page: StatusPage) -> None:
    assert get(page, f"/{CODE.lower()}/")[0] == 200
    assert get(page, "/")[0] == 404
    assert CODE not in get(page, "/wrong")[1]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_there_is_nothing_to_do_but_look(page: StatusPage, method: str) -> None:
    assert get(page, f"/{CODE}", method)[0] == 501


def test_who_guesses_has_to_wait(page: StatusPage) -> None:
    assert [get(page, f"/{n}")[0] for n in range(6)] == [404] * 5 + [429]
    assert get(page, f"/{CODE}")[0] == 429  # not even told that this one is right


def test_the_wait_ends_and_is_for_who_guessed() -> None:
    now = [0.0]
    page = StatusPage(CODE, lambda: (state(), [], Unattended()), clock=lambda: now[0])
    for _ in range(5):
        page.answer("/x", "192.0.2.1")
    assert page.answer(f"/{CODE}", "192.0.2.1")[0] == 429
    assert page.answer(f"/{CODE}", "192.0.2.2")[0] == 200
    for n in range(45):  # many addresses together
        page.answer("/x", f"198.51.100.{n}")
    assert page.answer(f"/{CODE}", "192.0.2.2")[0] == 429
    now[0] = 61.0
    assert page.answer(f"/{CODE}", "192.0.2.1")[0] == 200


def test_errors_and_refusals_are_shown() -> None:
    failed = RunState(phase="failed", error=ErrorReport("DeviceError", "/dev/sda & friends broke", "Look at it."))
    refused = Unattended(phase="refused", message="In doubt.", reasons=("2 disks match <the> rule",))
    text = render(failed, [], refused).decode()
    assert "/dev/sda &amp; friends broke" in text
    assert "2 disks match &lt;the&gt; rule" in text
    assert "No restore is running" in text


def test_the_files_of_a_vm_are_shown() -> None:
    done = Progress(step="extract:vda", disk="vda", done=5 * GIB, total=20 * GIB, rate=1e8, eta=150.0)
    text = render(RunState(phase="running", vm_plan=vm_plan()), [done], Unattended()).decode()
    assert "web of hv1: running" in text
    assert "vda to web-vda.qcow2: 5.00 GiB of 20.0 GiB" in text
    assert "Give 2 files their names <em>(waiting)</em>" in text


def test_codes_are_random() -> None:
    codes = {readable_secret() for _ in range(1000)}
    assert len(codes) == 1000
    assert all(len(code) == 14 and not set(code) & set("ILOUilou") for code in codes)
