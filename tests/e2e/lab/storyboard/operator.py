"""The operator at the recovery console: reads its screens, presses its keys, keeps a picture of each screen.

This file is the only one that knows the console's screens and their order (``docs/tui.md``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recovery.units import parse_size
from tests.e2e.lab.qemu import LabError, Machine

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What the operator knows and wants."""

    host: str
    code: str
    passphrase: str
    point: int
    """How many rows below the newest the wanted point is."""
    target_serial: str


class Operator:
    """Drives one console. ``patience`` scales every time limit."""

    def __init__(self, machine: Machine, pictures: Path, say: Say, patience: float) -> None:
        self.machine = machine
        self.pictures = pictures
        self.say = say
        self.patience = patience
        self.taken: list[str] = []

    # -- seeing --------------------------------------------------------------------------------------------------

    def on_screen(self, name: str, timeout: float, *, showing: str = "") -> str:
        """Wait until the console is on screen ``name`` (and shows ``showing``); returns its text.

        Raises LabError at once when the console shows an error instead.
        """
        self.say(f"waiting for the screen '{name}'")
        deadline = time.monotonic() + timeout * self.patience
        while True:
            text = self.machine.screen_text()
            error = re.search(r"│\s*Error\s.*", text, re.DOTALL)
            if error:
                self.picture("error")
                raise LabError(f"The console shows an error while '{name}' was awaited:\n{text}")
            if _title(text) == name and re.search(showing, text):
                return text
            if not self.machine.running:
                raise LabError(f"The machine went off while the screen '{name}' was awaited.")
            if time.monotonic() > deadline:
                self.picture("not-" + _slug(name))
                raise LabError(
                    f"The console did not come to '{name}' {showing!r}. It shows:\n{text}\n{self._journal()}"
                )
            time.sleep(0.5)

    def _journal(self) -> str:
        """What the medium's units said last, from the shell of its second screen; for a test that has failed."""
        try:
            self.machine.press("alt+f2")
            time.sleep(4 * self.patience)
            self.machine.type("clear; journalctl -b -u 'rekindle*' --no-pager | tail -n 45\n")
            time.sleep(6 * self.patience)
            self.picture("journal")
            return f"Its journal:\n{self.machine.screen_text()}"
        except (LabError, ValueError) as error:
            return f"Its journal could not be read: {error}"

    def picture(self, name: str) -> None:
        """Keep what the screen shows."""
        path = self.pictures / f"{len(self.taken) + 1:02}-{_slug(name)}.png"
        self.machine.screenshot(path)
        self.taken.append(str(path))

    # -- the way -------------------------------------------------------------------------------------------------

    def wait_for_console(self, timeout: float) -> None:
        """From power-on to the console's first screen; the first of its tasks is a restore."""
        self.on_screen_any(("Task",), timeout)
        self.on_screen("Task", 20, showing="> Restore a host")
        self.picture("task")
        self.machine.press("enter")

    def on_screen_any(self, names: tuple[str, ...], timeout: float) -> str:
        """The first of the screens that comes."""
        deadline = time.monotonic() + timeout * self.patience
        while time.monotonic() < deadline:
            text = self.machine.screen_text()
            if _title(text) in names:
                return _title(text)
            if not self.machine.running:
                raise LabError(f"The machine went off before the console came. {self.machine.serial_text()[-2000:]}")
            time.sleep(1)
        self.picture("no-console")
        raise LabError(f"The console did not come within {timeout * self.patience:.0f} s. The screen:\n{text}")

    def choose(self, task: Task) -> None:
        """From the first screen to the restore."""
        self.repository(task)
        self.host(task)
        self.point(task)
        self.targets(task)
        self.plan()
        self.confirm(task)

    def repository(self, task: Task) -> None:
        """The medium has its address by DHCP already: sign in with the one-time code, unlock with the passphrase."""
        text = self.on_screen("Repository", 60, showing=r"trusted: signed by|NOT TRUSTED")
        if "NOT TRUSTED" in text:
            raise LabError(f"The medium does not trust its own server:\n{text}")
        self._focus("User")
        self.machine.press("enter", "enter", pause=0.5)
        self._focus("or one-time code")
        self.machine.type(task.code)
        self.machine.press("enter", pause=0.5)
        self._focus("Passphrase")
        self.machine.type(task.passphrase)
        # Every typed character is a star: none was lost on the way.
        self.on_screen("Repository", 20, showing=rf"[•*●]{{{len(task.passphrase)}}}(?![•*●])")
        self.picture("repository")
        self.machine.press("enter")

    def _focus(self, label: str) -> None:
        self.on_screen("Repository", 20, showing=f"> {label}")

    def host(self, task: Task) -> None:
        """Choose the host."""
        self.on_screen("Host", 60, showing=re.escape(task.host))
        self.picture("host")
        self.machine.press("enter")

    def point(self, task: Task) -> None:
        """Choose the older point: look at its details, then take it."""
        self.on_screen("Point", 60)
        self.machine.press(*["down"] * task.point, pause=0.5)
        self._settled("Point", r"(?s)^(?!.*[Rr]eading)", 60)
        self.picture("point")
        self.machine.press("enter")

    def targets(self, task: Task) -> None:
        """The suggestion must be the blank disk."""
        self.on_screen("Target disks", 90, showing=r"(?s)\[>Continue<\]")
        text = self.machine.screen_text()
        if task.target_serial not in text:
            raise LabError(f"The suggested target is not the disk {task.target_serial}:\n{text}")
        self.picture("target-disks")
        self.machine.press("enter")

    def plan(self) -> None:
        """The plan must be allowed; scroll through it."""
        self.on_screen("Plan", 120, showing=r"The restore is (possible|refused)")
        self.picture("plan")
        if "refused" in self.machine.screen_text():
            raise LabError(f"The plan is refused:\n{self.machine.screen_text()}")
        self.machine.press("pgdn", pause=1.0)
        self.picture("plan-more")
        self.on_screen("Plan", 30, showing=r"\[>Continue<\]")
        self.machine.press("enter")

    def confirm(self, task: Task) -> None:
        """Type the serial number of the disk that will be overwritten."""
        self.on_screen("Confirm", 30, showing=re.escape(task.target_serial))
        self.machine.type(task.target_serial)
        self.machine.press("enter")
        self.on_screen("Confirm", 30, showing=r"\[>Back<\]")
        self.machine.press("left")
        self.on_screen("Confirm", 30, showing=r"\[>Restore now<\]")
        self.picture("confirm")
        self.machine.press("enter")

    def restore(self, timeout: float) -> None:
        """Watch until the result; a picture now and then."""
        self.on_screen_any(("Restore", "Result"), 60)
        deadline = time.monotonic() + timeout * self.patience
        next_picture = time.monotonic() + 3.0
        pictures = 0
        while True:
            text = self.machine.screen_text()
            title = _title(text)
            if title == "Result":
                return
            if re.search(r"│\s*Error\s|The restore failed", text) or not self.machine.running:
                self.picture("restore-failed")
                raise LabError(f"The restore failed:\n{text}")
            if time.monotonic() > deadline:
                self.picture("restore-hangs")
                raise LabError(f"The restore did not end within {timeout * self.patience:.0f} s:\n{text}")
            figures = next((line.strip() for line in text.splitlines() if "ETA" in line or "/s" in line), "")
            self.say(figures or "restoring")
            if title == "Restore" and time.monotonic() > next_picture and pictures < 5:
                self.picture("restore")
                pictures += 1
                next_picture = time.monotonic() + 15.0 * pictures
            # A look costs the machine a picture of its screen, and it has one emulated processor for the restore.
            time.sleep(self.patience)

    def restore_until(self, part: float, timeout: float) -> float:
        """Watch until this part (0 to 1) of all bytes is done; returns the part that is. Raises LabError when the
        restore ends before."""
        self.on_screen("Restore", 60)
        deadline = time.monotonic() + timeout * self.patience
        while time.monotonic() < deadline:
            text = self.machine.screen_text()
            if _title(text) != "Restore" or re.search(r"│\s*Error\s", text):
                raise LabError(f"The restore ended before {part:.0%} of it was seen:\n{text}")
            if (done := restored_part(text)) >= part:
                return done
            self.say(f"{done:.0%} restored")
            time.sleep(0.3)
        raise LabError(f"The restore did not come to {part:.0%} in time:\n{text}")

    def result(self) -> str:
        """Read the report; the text of the screen."""
        text = self._settled("Result", r"read back|transferred", 60)
        self.picture("result")
        self.machine.press("pgdn", pause=1.0)
        self.picture("result-more")
        return text

    def restart(self) -> None:
        """By the button, which is in focus when nothing is to be done before; it asks."""
        for _ in range(4):
            if "[>Restart<]" in self.machine.screen_text():
                break
            self.machine.press("left", pause=1.0)
        self.on_screen("Result", 20, showing=r"\[>Restart<\]")
        self.machine.press("enter")
        self.on_screen("Result", 20, showing=r"\[>Stay<\]")
        self.picture("result-before-restart")
        self.machine.press("right")
        self.on_screen("Result", 20, showing=r"\[>(Restart now|It is done: restart)<\]")
        self.machine.press("enter")

    def _settled(self, name: str, showing: str, timeout: float) -> str:
        """The screen, when it shows that and stays the same for two looks."""
        before = ""
        while (text := self.on_screen(name, timeout, showing=showing)) != before:
            before = text
            time.sleep(1)
        return text


def restored_part(text: str) -> float:
    """How much the Restore screen says is done, 0 to 1; 0 when it does not say."""
    figures = re.search(r"(\d[\d.]* [KMGT]?i?B) of (\d[\d.]* [KMGT]?i?B)", text)
    return parse_size(figures[1]) / parse_size(figures[2]) if figures else 0.0


def restore_figures(text: str) -> dict[str, str]:
    """The figures on the Result screen: what the console itself reports of the first disk."""
    first = re.search(r"^\s*\S+ → (?P<target>\S+): (?P<logical>[^,]+), (?P<rate>\S+ \S+/s)", text, re.MULTILINE)
    then = re.search(
        r"transferred (?P<transferred>[^,]+), written (?P<written>[^,]+), zeroed (?P<zeroed>[^,]+), "
        r"skipped (?P<skipped>[\d.]+ \w+)",
        text,
    )
    return {**(first.groupdict() if first else {}), **(then.groupdict() if then else {})}


def _title(text: str) -> str:
    """The name after ``Rekindle ·`` in the first line."""
    found = re.match(r"\s*Rekindle\s+\S\s+(.*?)(\s{2,}.*)?$", text.split("\n", 1)[0])
    return found.group(1) if found else ""


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
