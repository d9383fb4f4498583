"""Whatever the machine and the choice: a plan that is allowed never writes where it must not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recovery.machine.model import Disk, Machine
from recovery.plan.build import build_plan
from recovery.plan.suggest import suggest
from recovery.units import GIB
from tests.unit.plan.hosts import choices, disk, point, table

sizes = st.sampled_from([GIB - 512, GIB, GIB + 512, 5 * GIB, 100 * GIB])
disks = st.builds(
    Disk,
    id=st.sampled_from([f"wwn:{n:016x}" for n in range(1, 7)]),
    path=st.sampled_from([f"/dev/sd{c}" for c in "abcdef"]),
    size=sizes,
    sector_size=st.sampled_from([512, 4096]),
    bus=st.sampled_from(["sata", "nvme", "usb", "file"]),
    read_only=st.booleans(),
    boot_medium=st.booleans(),
    removable=st.booleans(),
    repository=st.sampled_from(["", "", "f00d"]),
    busy=st.sampled_from([(), (), ("/dev/sda1 is mounted at /srv.",)]),
    table=st.sampled_from([table(), table(bios_boot=True)]),
)
machines = st.builds(
    Machine,
    firmware=st.sampled_from(["bios", "uefi", "unknown"]),
    memory=st.sampled_from([0, GIB, 64 * GIB]),
    disks=st.lists(disks, max_size=5, unique_by=(lambda d: d.id, lambda d: d.path)).map(tuple),
)
hosts = st.lists(sizes, min_size=1, max_size=3).map(
    lambda found: point(*(disk(f"disk{n}", size=size) for n, size in enumerate(found, 1)))
)


@given(machines, hosts, st.data(), st.booleans())
def test_an_allowed_plan_is_safe(machine: Machine, host: object, data: st.DataObject, adapt: bool) -> None:
    names = [*(d.id for d in machine.disks), *(d.path for d in machine.disks), "wwn:none"]
    chosen = data.draw(st.dictionaries(st.sampled_from(["disk1", "disk2", "disk3"]), st.sampled_from(names)))
    plan = build_plan(host, machine, choices(adapt=adapt, **chosen))  # type: ignore[arg-type]
    if not plan.allowed:
        return
    targets = [a.target for a in plan.assignments]
    assert len(targets) == len(chosen) == len({t.id for t in targets}) > 0
    for assignment in plan.assignments:
        target = assignment.target
        assert not (target.busy or target.boot_medium or target.repository or target.read_only)
        same = target.size >= assignment.source.size and target.sector_size == assignment.source.sector_size
        assert same == (assignment.landing is None)
        if assignment.landing is not None:
            assert assignment.landing.sector_size == target.sector_size
            assert max(p.start + p.size for p in assignment.landing.placements) < target.size
        assert target.blank or assignment.losses


@given(machines, hosts)
def test_a_suggestion_is_never_refused_for_its_target(machine: Machine, host: object) -> None:
    found = suggest(host, machine)  # type: ignore[arg-type]
    chosen = {s.disk: s.target for s in found if s.target}
    assert len(set(chosen.values())) == len(chosen)
    assert all(s.reason for s in found)
    plan = build_plan(host, machine, choices(adapt=False, **chosen))  # type: ignore[arg-type]
    assert not [
        p.code for p in plan.problems if p.severity == "error" and p.code.startswith(("target-", "same-", "sector-"))
    ]
