"""Every error a person can meet: a message, a hint that says what to do, and an exit code.

The tree (exit code):

    RekindleError (1)
    ├── UsageError (2)          what was typed or configured makes no sense
    ├── NotFoundError (3)       the host, point, disk or file named does not exist
    ├── AccessError (4)         wrong passphrase, password, code, token, role or certificate fingerprint
    ├── IntegrityError (5)      stored bytes are not what was written: missing, truncated, flipped, forged
    ├── BusyError (6)           somebody else is at it: a mounted disk, a second capture, a run in progress
    ├── SpaceError (7)          no room
    ├── UnreachableError (8)    a server or network that does not answer; trying again may help
    ├── UnsafeTargetError (9)   the disk chosen must not be written
    ├── CommandError (10)       an external program failed, is missing, or was killed
    ├── PlanRefusedError (11)   the plan has problems that forbid the first write
    ├── DeviceError (12)        a disk returned an error while reading or writing
    └── CancelledError (130)    the operator stopped the run

Exit code 1 stays with errors nobody classified, 70 with bugs (an unexpected exception; see ``recovery.cli``).
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ErrorReport(msgspec.Struct, frozen=True):
    """An error as data, for JSON output, the engine's socket and the server's answers."""

    kind: str
    message: str
    hint: str = ""
    exit_code: int = 1


class RekindleError(Exception):
    """Base of all errors shown to people. ``message`` says what and why, ``hint`` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def report(self) -> ErrorReport:
        """This error as data."""
        return ErrorReport(type(self).__name__, self.message, self.hint, self.exit_code)


class UsageError(RekindleError):
    """What was typed or configured makes no sense."""

    exit_code = 2


class NotFoundError(RekindleError):
    """The thing named does not exist."""

    exit_code = 3


class AccessError(RekindleError):
    """Wrong secret, role or certificate."""

    exit_code = 4


class IntegrityError(RekindleError):
    """Stored bytes are not what was written."""

    exit_code = 5


class BusyError(RekindleError):
    """Somebody else uses the thing."""

    exit_code = 6


class SpaceError(RekindleError):
    """No room."""

    exit_code = 7


class UnreachableError(RekindleError):
    """A server or network that does not answer; trying again may help."""

    exit_code = 8


class UnsafeTargetError(RekindleError):
    """The disk chosen must not be written."""

    exit_code = 9


class CommandError(RekindleError):
    """An external program failed, is missing, or was killed."""

    exit_code = 10


class PlanRefusedError(RekindleError):
    """The plan has problems that forbid the first write."""

    exit_code = 11


class DeviceError(RekindleError):
    """A disk returned an error while reading or writing."""

    exit_code = 12


class CancelledError(RekindleError):
    """The operator stopped the run."""

    exit_code = 130


def all_error_classes() -> list[type[RekindleError]]:
    """Every class of the tree, the base first; the docs' table and the engine's client are made from it."""
    return [RekindleError, *RekindleError.__subclasses__()]


def from_report(report: ErrorReport) -> RekindleError:
    """The error that a report was made from (an unknown kind becomes the base class)."""
    classes = {c.__name__: c for c in all_error_classes()}
    return classes.get(report.kind, RekindleError)(report.message, hint=report.hint)
