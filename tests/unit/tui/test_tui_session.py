"""What is remembered for the operator, and what must be typed again."""

from __future__ import annotations

from recovery.plan.model import Choices, RestorePlan
from recovery.tui.session import Session
from tests.unit.tui.fake_engine import FakeEngine


def test_what_was_typed_for_a_disk_without_a_name_of_its_own_is_typed_again_for_a_new_plan() -> None:
    session = Session(FakeEngine())
    session.confirmations = {"path:/dev/sdb": "1000204886016", "serial:ACME:42": "42", "wwn:5000": "XK7"}
    plan = RestorePlan(
        id="1",
        choices=Choices(host="h", point="p", targets={}),
        assignments=(),
        steps=(),
        problems=(),
        logical=0,
        used=0,
    )
    session.take_plan(plan)
    assert session.plan is plan
    assert session.confirmations == {"serial:ACME:42": "42", "wwn:5000": "XK7"}
