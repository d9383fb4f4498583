"""What a measurement is: samples of contestants, and goals beside them. Plain data, as it stands in the JSON."""

from __future__ import annotations

import statistics

import msgspec


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. ``seconds`` by the clock; ``cpu`` CPU-seconds (user and system) of the contestant's own
    processes, ``server_cpu`` those of our server meanwhile; ``figures`` is whatever else the row counts."""

    seconds: float
    cpu: float = 0.0
    server_cpu: float = 0.0
    figures: dict[str, float] = {}


class Measured(msgspec.Struct, kw_only=True):
    """A contestant. ``work`` is the bytes that a sample handles, so that ``work / seconds`` is its rate; 0 where a
    rate makes no sense. ``checked``: its result was compared with the source by a checksum of all of it.

    ``others`` are the samples of set-ups that turned out slower, by their command; ``error`` says why there are none.
    """

    name: str
    command: str = ""
    work: int = 0
    samples: list[Sample] = []
    checked: bool = False
    others: dict[str, list[Sample]] = {}
    error: str = ""

    @property
    def seconds(self) -> float:
        """The median; NaN without samples."""
        return self.median("seconds")

    @property
    def rate(self) -> float:
        """Bytes per second of the median sample."""
        return self.work / self.seconds

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        seconds = [sample.seconds for sample in self.samples]
        return (max(seconds) - min(seconds)) / self.seconds if seconds else float("nan")

    def median(self, name: str) -> float:
        """The median of a field of the samples, or of one of their figures."""
        found = [s.figures[name] if name in s.figures else float(getattr(s, name)) for s in self.samples]
        return statistics.median(found) if found else float("nan")


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be reached: ``measured`` at least (or ``at_most``) ``wanted``. Not met when there is no figure."""

    what: str
    wanted: float
    measured: float | None
    unit: str = ""
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is."""
        if self.measured is None:
            return False
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


def goal(what: str, wanted: float, measured: float, unit: str = "", *, at_most: bool = False) -> Goal:
    """A goal; NaN (there are no samples) becomes None, which JSON has."""
    return Goal(
        what=what, wanted=wanted, measured=measured if measured == measured else None, unit=unit, at_most=at_most
    )


class Row(msgspec.Struct, kw_only=True):
    """One line of the table: who took part, what was reached. ``error`` says why there is nothing to show."""

    name: str
    title: str
    data: str = ""
    contestants: list[Measured] = []
    goals: list[Goal] = []
    notes: list[str] = []
    error: str = ""
    seconds: float = 0.0


class Run(msgspec.Struct, kw_only=True):
    """A run of the bench, as it is written to JSON. ``machine`` and ``programs`` say what it was measured on."""

    started: str
    command: str
    commit: str
    machine: dict[str, str]
    programs: dict[str, str]
    rows: list[Row] = []
