"""Repository: a server (certificate, sign-in) or a disk of this machine, and the repository's passphrase."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import DescendantBlur
from textual.widget import Widget

from recovery.engine.api import Access, DiscoveredServer, LocalRepository, ServerIdentity
from recovery.errors import RekindleError, UsageError
from recovery.tui.describe import fingerprint_lines, network_line, short_name, to_compare
from recovery.tui.forms import local_access, server_access, server_url
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import SHOW, Action, Field, Row, switch_secrets
from recovery.tui.widgets.panes import Lines
from recovery.tui.work import in_thread
from recovery.units import format_size

SERVER = "server"
#: Before the address of a server that announced itself.
FOUND = "found:"
#: Field ids, labels, and whether the text is hidden.
SIGN_IN = (
    ("user", "User", False),
    ("password", "Password", True),
    ("code", "or one-time code", False),
)


class RepositoryScreen(ConsoleScreen):
    """Where the recovery points are and who may read them. Secrets go to the engine's socket only."""

    NAME = "Repository"
    HEADING = "Where the recovery points are"
    #: What Esc does to the line about the network.
    NETWORK_HINT = " (Esc to change)"
    HELP = (
        "Where       The server, or a repository found on a disk of this machine.\n"
        "            'Find servers' asks the local network for servers.\n"
        "Server      Address and port. The medium may bring it.\n"
        "Certificate 'trusted' means: signed by the authority this medium carries.\n"
        "            Otherwise compare the fingerprint with the one that\n"
        "            'rekindle serve' printed, before a secret is sent.\n"
        "Sign in     User and password, or a one-time code issued by the\n"
        "            administrator ('rekindle code').\n"
        "Passphrase  of the repository, or its recovery key: what was printed when\n"
        "            the repository was made.\n\n"
        "Show secrets  shows what is typed in the fields of secrets, or hides it.\n"
        "Enter goes from field to field; in the last one it connects."
    )

    def __init__(self) -> None:
        super().__init__()
        self._identities: dict[str, ServerIdentity] = {}
        self._local: list[LocalRepository] = []
        self._found: list[DiscoveredServer] = []

    def body(self) -> ComposeResult:
        """Place, server with its certificate, sign-in, passphrase."""
        fields = self.session.fields
        yield Lines(f"Network: {network_line(self.session.machine)}{self.NETWORK_HINT}")
        yield Lines(self.HEADING, classes="heading gap")
        yield ChoiceList(id="places")
        with Vertical(id="server-form"):
            yield Row("Server", Field(fields.get("server", ""), id="server", placeholder="e.g. backup:8460"), gap=True)
            with Horizontal(id="certificate-row"):
                yield Lines("  Certificate", classes="label")
                yield Lines("not asked yet", id="certificate")
            yield Lines("Sign in to the server: user and password, or a one-time code", classes="gap")
            for id, label, hidden in SIGN_IN:
                yield Row(label, Field(fields.get(id, ""), id=id, password=hidden))
        yield Lines("Open the repository: its passphrase, or its printed recovery key", classes="gap")
        yield Row("Passphrase", Field(fields.get("secret", ""), id="secret", password=True))

    def buttons(self) -> Iterable[Widget]:
        """Connect."""
        return (
            Action("Connect", id="connect"),
            Action("Find servers", id="find"),
            Action("Look for disks again", id="rescan"),
            Action(SHOW, id="show"),
        )

    def on_mount(self) -> None:
        """Focus what is likely typed next; look for local repositories and the certificate meanwhile."""
        self._show_places()
        self._form_for(self.session.fields.get("place", SERVER))
        empty = [id for id in ("server", "user") if not self.session.fields.get(id)]
        self.query_one(f"#{empty[0] if empty else 'secret'}").focus()
        self.look_for_disks()
        if self.session.fields.get("server"):
            self.identify()

    # --- places -----------------------------------------------------------------------------------------------

    def _show_places(self) -> None:
        rows = [(SERVER, "A server on the network")]
        rows += [(FOUND + server.url, found_row(server)) for server in self._found]
        rows += [
            (repo.path, f"Disk {short_name(repo.device)}, {format_size(repo.size)}, repository {repo.id[:12]}")
            for repo in self._local
        ]
        self.query_one("#places", ChoiceList).set_rows(rows, self.session.fields.get("place", SERVER))

    def _form_for(self, place: str) -> None:
        self.query_one("#server-form").set_class(place != SERVER, "hidden")

    def on_choice_list_highlighted(self, event: ChoiceList.Highlighted) -> None:
        """Only a server needs an address and a sign-in."""
        place = self.query_one("#places", ChoiceList).selected
        if place and self.query_one("#places").has_focus:
            place = SERVER if place.startswith(FOUND) else place
            self.session.fields["place"] = place
            self._form_for(place)

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter on a place goes to what it needs."""
        place = self.query_one("#places", ChoiceList).selected
        if place.startswith(FOUND):
            self.query_one("#server", Field).value = self.session.fields["server"] = place.removeprefix(FOUND)
            self.query_one("#user").focus()
            self.identify()
            return
        self.query_one("#server" if place == SERVER else "#secret").focus()

    @work(exclusive=True, group="disks")
    async def look_for_disks(self) -> None:
        """Repositories on disks of this machine."""
        try:
            self._local = await in_thread(self.session.engine.local_repositories)
        except RekindleError:
            self._local = []  # a server is the usual place; a USB disk that cannot be read shows up in the log
        if self.is_attached:  # not left in the meantime
            self._show_places()

    @work(exclusive=True, group="ask")
    async def press_find(self) -> None:
        """Servers that announce themselves; what they claim is proven by the certificate only."""
        found = await self.ask("Looking for servers on the local network", self.session.engine.discover)
        if found is None:
            return
        self._found = found
        self._show_places()
        self.status("" if found else "No server announced itself. Type its address.")
        if found:
            self.query_one("#places", ChoiceList).highlight(FOUND + found[0].url)
            self.query_one("#places").focus()

    def press_show(self) -> None:
        """What is typed, while nobody looks over the shoulder; or dots again."""
        switch_secrets(self.query(Field), self.query_one("#show", Action))

    def press_rescan(self) -> None:
        """A USB disk was plugged in."""
        self.look_for_disks()

    # --- the certificate --------------------------------------------------------------------------------------

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        """Another address: another certificate."""
        if event.widget.id == "server" and self.session.fields.get("server", "").strip():
            self.identify()

    @work(exclusive=True, group="identify")
    async def identify(self) -> None:
        """Ask the server who it is and show it; sends no secret."""
        line = self.query_one("#certificate", Lines)
        try:
            url = server_url(self.session.fields.get("server", ""))
            if url not in self._identities:
                line.update(f"asking {url} ...")
                self._identities[url] = await in_thread(self.session.engine.identify, url)
        except RekindleError as error:
            line.update(error.message)
            return
        line.update(certificate_text(self._identities[url], self.session.trusted.get(url, "")))

    async def _trust(self, url: str) -> str | None:
        """The fingerprint to insist on ("" to rely on the medium's CA), or None when the operator says no."""
        identity = self._identities.get(url) or await self.ask(
            "Asking for the certificate", self.session.engine.identify, url
        )
        if identity is None:
            return None
        self._identities[url] = identity
        if identity.trusted:
            return ""
        fingerprint = to_compare(identity)
        if self.session.trusted.get(url) == fingerprint:
            return fingerprint
        answer = await self.choose(
            "Is this your server?",
            f"{url} has a certificate that this medium does not know.\n{identity.reason}\n\n"
            f"Its CA's fingerprint (SHA-256):\n\n{fingerprint_lines(fingerprint)}\n\n"
            "Compare it with the one that 'rekindle serve' shows on the server. "
            "If only one character differs, somebody may be listening: do not go on.",
            [("no", "Not the same"), ("same", "It is the same")],
            kind="-error",
        )
        if answer != "same":
            return None
        self.session.trusted[url] = fingerprint
        self.query_one("#certificate", Lines).update(certificate_text(identity, fingerprint))
        return fingerprint

    # --- connect ----------------------------------------------------------------------------------------------

    def field_done(self, id: str) -> None:
        """Enter in the last field connects."""
        if id != "secret":
            super().field_done(id)
        elif not self.busy:
            self.press_connect()

    @work(exclusive=True, group="ask")
    async def press_connect(self) -> None:
        """Check the certificate, sign in, unlock; on to the hosts."""
        # Later screens ask for another copy by a screen made from this one.
        from recovery.tui.screens.host import HostScreen

        access = await self._access()
        if access is None:
            return
        info = await self.ask("Signing in and unlocking the repository", self.session.engine.connect, access)
        if info is not None:
            self.session.repository = info
            self.console_app.go(HostScreen())

    async def _access(self) -> Access | None:
        fields = self.session.fields
        place = fields.get("place", SERVER)
        try:
            if place != SERVER:
                return local_access(place, fields)
            access = server_access(fields, "")
        except UsageError as error:
            self.show_error(error.report())
            return None
        fingerprint = await self._trust(access.url)
        return None if fingerprint is None else server_access(fields, fingerprint)


def found_row(server: DiscoveredServer) -> str:
    """Name, address, and the start of the fingerprint that it claims."""
    claim = f", CA {fingerprint_lines(server.fingerprint)[:11]}..." if server.fingerprint else ""
    return f"Server {server.name} at {server.url}{claim}"


def certificate_text(identity: ServerIdentity, confirmed: str) -> str:
    """Trusted or not and why, and the fingerprint as people compare it."""
    if identity.trusted:
        verdict = "trusted: signed by the authority this medium carries"
    elif confirmed == to_compare(identity):
        verdict = "confirmed by you"
    else:
        verdict = f"NOT TRUSTED. {identity.reason}".strip()
    return f"{verdict}\n{fingerprint_lines(to_compare(identity))}"
