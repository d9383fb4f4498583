"""Another copy: where a second copy of the repository is, for content that the first has damaged; or zeros instead."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.widget import Widget

from recovery.tui.describe import hang
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.repository import RepositoryScreen
from recovery.tui.widgets.controls import SHOW, Action


class AnotherCopyScreen(RepositoryScreen):
    """The same questions as for the repository itself; it stays open, and the copy is asked for what it lacks."""

    NAME = "Another copy"
    HEADING = "Where another copy of this repository is"
    NETWORK_HINT = ""
    HELP = (
        "A copy of the repository's files is a copy of the repository: a disk that it\n"
        "was copied to, or a second server. What the first copy lacks or has damaged\n"
        "is read from the next one; every byte is checked as before.\n\n"
        "Plug the disk in and press 'Look for disks again', or type the other\n"
        "server's address. Another repository is refused. The passphrase is the\n"
        "same as before."
    )

    def buttons(self) -> Iterable[Widget]:
        """Use it."""
        return (
            Action("Use this copy", id="connect"),
            Action("Find servers", id="find"),
            Action("Look for disks again", id="rescan"),
            Action(SHOW, id="show"),
        )

    @work(exclusive=True, group="ask")
    async def press_connect(self) -> None:
        """Check the certificate, sign in, compare; back to where the copy was wanted."""
        access = await self._access()
        if access is None:
            return
        copies = await self.ask("Opening the other copy", self.session.engine.add_copy, access)
        if copies is not None:
            self.session.copies = list(copies[1:])
            self.console_app.go_back()


async def ask_for_zeros(screen: ConsoleScreen) -> bool:
    """Whether the operator wants zeros in what is lost. No is the default."""
    text = (
        "What no copy of the repository has becomes zeros: files and databases that lie there are damaged "
        "afterwards, and a filesystem may be. The report lists each place with its bytes, and the restore is never "
        "called complete.\n\nAnother copy of the repository, or an older point, may still have it."
    )
    answer = await screen.choose(
        "Put zeros in what is lost?", hang(text, 70, 0), [("no", "No"), ("zeros", "Put zeros")], kind="-error"
    )
    return answer == "zeros"
