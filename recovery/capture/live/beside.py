"""What else goes on around the moment of a consistent point: guests are quiesced, places of files are looked up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol


class Beside(Protocol):
    """Called for each freeze, in the thread that freezes."""

    def before(self) -> None:
        """The freeze is near: programs still work, and memory will be written out after this. Raises nothing but what
        shall end the attempt."""

    def frozen(self, deadline: float) -> None:
        """All is frozen and read. Must neither write, log nor start anything, and must end by ``deadline``
        (time.monotonic). Raises nothing."""

    def after(self) -> None:
        """Filesystems are thawed, or were never frozen: also after any error. Raises nothing."""


@contextlib.contextmanager
def surrounded(beside: Sequence[Beside]) -> Iterator[None]:
    """Within the block ``before`` of each was called; ``after`` comes for each of these, the last one first."""
    with contextlib.ExitStack() as stack:
        for each in beside:
            stack.callback(each.after)
            each.before()
        yield
