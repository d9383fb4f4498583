"""Rules for targets, and the doubts that keep an unattended restore from starting."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import NotFoundError, UsageError
from recovery.format.point import PointSummary
from recovery.machine.model import Disk, Machine
from recovery.plan.answers import Answers
from recovery.plan.build import build_plan
from recovery.plan.doubts import choose_point, doubts
from recovery.plan.model import RestorePlan
from recovery.plan.rules import assign, matches, parse_rule
from recovery.units import GIB
from tests.unit.plan.hosts import all_machines, choices, disk, point, recorded


def blank(path: str, **facts: object) -> Disk:
    given = {"id": f"serial:M:{path}", "path": path, "size": 500 * GIB, "bus": "sata", "serial": path, **facts}
    return msgspec.convert(given, Disk)


def codes(disks: str | dict[str, str], machine: Machine, skip: tuple[str, ...] = ()) -> set[str]:
    return {doubt.code for doubt in assign(disks, skip, point(disk("disk1"), disk("disk2")), machine)[1]}


ONE, TWO = blank("/dev/sda"), blank("/dev/sdb")
MACHINE = Machine(firmware="uefi", memory=8 * GIB, disks=(ONE, TWO))


def test_rules_that_name_one_disk_each() -> None:
    rules = {"disk1": "serial:/dev/sdb", "disk2": "serial:/dev/sda,size:>=400GiB,bus:sata,blank"}
    found, doubtful = assign(rules, (), point(disk("disk1"), disk("disk2")), MACHINE)
    assert not doubtful
    assert found == {"disk1": TWO.id, "disk2": ONE.id}


def test_every_kind_of_doubt() -> None:
    assert codes({"disk1": "size:>=100GB", "disk2": "serial:/dev/sda"}, MACHINE) == {"rule-matches-several"}
    assert codes({"disk1": "serial:gone", "disk2": "serial:/dev/sda"}, MACHINE) == {"rule-matches-none"}
    assert codes({"disk1": "serial:/dev/sda", "disk2": "serial:/dev/sda"}, MACHINE) == {"rule-same-disk"}
    assert codes({"disk1": "serial:/dev/sda"}, MACHINE) == {"answer-missing-disk"}
    assert codes({"disk1": "serial:/dev/sda"}, MACHINE, ("disk2",)) == set()
    assert codes({"disk1": "serial:/dev/sda", "disk9": "same"}, MACHINE, ("disk2",)) == {"answer-unknown-disk"}
    assert codes({"disk1": "serial:/dev/sda"}, MACHINE, ("disk2", "disk7")) == {"answer-unknown-disk"}


def test_the_very_disk_that_was_captured() -> None:
    source = disk("disk1", serial="/dev/sdb", model="")
    found, doubtful = assign("same", (), point(source), MACHINE)
    assert (found, doubtful) == ({"disk1": TWO.id}, [])
    other = disk("disk1", serial="elsewhere")
    assert {d.code for d in assign("same", (), point(other), MACHINE)[1]} == {"rule-matches-none"}


def test_the_boot_medium_is_never_meant() -> None:
    stick = msgspec.structs.replace(ONE, boot_medium=True)
    found, _ = assign({"disk1": "size:500GiB"}, (), point(), msgspec.structs.replace(MACHINE, disks=(stick, TWO)))
    assert found == {"disk1": TWO.id}


def planned(rule: str, target: Disk, **facts: object) -> tuple[Answers, RestorePlan]:
    machine = msgspec.structs.replace(MACHINE, disks=(target,))
    answers = msgspec.convert({"disks": {"disk1": rule}, **facts}, Answers)
    return answers, build_plan(point(), machine, choices(disk1=target.id))


def test_a_disk_with_data_must_be_named_by_what_it_is() -> None:
    full = next(d for d in recorded("small_server").disks if d.table.partitions)
    kind, name = f"size:{full.size}", f"serial:{full.serial}"
    assert [p.code for p in doubts(*planned(kind, full))] == ["target-has-data"]
    assert not doubts(*planned(name, full))
    assert not doubts(*planned(kind, full, overwrite=True))
    assert not doubts(*planned(kind, full, accept=["target-has-data"]))


def test_a_warning_is_a_doubt_unless_it_is_accepted() -> None:
    unknown = msgspec.structs.replace(MACHINE, firmware="unknown", disks=(ONE,))
    plan = build_plan(point(), unknown, choices(disk1=ONE.id))
    assert [p.code for p in doubts(Answers(disks={"disk1": "serial:/dev/sda"}), plan)] == ["firmware-unknown"]
    assert not doubts(Answers(disks={"disk1": "serial:/dev/sda"}, accept=("firmware-unknown",)), plan)


def test_an_error_can_not_be_accepted() -> None:
    small = blank("/dev/sda", size=GIB)
    answers, plan = planned("serial:/dev/sda", small, accept=["target-too-small"])
    assert "target-too-small" in {p.code for p in doubts(answers, plan)}


def test_points_by_time() -> None:
    points = [PointSummary(id=f"{n:064x}", host="h", created=1000.0 * n) for n in (1, 2, 3)]
    assert choose_point(points, "latest") == points[2].id
    assert choose_point(points, "1970-01-01T00:40:00Z") == points[1].id  # 2400 s
    assert choose_point(points, "1970-01-01T00:50:00Z") == points[2].id  # 3000 s: at that very time
    with pytest.raises(NotFoundError, match="at or before"):
        choose_point(points, "1970-01-01T00:00:10Z")
    assert choose_point(points, "00000000ab") == "00000000ab"  # the repository knows which it is


@given(st.text(max_size=40))
def test_a_rule_is_understood_or_refused(text: str) -> None:
    try:
        rule = parse_rule(text)
    except UsageError:
        return
    assert rule.file or rule.names_the_disk or rule.model or rule.smallest is not None


@given(st.sampled_from(sorted(all_machines())), st.data())
def test_serial_and_wwn_rules_name_at_most_the_disks_that_have_them(name: str, data: st.DataObject) -> None:
    machine = recorded(name)
    if not machine.disks:
        return
    target = data.draw(st.sampled_from(machine.disks))
    conditions = [f"size:{target.size}", f"bus:{target.bus}"]
    conditions += [f"serial:{target.serial}"] if target.serial and "," not in target.serial else []
    conditions += [f"wwn:{target.wwn}"] if target.wwn else []
    chosen = data.draw(st.lists(st.sampled_from(conditions), min_size=1, unique=True))
    if chosen == [f"bus:{target.bus}"]:
        return
    rule = parse_rule(",".join(chosen))
    hits = [d for d in machine.disks if matches(rule, d, disk())]
    assert (target in hits) == (not target.boot_medium)
    for hit in hits:
        assert not rule.serial or hit.serial == target.serial
        assert not rule.wwn or hit.wwn == target.wwn
        assert rule.smallest is None or hit.size == target.size
