"""The plan for the disks of one VM: what is refused, what is warned of, and how much room is counted."""

from __future__ import annotations

import msgspec
import pytest

from recovery.engine.again import vm_command
from recovery.engine.confirm import check_vm_confirmation
from recovery.errors import UnsafeTargetError
from recovery.layout import Content, VirtualMachine, VmDisk
from recovery.machine.place import Place, is_place, why_not
from recovery.plan.vm import VM_NAME, VmChoices, VmFile, VmPlan
from recovery.plan.vm_build import build_vm_plan
from recovery.plan.vm_checklist import VM_CHECKS, vm_checks_of
from recovery.plan.vm_render import render_vm_plan
from recovery.units import GIB, MIB

QCOW2 = VmDisk(target="vda", source="/srv/web.qcow2", format="qcow2")
VM = VirtualMachine(name="web", state="running", disks=(QCOW2,), definition="<domain/>")
FILE = VmFile(
    target="vda", name="web-vda.qcow2", source="/srv/web.qcow2", format="qcow2", size=20 * GIB, stored=3 * GIB
)
DISK = Place(device="/dev/sdb1", kind="ext4", label="BACKUP", size=100 * GIB, free=10 * GIB)
CHOICES = VmChoices(host="hv1", point="ab" * 32, vm="web", device="/dev/sdb1", folder="web")


def plan(place: Place = DISK, file: VmFile = FILE, vm: VirtualMachine = VM, **more: object) -> VmPlan:
    existing = more.pop("existing", ())
    choices = msgspec.structs.replace(CHOICES, **more)
    return build_vm_plan(choices, vm, [file], place, "crash", existing=existing)  # type: ignore[arg-type]


def codes(found: VmPlan, severity: str = "error") -> set[str]:
    return {problem.code for problem in found.problems if problem.severity == severity}


def test_a_good_plan_counts_content_and_says_each_step() -> None:
    found = plan()
    assert (found.allowed, found.needed, found.logical) == (True, 3 * GIB + 4 * MIB, 20 * GIB)
    assert [step.id for step in found.steps] == ["place", "extract:vda", "publish"]
    assert "Mount it" in found.steps[0].detail
    assert "unmount sdb1 'BACKUP'" in found.steps[2].detail
    assert codes(found, "info") == {"crash-consistent"}
    assert (found.confirmation, found.definition) == ("", "web.xml")
    assert found.goes_to == "/web on sdb1 'BACKUP'"
    assert plan().id == found.id != plan(folder="other").id


def test_a_filesystem_without_holes_needs_the_whole_size() -> None:
    exfat = msgspec.structs.replace(DISK, kind="exfat")
    found = plan(exfat)
    assert codes(found) == {"no-room"}
    assert "keeps no holes" in found.problems[0].why
    roomy = msgspec.structs.replace(exfat, free=30 * GIB)
    assert plan(roomy).allowed
    assert codes(plan(msgspec.structs.replace(roomy, kind="vfat"))) == {"file-too-large"}
    small = msgspec.structs.replace(FILE, size=4 * GIB - 1, stored=GIB)
    assert plan(msgspec.structs.replace(roomy, kind="vfat"), small).allowed


@pytest.mark.parametrize(
    ("place", "code", "severity"),
    [
        (msgspec.structs.replace(DISK, free=GIB), "no-room", "error"),
        (msgspec.structs.replace(DISK, free=None), "room-unknown", "warning"),
        (msgspec.structs.replace(DISK, unavailable="It is encrypted."), "place-unavailable", "error"),
        (msgspec.structs.replace(DISK, kind="tmpfs"), "place-in-memory", "warning"),
        (msgspec.structs.replace(DISK, system="'hv3' (Debian)"), "place-has-system", "info"),
    ],
)
def test_places(place: Place, code: str, severity: str) -> None:
    found = plan(place)
    assert code in codes(found, severity)
    assert found.allowed == (severity != "error")


def test_names_that_are_taken_are_refused_or_confirmed() -> None:
    refused = plan(existing=("web-vda.qcow2", "web.xml", "else"))
    assert codes(refused) == {"file-exists"}
    assert refused.overwritten == ("web-vda.qcow2", "web.xml")
    found = plan(existing=("web.xml",), overwrite=True)
    assert found.allowed
    assert (codes(found, "warning"), found.confirmation) == ({"file-overwritten"}, "web")
    for typed in ({}, {VM_NAME: ""}, {VM_NAME: "WEB"}):
        with pytest.raises(UnsafeTargetError, match="web.xml would be overwritten"):
            check_vm_confirmation(found, typed)
    check_vm_confirmation(found, {VM_NAME: " web "})
    check_vm_confirmation(plan(), {})


def test_content_that_is_of_no_use_alone() -> None:
    assert codes(plan(file=msgspec.structs.replace(FILE, backing="base.qcow2")), "warning") == {"backing-file"}
    assert codes(plan(vm=msgspec.structs.replace(VM, disks=()))) == {"no-disk"}
    assert codes(plan(vm=msgspec.structs.replace(VM, name="../web"))) == {"vm-name"}
    assert "no-definition" in codes(plan(vm=msgspec.structs.replace(VM, definition="")), "info")


def test_every_problem_has_its_check_and_the_text_has_all() -> None:
    known = {code for _, _, codes in VM_CHECKS for code in codes}
    found = plan(msgspec.structs.replace(DISK, free=None), msgspec.structs.replace(FILE, backing="b"), overwrite=True,
                 existing=("web.xml",))  # fmt: skip
    assert {problem.code for problem in found.problems} <= known | {"crash-consistent"}
    states = dict(vm_checks_of(found, "place"))
    assert states["room for the files"] == "warning"
    assert states["no name is taken"] == "warning"
    closed = plan(msgspec.structs.replace(DISK, unavailable="It is read-only."))
    assert dict(vm_checks_of(closed, "place"))["room for the files"] == "unasked"
    text = "\n".join(render_vm_plan(found))
    for word in ("web-vda.qcow2", "web.xml [overwrites]", "WARNING backing-file", "/web on sdb1", "may be run"):
        assert word in text


def test_what_is_listed_as_a_place() -> None:
    assert not any(is_place(Content(kind=kind)) for kind in ("", "swap", "LVM2_member", "iso9660"))
    free = {"medium": False, "repository": False, "read_only": False}
    assert why_not(Content(kind="xfs"), **free) == ""
    assert "cryptsetup" in why_not(Content(kind="crypto_LUKS"), **free)
    assert "ntfs" in why_not(Content(kind="ntfs"), **free)
    for reason in free:
        assert why_not(Content(kind="ext4"), **{**free, reason: True})


def test_the_command_that_does_it_again() -> None:
    choices = msgspec.structs.replace(CHOICES, disks=("vda", "vdb"), overwrite=True, skip_damaged=True)
    assert vm_command(choices, ["/srv/one", "/srv/two"]) == (
        f"rekindle extract /srv/one --host hv1 --point {'ab' * 6} --vm web --disk vda --disk vdb --onto /dev/sdb1 "
        "--into web --also /srv/two --overwrite --skip-damaged"
    )
