"""Errors and events are data: they survive a trip over a socket, and their codes are stable and documented."""

import re

import pytest

from recovery import errors, events
from recovery.errors import AccessError, ErrorReport, all_error_classes, from_report


def test_exit_codes_differ_and_stand_in_the_table() -> None:
    table = dict(re.findall(r"(\w+Error) \((\d+)\)", errors.__doc__ or ""))
    assert {c.__name__: str(c.exit_code) for c in all_error_classes()} == table
    assert len(set(table.values())) == len(table)


def test_an_error_survives_as_data() -> None:
    error = AccessError("The passphrase is wrong.", hint="Try again.")
    back = from_report(error.report())
    assert (type(back), back.message, back.hint) == (AccessError, error.message, error.hint)


def test_an_unknown_kind_of_error_is_still_an_error() -> None:
    assert from_report(ErrorReport("FromTheFuture", "m")).message == "m"


@pytest.mark.parametrize(
    "event",
    [
        events.StepStarted(step="adapt", title="Make it boot", number=2, of=3),
        events.StepFinished(step="adapt", summary="done", seconds=1.5),
        events.Progress(step="restore:disk1", done=1, total=2, eta=3.5, disk="disk1"),
        events.Message(text="retrying", level="warning"),
        events.RunFinished(error=ErrorReport("BusyError", "m", "h", 6)),
    ],
)
def test_events_are_lines_of_json(event: events.Event) -> None:
    line = events.encode(event)
    assert b"\n" not in line
    assert events.decode(line) == event


def test_tee_tells_every_listener() -> None:
    one: list[events.Event] = []
    two: list[events.Event] = []
    events.tee(one.append, two.append)(events.Message(text="x"))
    assert one == two
    assert len(one) == 1
