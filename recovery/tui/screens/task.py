"""Task: what shall be done. The first screen once the engine answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.widget import Widget

from recovery.errors import RekindleError
from recovery.machine.model import Machine
from recovery.tui.describe import FIRMWARE, NO_ADDRESS, network_line
from recovery.tui.drivers_text import not_working_line
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.session import Mode
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Lines, Notice
from recovery.tui.work import in_thread
from recovery.units import format_count, format_size

#: Seconds between two looks for an address.
POLL_SECONDS = 3.0

#: id, title, one line, and what the lower part says of it.
TASKS: tuple[tuple[str, str, str, str], ...] = (
    ("restore", "Restore a host", "all its disks, from a recovery point",
     "For a machine that is dead, new or other than the one before. The disks you\n"
     "choose are overwritten; then the host is made to start on this machine."),
    ("some", "Restore some disks", "those you choose; the others stay as they are",
     "For a data disk that was lost while the system's own is sound. Nothing is\n"
     "chosen until you do, and the system is not changed unless you ask for that."),
    ("vm", "Restore one VM", "its disks as files, onto a disk or into a directory",
     "For a guest that is lost while its host is well, or that shall run elsewhere.\n"
     "Its disks become new files with its definition beside; no disk is overwritten."),
    ("rollback", "Roll back this machine", "its own disks to an earlier point; only differences",
     "For disks that are sound with content that is not: a bad update, an attack.\n"
     "Each disk is compared with the point, and only what differs is fetched."),
    ("repair", "Repair boot", "make the host on these disks start; no repository",
     "For disks that were restored already or come from another machine: initramfs,\n"
     "fstab, network cards and boot loader are adapted. No content is restored."),
    ("remote", "Remote access", "this console over SSH, progress in a browser",
     "Off until you turn it on. SSH gets a password for this start of the medium\n"
     "only; the page shows progress and changes nothing. F8 on every screen."),
    ("shell", "Shell", "a root shell on this terminal (F2 on every screen)",
     "'exit' comes back. All of 'rekindle --help' works there."),
    ("power", "Restart or switch off", "leave the medium (F10 on every screen)",
     "Not while a restore runs: stop it first, or wait for its end."),
)  # fmt: skip


def machine_line(machine: Machine) -> str:
    """``Supermicro X11, UEFI with Secure Boot, 64.0 GiB of memory, 5 disks``."""
    name = " ".join(word for word in (machine.vendor, machine.model) if word)
    firmware = FIRMWARE[machine.firmware]
    firmware += " with Secure Boot" if machine.secure_boot else ""
    disks = sum(not disk.boot_medium for disk in machine.disks)
    memory = f"{format_size(machine.memory)} of memory"
    return ", ".join(part for part in (name, firmware, memory, format_count(disks, "disk")) if part)


class TaskScreen(ConsoleScreen):
    """The modes of the console."""

    NAME = "Task"
    HELP = (
        "Choose with the arrows, Enter goes on. Nothing is written before you have\n"
        "seen a plan and typed the serial number of each disk that will change.\n\n"
        "Disks that are well and a host that does not start: 'Repair boot' first.\n"
        "Disks that are lost: 'Restore a host'.\n"
        "One guest of a host: 'Restore one VM'. A single file of a guest: restore its\n"
        "disk so, and mount it on a workstation.\n\n"
        "F9 changes the characters for lines and bars, if they look wrong here;\n"
        "Ctrl+L draws the screen again, after something else wrote on it."
    )
    HINTS = "Arrows move  Enter choose  F1 help  F2 shell  F9 characters  F10 power"

    def body(self) -> ComposeResult:
        """The machine, the list, a few words on the highlighted task."""
        yield Lines(f"Machine: {machine_line(self.session.machine)}")
        yield Lines(f"Network: {network_line(self.session.machine)}", id="task-network")
        yield Notice(not_working_line(self.session.machine), id="not-working", classes="lost")
        yield Lines("What shall be done?", classes="heading gap")
        yield ChoiceList(id="tasks")
        yield Lines("", id="task-words", classes="gap")
        yield Lines("", id="task-notice", classes="gap")

    def buttons(self) -> Iterable[Widget]:
        """Continue."""
        return (Action("Continue", id="continue"),)

    def on_mount(self) -> None:
        """The task chosen before, or the first."""
        rows = [(id, f"{title:<23} {line}") for id, title, line, _ in TASKS]
        self.query_one("#tasks", ChoiceList).set_rows(rows, self.session.mode)
        self.query_one("#tasks").focus()
        self.query_one("#task-notice", Lines).update(self.session.notice)
        self.set_interval(POLL_SECONDS, self.poll)

    @work(exclusive=True, group="poll")
    async def poll(self) -> None:
        """An address may still come: DHCP takes its time."""
        if self.busy or not self.is_current or network_line(self.session.machine) != NO_ADDRESS:
            return
        with contextlib.suppress(RekindleError):
            machine = await in_thread(self.session.engine.machine, refresh=True)
            if self.is_current and not self.busy:  # another screen may have begun to look by itself
                self.session.machine = machine
                self.query_one("#task-network", Lines).update(f"Network: {network_line(machine)}")
                self.query_one("#not-working", Notice).update(not_working_line(machine))

    def action_back(self) -> None:
        """There is nothing before."""

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """The words follow the highlight."""
        words = next((words for id, _, _, words in TASKS if id == event.choice.selected), "")
        self.query_one("#task-words", Lines).update(words)

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter."""
        if not self.busy:
            self.press_continue()

    @work(exclusive=True, group="ask")
    async def press_continue(self) -> None:
        """On to what the task needs first."""
        task = self.query_one("#tasks", ChoiceList).selected
        if task == "shell":
            self.console_app.action_shell()
        elif task == "power":
            self.console_app.action_power()
        elif task == "remote":
            self.console_app.action_remote()
        elif task == "repair":
            machine = await self.ask("Looking at the disks of this machine", self.session.engine.machine, refresh=True)
            if machine is not None:
                self.session.machine = machine
                self.session.begin("repair")
                from recovery.tui.screens.repair import RepairScreen

                self.console_app.go(RepairScreen())
        else:
            modes: dict[str, Mode] = {"restore": "restore", "some": "some", "vm": "vm", "rollback": "rollback"}
            self.session.begin(modes[task])
            if network_line(self.session.machine) == NO_ADDRESS:
                machine = await self.ask("Looking at the network", self.session.engine.machine, refresh=True)
                self.session.machine = machine or self.session.machine
            self.console_app.go_to_repository()
