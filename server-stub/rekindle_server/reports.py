"""What recovery media tell about their runs: kept in the server's state, where an administrator reads it."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from recovery.errors import AccessError, UsageError
from recovery.format.names import check_host
from rekindle_server.policy import Grant
from rekindle_server.state import State

Outcome = Literal["finished", "failed", "cancelled", "refused"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
#: Bytes of one report, and how many are kept.
LARGEST = 16 * 1024
KEPT = 1000


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended, in the words of the recovery medium: they are shown, never believed."""

    host: str
    outcome: Outcome
    message: str
    machine: str = ""
    point: str = ""
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class KeptReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report with what the server knows about it. ``at`` is seconds since the epoch by the server's clock."""

    at: float
    actor: str
    address: str
    report: RunReport


class Reports:
    """The reports of a server, the newest ``KEPT`` of them."""

    def __init__(self, state: State) -> None:
        self._state = state
        with state.transaction() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS reports (at REAL NOT NULL, actor TEXT NOT NULL, address TEXT NOT NULL,"
                " report BLOB NOT NULL)"
            )

    def add(self, grant: Grant, body: bytes, address: str) -> RunReport:
        """Keep a report. Raises UsageError, AccessError for a host that the grant does not cover."""
        try:
            report = msgspec.json.decode(body, type=RunReport)
        except msgspec.MsgspecError as error:
            raise UsageError(f"This is not the report of a run: {error}.") from None
        check_host(report.host)
        if grant.role == "capture" or not (grant.role == "admin" or grant.covers(report.host)):
            raise AccessError(
                f"The role '{grant.role}' for hosts {', '.join(grant.hosts)} may not report for {report.host}.",
                hint="Log in as a user who may restore this host.",
            )
        with self._state.transaction() as db:
            kept = (self._state.clock(), grant.actor, address, msgspec.json.encode(report))
            db.execute("INSERT INTO reports VALUES (?, ?, ?, ?)", kept)
            db.execute(
                "DELETE FROM reports WHERE rowid NOT IN (SELECT rowid FROM reports ORDER BY rowid DESC LIMIT ?)",
                (KEPT,),
            )
        self._state.audit(grant.actor, address, f"run {report.outcome}", report.host)
        return report

    def list(self, host: str = "") -> list[KeptReport]:
        """All reports, or those of a host, oldest first."""
        rows = self._state.rows("SELECT * FROM reports ORDER BY rowid")
        every = [
            KeptReport(at=r["at"], actor=r["actor"], address=r["address"],
                       report=msgspec.json.decode(r["report"], type=RunReport)) for r in rows
        ]  # fmt: skip
        return [kept for kept in every if host in ("", kept.report.host)]
