"""Every problem that can be found belongs to a check that people see, and each check says what came of it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from recovery.plan.checklist import CHECKS, checks_of
from recovery.plan.model import Choices, DiskAssignment, PlanStep, Problem, RestorePlan, Severity
from tests.unit.tui.fake_world import BLANK, make_point

ROOT = Path(__file__).parents[3] / "recovery"


def plan(*problems: Problem) -> RestorePlan:
    source = make_point(1).body.disks[0]
    ids = ("open", "stream:disk1", "stream:disk2", "adapt.settle", "adapt.grow", "prove")
    return RestorePlan(
        id="1", choices=Choices(host="h", point="p", targets={}), problems=problems, logical=1, used=1,
        assignments=(DiskAssignment(source=source, target=BLANK),),
        steps=tuple(PlanStep(id=id, title=id) for id in ids),
    )  # fmt: skip


def states(made: RestorePlan) -> dict[str, str]:
    return {check.title: state for step in made.steps for check, state, _ in checks_of(made, step.id)}


def test_what_few_hosts_have_is_told_where_it_has_something_to_tell() -> None:
    sleeps = Problem(severity="error", code="windows-hibernated", what="It sleeps.")
    (found,) = [state for title, state in states(plan(sleeps)).items() if "Windows" in title]
    assert found == "failed"
    assert not [title for title in states(plan()) if "Windows" in title]


def test_every_code_belongs_to_one_check() -> None:
    files = (
        "plan/checks.py", "plan/check_stack.py", "plan/place_checks.py", "plan/growth_checks.py", "plan/togpt.py",
        "plan/firmware.py", "plan/windows.py", "plan/check_vms.py",
        "plan/repair.py",
        "engine/preflight.py", "engine/encrypted.py",
    )  # fmt: skip
    sources = "".join((ROOT / name).read_text() for name in files)
    codes = set(re.findall(r'code="([a-z-]+)"', sources)) | set(re.findall(r'\("(pack-[a-z]+)"', sources))
    known = [code for check in CHECKS for code in check.codes]
    assert len(known) == len(set(known))
    assert codes == set(known)


def test_all_passed_and_each_check_stands_once() -> None:
    made = plan()
    found = [check for step in made.steps for check, _, _ in checks_of(made, step.id)]
    assert set(states(made).values()) == {"passed"}
    # "room for the image" is of image files only, "a host is on them" of a repair, Windows of hosts with one.
    usual = [check for check in CHECKS if check.codes != ("no-room",) and check.writes is not False]
    assert found == [check for check in usual if not check.rare]
    assert not checks_of(made, "stream:disk2")
    assert not checks_of(made, "adapt.grow")


@pytest.mark.parametrize(("severity", "state"), [("error", "failed"), ("warning", "warning"), ("info", "note")])
def test_what_was_found_is_the_state(severity: Severity, state: str) -> None:
    problem = Problem(severity=severity, code="target-busy", what="It is in use.")
    found = states(plan(problem))
    assert found["no target is in use, the medium, or holds a repository"] == state
    # With an error nobody asks the repository: that must not look as if it had been asked.
    assert found["all content is in the repository"] == ("unasked" if severity == "error" else "passed")


def test_an_error_found_by_asking_leaves_the_other_answers_standing() -> None:
    found = states(plan(Problem(severity="error", code="pack-missing", what="A pack is missing.")))
    assert found["all content is in the repository"] == "failed"
    assert found["this user may write to them"] == "passed"


def test_image_files_have_other_checks() -> None:
    made = plan()
    target = msgspec.structs.replace(BLANK, bus="file")
    assignments = tuple(msgspec.structs.replace(a, target=target) for a in made.assignments)
    found = states(msgspec.structs.replace(made, assignments=assignments))
    assert "room for the image" in found
    assert "the same processor architecture" not in found
