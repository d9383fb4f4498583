"""The power of the recovering machine fails in the middle of a restore, more than once."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

from recovery.units import MIB, format_size, parse_size
from tests.e2e.lab.accel import Acceleration
from tests.e2e.lab.hardware import Hardware
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.screen import ScreenReader
from tests.e2e.lab.storyboard.operator import Operator, Task
from tests.e2e.lab.storyboard.stage import Stage

#: Between which parts of the restore the power fails. Below, a sample of 64 chunks could miss what is there.
_EARLIEST, _LATEST = 0.12, 0.85
#: What was on the disk and may be written again: the first and last chunk, which are wiped, and of four writes of
#: 4 MiB those chunks that the loss of power cut in two.
_AGAIN = 20 * MIB
#: By this clock the server's certificate has expired; the medium trusts the server's CA all the same.
_CLOCK = "2036-11-20T12:00:00"


class PowerLosses:
    """Two losses of power, at moments that ``seed`` chooses: the reset button, then the plug.

    ``done`` is the part of the restore that was on the disk at the last one, zeros included; ``kept`` the bytes of it
    that are not zeros.
    """

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._source = random.Random(seed)
        self.seed = seed
        self.done = 0.0
        self.kept = 0

    def happen(
        self, medium: Hardware, accel: Acceleration, reader: ScreenReader, new_task: Callable[[], Task]
    ) -> list[str]:
        """Boot the medium and begin a restore, twice. Returns the pictures taken. Raises LabError."""
        # The reset button starts the medium again; the battery of this machine's clock is dead as well.
        hardware = dataclasses.replace(medium, end_at_reset=False, clock=_CLOCK)
        target = hardware.disks[0].path
        with Machine(hardware, self._stage.folder / "vm", accel, reader) as machine:
            operator = Operator(machine, self._stage.folder / "screens", self._stage.say, accel.slowness)
            with self._stage.phase("power-reset", "The reset button is pressed in the middle of the restore") as phase:
                self._begin(operator, new_task())
                phase.figures |= self._interrupt(operator, machine.reset)
                self._look(target, "reset")
            with self._stage.phase("power-plug", "The restore goes on, and the power fails") as phase:
                self._begin(operator, new_task())
                phase.figures |= self._interrupt(operator, machine.lose_power)
                self._look(target, "plug")
        return operator.taken

    def judge(self, figures: dict[str, str]) -> None:
        """The last restore fetched only what was not on the disk: ``figures`` of the Result screen."""
        skipped = parse_size(figures.get("skipped", "0"))
        what = f"the last restore wrote nothing again of the {format_size(self.kept)} that were on the disk"
        held = 0 < self.kept <= skipped + _AGAIN
        self._stage.verdict(what, self._stage.report.check("rest", what, held, str(figures)))

    def _begin(self, operator: Operator, task: Task) -> None:
        operator.wait_for_console(120)
        operator.choose(task)

    def _interrupt(self, operator: Operator, loss: Callable[[], None]) -> dict[str, float | int | str]:
        moment = self._source.uniform(max(_EARLIEST, self.done * 0.5), _LATEST)
        self.done = operator.restore_until(moment, 240)
        operator.picture("power-fails")
        loss()
        return {"seed": self.seed, "at": f"{self.done:.0%}"}

    def _look(self, target: Path, name: str) -> None:
        """Both ends of the disk are empty: no firmware finds anything to boot there. What lies between is counted (the
        disk was blank)."""
        zeros = bytes(MIB)
        with target.open("rb") as disk:
            filled = [piece != zeros for piece in iter(lambda: disk.read(MIB), b"")]
        empty = not filled[0] and not filled[-1]
        self.kept = sum(filled) * MIB
        what = f"after the loss of power ({name}) the disk has no partition table and no boot sector"
        self._stage.verdict(what, self._stage.report.check(f"incomplete-{name}", what, empty))
