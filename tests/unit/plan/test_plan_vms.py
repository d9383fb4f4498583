"""What a plan says of the host's VMs on another machine: processor, memory, pinning, devices handed through."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.layout import VirtualMachine
from recovery.machine.model import Machine
from recovery.plan.build import build_plan
from recovery.plan.check_vms import Needs, needs_of, parse_cpuset
from recovery.plan.model import Problem
from recovery.plan.processors import flags_of_model, missing
from recovery.units import GIB
from tests.unit.plan.hosts import choices, point, recorded

HASWELL = tuple(sorted(flags_of_model("Haswell") | {"vmx", "lm"}))
DEVICES = """
<hostdev mode='subsystem' type='pci' managed='yes'><source>
  <address domain='0x0000' bus='0x03' slot='0x1f' function='0x2'/></source></hostdev>
<interface type='hostdev' managed='yes'><source>
  <address type='pci' domain='0x0000' bus='0x04' slot='0x10' function='0x1'/></source></interface>
<hostdev mode='subsystem' type='usb'><source><vendor id='0x046d'/><product id='0xc52b'/></source></hostdev>
<interface type='bridge'><source bridge='vmbr0'/></interface>
"""


def domain(body: str = "", *, kind: str = "kvm") -> str:
    return f"<domain type='{kind}'><name>web</name>{body}</domain>"


def vm(
    body: str = "", name: str = "web", *, memory: int = GIB, autostart: bool = False, kind: str = "kvm"
) -> VirtualMachine:
    return VirtualMachine(name=name, memory=memory, autostart=autostart, definition=domain(body, kind=kind))


def problems(
    *vms: VirtualMachine, processor: tuple[str, ...] = HASWELL, memory: int = 64 * GIB, cpus: int = 8
) -> list[Problem]:
    machine = recorded("nvme_only")
    machine = msgspec.structs.replace(machine, processor=processor, memory=memory, cpus=cpus)
    found = build_plan(point(vms=vms), machine, choices(disk1=machine.disks[0].id)).problems
    return [problem for problem in found if problem.code.startswith("vm-")]


def test_vms_that_fit_are_no_problem() -> None:
    fits = vm("<cpu mode='custom' match='exact'><model fallback='forbid'>Haswell-noTSX-IBRS</model></cpu>")
    assert problems(fits, vm("<cpu mode='host-passthrough'/>"), vm("<cpu mode='host-model'/>"), vm()) == []


def test_a_processor_without_virtualization_is_told_and_an_unknown_one_is_not_judged() -> None:
    (found,) = problems(vm(), vm(name="db"), vm(name="old", kind="qemu"), processor=("lm",))
    assert (found.severity, found.code) == ("warning", "vm-virtualization")
    assert "2 VMs: web, db" in found.what and "firmware setup" in found.todo
    assert problems(vm(), processor=()) == []
    assert problems(vm(), processor=("svm",)) == []


@pytest.mark.parametrize(
    ("cpu", "lacks"),
    [
        ("<cpu mode='custom'><model>Skylake-Server-v3</model></cpu>", "avx512f"),
        ("<cpu><model>EPYC-Rome</model></cpu>", "clwb"),
        ("<cpu mode='host-model'><feature policy='require' name='avx512-vnni'/></cpu>", "avx512_vnni"),
        ("<cpu mode='custom'><model>x86-64-v4</model></cpu>", "avx512f"),
    ],
)
def test_a_model_that_this_processor_is_not_is_told_with_what_it_lacks(cpu: str, lacks: str) -> None:
    (found,) = problems(vm(cpu))
    assert found.code == "vm-processor" and lacks in found.what and "web (" in found.what
    assert "host-model" in found.todo


def test_what_the_definition_gives_up_is_not_asked_for() -> None:
    wanted = "<cpu mode='custom'><model>Broadwell</model>{}</cpu>"
    off = "".join(f"<feature policy='disable' name='{name}'/>" for name in ("adx", "rdseed", "smap"))
    assert [p.code for p in problems(vm(wanted.format("")))] == ["vm-processor"]
    assert problems(vm(wanted.format(off))) == []
    forced = "<feature policy='require' name='avx512f'/>"
    assert problems(vm(f"<cpu mode='custom' check='none'><model>Broadwell</model>{forced}</cpu>")) == []
    assert problems(vm("<cpu mode='custom'><model>NoSuchModel</model></cpu>")) == []


def test_memory_of_what_starts_with_the_host_is_added_up() -> None:
    both = (vm(memory=5 * GIB, autostart=True), vm(name="db", memory=6 * GIB, autostart=True))
    (found,) = problems(*both, memory=8 * GIB)
    assert found.code == "vm-memory" and "11.0 GiB" in found.what and "8.00 GiB" in found.what
    assert problems(*both, memory=16 * GIB) == []
    (alone,) = problems(vm(memory=9 * GIB), vm(name="db"), memory=8 * GIB)
    assert "web alone wants more" in alone.what


def test_processors_that_are_not_there_are_told() -> None:
    pinned = vm("<vcpu cpuset='0-3'>4</vcpu><cputune><vcpupin vcpu='0' cpuset='12'/></cputune>")
    (found,) = problems(pinned)
    assert found.code == "vm-pinned" and "web (up to number 12)" in found.what and "0 to 7" in found.what
    assert problems(pinned, cpus=16) == []


def test_devices_that_are_handed_through_are_named() -> None:
    (found,) = problems(vm(f"<devices>{DEVICES}</devices>"))
    assert found.code == "vm-passthrough"
    assert "web (PCI 0000:03:1f.2, PCI 0000:04:10.1, USB 046d:c52b)" in found.what


def test_a_definition_that_is_no_xml_asks_for_nothing() -> None:
    assert needs_of(VirtualMachine(name="x", definition="<domain")) == Needs()
    assert needs_of(vm(kind="qemu")) == Needs()


def test_guests_of_proxmox_are_judged_by_their_own_files() -> None:
    text = "cpu: x86-64-v4,flags=+aes;-avx512f\nhostpci0: 0000:01:00,pcie=1\nusb0: host=046d:c52b\naffinity: 2,9\n"
    text += "usb1: spice\nscsi1: /dev/sdb,size=1T\nscsi0: local:1/a.raw\nusb2: mapping=dongle\n"
    text += "[before]\nhostpci1: 0000:02:00\n"
    guest = VirtualMachine(name="100-web", memory=GIB, manager="proxmox", definition=text)
    found = {problem.code: problem for problem in problems(guest)}
    assert set(found) == {"vm-processor", "vm-pinned", "vm-passthrough"}
    assert "100-web (x86-64-v4: avx512bw" in found["vm-processor"].what and "qm set" in found["vm-processor"].todo
    assert "avx512f" not in found["vm-processor"].what
    assert (
        "100-web (hostpci0: PCI 0000:01:00, usb0: USB 046d:c52b, scsi1: /dev/sdb, usb2: USB dongle)"
        in found["vm-passthrough"].what
    )
    assert "pve-guests.service" in found["vm-passthrough"].todo and "virsh" not in found["vm-passthrough"].todo
    container = VirtualMachine(name="101-ct", memory=GIB, manager="proxmox-container", definition="cores: 2\n")
    assert problems(container, processor=("lm",)) == []
    assert [p.code for p in problems(guest, vm("<cpu><model>EPYC</model></cpu>"), processor=("svm",))][0:1] == [
        "vm-processor"
    ]


def test_the_oldest_processor_lacks_what_each_generation_brought() -> None:
    assert missing(flags_of_model("Nehalem"), ()) == ["cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"]
    assert flags_of_model("Haswell") < flags_of_model("Skylake-Server")
    assert missing({"invtsc"}, ("constant_tsc", "nonstop_tsc")) == []


@given(st.sets(st.integers(0, 200)))
def test_a_cpuset_is_read_as_it_is_written(numbers: set[int]) -> None:
    assert parse_cpuset(",".join(str(number) for number in sorted(numbers))) == numbers


def test_cpusets() -> None:
    assert parse_cpuset("0-3,^2,8") == {0, 1, 3, 8}
    assert parse_cpuset("x,1-,-,99999999") == {1}


def test_a_machine_that_was_recorded_before_says_nothing_of_its_processor() -> None:
    assert msgspec.json.decode(b"{}", type=Machine).processor == ()
