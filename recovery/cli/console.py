"""How commands write for a person: what comes from hosts, guests and strangers is text, whatever characters it has.

Names of VMs, notes and file names must neither be taken for rich's markup (``[/]`` would be an error) nor hold
sequences that drive the terminal.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text


def printable(text: str, *, keep: str = "") -> str:
    """The text with control and other invisible characters written out (``\\x1b``), but for those in ``keep``."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class PlainConsole(Console):
    """A rich console on which strings are only text. Styles are given as ``style=`` or by ``rich.text.Text``."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string, also in a table's cell, comes by here."""
        return super().render_str(printable(text, keep="\n\t"), **options)
