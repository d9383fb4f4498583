"""What ``rekindle adapt`` says at its end."""

from __future__ import annotations

import pytest

from recovery.adapt.model import AdaptReport
from recovery.cli.adapt import headline


@pytest.mark.parametrize(
    ("changes", "whole", "said"),
    [
        (("GRUB was installed.", "Proven: the root mounts."), True, "The host will boot here: 1 changes, 1 proofs."),
        (("The backup GPT was moved.",), True, "No system was made to boot here: 1 changes, 0 proofs."),
        (("The backup GPT was moved.",), False, "Done: 1 changes, 0 proofs. Only the named steps were run."),
    ],
)
def test_nothing_is_promised_that_was_not_proven(changes: tuple[str, ...], whole: bool, said: str) -> None:
    assert headline(AdaptReport(changes=changes), whole=whole) == said
