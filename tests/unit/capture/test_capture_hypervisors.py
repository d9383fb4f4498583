"""What Proxmox' ``qm`` says, and which of its VMs may be frozen."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from recovery.capture.hypervisors import GuestRefusedError, Libvirt, Proxmox
from recovery.capture.proxmox import read_guests
from recovery.capture.tree import Tree
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError
from recovery.layout import VirtualMachine
from tests.support.proxmox import lay_database

#: As PVE/CLI/qm.pm prints it: "%10s %-20s %-10s %-10s %12s %-10s".
LIST = """\
      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       
         9 VM 9                 stopped    512                0.00 0         
       100 web                  running    4096              32.00 1234      
       101 a-name-that-is-longer-than-twenty running    2048               8.00 1240      
       102 mail                 stopped    2048               8.00 0         
"""  # noqa: W291 - so it is printed
STATES = {"9": "shut off", "100-web": "running", "101-a-name-that-is-longer-than-twenty": "running",
          "102-mail": "shut off"}  # fmt: skip


def said(text: str) -> Completed:
    return Completed((), 0, text)


def test_the_states_of_a_nodes_vms() -> None:
    with use_runner(FakeRunner({("qm", "list"): said(LIST)})):
        assert Proxmox().states() == STATES
    with use_runner(FakeRunner({("qm", "list"): said("")})):
        assert Proxmox().states() == {}


@pytest.mark.skipif(not Path("/etc/machine-id").exists(), reason="needs a machine-id")
def test_an_inventory_has_the_states_of_this_machines_vms_only(tmp_path: Path) -> None:
    files = {
        "nodes/pve1/qemu-server/100.conf": "name: web\n",
        "nodes/pve1/qemu-server/9.conf": "memory: 512\n",
        "nodes/pve1/qemu-server/103.conf": "name: new\n",
        "nodes/pve1/lxc/200.conf": "hostname: web\n",
    }
    top = lay_database(tmp_path, files)
    with use_runner(FakeRunner({("qm", "list"): said(LIST)})):
        guests, _ = read_guests(Tree({"/": top}), lambda source, form: ("", None))
        assert {guest.state for guest in guests} == {"unknown"}, "another machine's disk"
        shutil.copy("/etc/machine-id", top / "etc/machine-id")
        guests, _ = read_guests(Tree({"/": top}), lambda source, form: ("", None))
    assert {guest.name: guest.state for guest in guests} == {
        "9": "shut off", "100-web": "running", "103-new": "unknown", "200-web": "unknown",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        ("agent: 1", ""),
        ("agent: enabled=1,fstrim_cloned_disks=1", ""),
        ("agent: 1,freeze-fs-on-backup=1", ""),
        ("", "not enabled"),
        ("agent: 0", "not enabled"),
        ("agent: fstrim_cloned_disks=1", "not enabled"),
        ("[snapshot]\nagent: 1", "not enabled"),
        ("agent: 1,freeze-fs=0", "switched off"),
        ("agent: enabled=1,freeze-fs-on-backup=0", "switched off"),
    ],
)
def test_whose_agent_is_asked(agent: str, why: str) -> None:
    vm = VirtualMachine(name="100-web", manager="proxmox", state="running", definition=f"name: web\n{agent}\n")
    refusal = Proxmox().refusal(vm)
    assert (why in refusal) if why else refusal == ""


def test_what_qm_answers_is_a_number_or_an_error() -> None:
    command = ("qm", "guest", "cmd", "100", "fsfreeze-freeze")
    with use_runner(FakeRunner({command: said("2\n")})):
        assert Proxmox().freeze("100-web", 5.0) == 2
    with use_runner(FakeRunner({command: said("")})), pytest.raises(CommandError, match="instead of a number"):
        Proxmox().freeze("100-web", 5.0)
    failed = Completed(command, 255, "", "QEMU guest agent is not running\n")
    with use_runner(FakeRunner({command: failed})), pytest.raises(CommandError, match="agent is not running"):
        Proxmox().freeze("100-web", 5.0)
    # An agent's error is printed, and qm ends well; a command that an agent has may be done yet.
    error = said(
        '{\n   "error" : {\n      "class" : "GenericError",\n      "desc" : "the agent is in frozen state"\n   }\n}\n'
    )
    with use_runner(FakeRunner({command: error})), pytest.raises(GuestRefusedError, match="frozen state"):
        Proxmox().freeze("100-web", 5.0)
    slow = Completed(command, 255, "", "VM 100 qmp command 'guest-fsfreeze-freeze' failed - got timeout\n")
    with use_runner(FakeRunner({command: slow})), pytest.raises(CommandError) as caught:
        Proxmox().freeze("100-web", 5.0)
    assert not isinstance(caught.value, GuestRefusedError)
    assert Proxmox().thaw_command("100-web") == ["qm", "guest", "cmd", "100", "fsfreeze-thaw"]


def test_a_vm_without_a_state_is_nobodys() -> None:
    for hypervisor, manager in ((Libvirt(), "libvirt"), (Proxmox(), "proxmox")):
        vm = VirtualMachine(name="100-web", uuid="u", state="running", manager=hypervisor.manager)
        assert hypervisor.manager == manager and hypervisor.key(vm) in ("u", "100-web")
        assert not hypervisor.key(msgspec.structs.replace(vm, state="unknown"))


def test_who_is_suspended_to_disk() -> None:
    vm = VirtualMachine(name="100-web", manager="proxmox", state="shut off", definition="name: web\n")
    asleep = msgspec.structs.replace(
        vm, definition="lock: suspended\nvmstate: local:100/vm-100-state.raw\nname: web\n"
    )
    assert Proxmox().asleep(asleep, "shut off") and not Proxmox().asleep(asleep, "running")
    assert not Proxmox().asleep(vm, "shut off")
    in_snapshot = msgspec.structs.replace(vm, definition="name: web\n[before]\nvmstate: local:100/vm-100-state.raw\n")
    assert not Proxmox().asleep(in_snapshot, "shut off")
    ran = msgspec.structs.replace(vm, state="running")
    assert "since the last keyframe" in Proxmox().asleep(ran, "shut off")
    assert Libvirt().asleep(vm, "saved") and not Libvirt().asleep(vm, "shut off")
