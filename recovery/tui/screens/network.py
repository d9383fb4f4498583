"""Network: the interfaces with link and addresses; DHCP, a static address, a VLAN."""

from __future__ import annotations

from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from recovery.errors import RekindleError
from recovery.machine.model import Machine
from recovery.tui.describe import hang, network_line, nic_row, usable_addresses
from recovery.tui.drivers_text import cards_text
from recovery.tui.forms import network_config
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.repository import RepositoryScreen
from recovery.tui.widgets.choice import ChoiceList
from recovery.tui.widgets.controls import Action, Field, Row, Toggle
from recovery.tui.widgets.panes import Lines, Notice, Pane
from recovery.tui.work import in_thread

#: Seconds between two looks at the interfaces while there is no address.
POLL_SECONDS = 5.0

#: Fields that DHCP makes needless: id, label, example.
FIXED = (
    ("address", "Address/prefix", "e.g. 192.168.1.20/24"),
    ("gateway", "Gateway", "e.g. 192.168.1.1"),
    ("dns", "DNS servers", "e.g. 192.168.1.1 192.168.1.2"),
)


class NetworkScreen(ConsoleScreen):
    """The way to the server. With a local (USB) repository no network is needed: Continue works without one."""

    NAME = "Network"
    HELP = (
        "The server with your recovery points must be reachable from here.\n\n"
        "Interface   Choose the card with the arrows. 'no link': cable or switch.\n"
        "            Cards that lack a driver or firmware are named below the form.\n"
        "DHCP        Enter switches it off; then type address with prefix length\n"
        "            (192.168.1.20/24), gateway and DNS servers.\n"
        "VLAN        A number when the switch port is tagged; else leave it empty.\n"
        "Apply       Sets this up and waits for the address.\n"
        "Continue    Also works without an address: for a repository on a USB disk."
    )

    def body(self) -> ComposeResult:
        """The list of interfaces and the form."""
        yield Lines("", id="summary")
        heading = f"  {'Interface':<12} {'Driver':<10} {'Link':<13} {'Addresses':<18} MAC"
        yield Lines(heading, classes="heading gap")
        yield ChoiceList(id="nics")
        dhcp = self.session.toggles.get("dhcp", True)
        with Horizontal(classes="row gap"):
            yield Toggle("DHCP (Enter changes it)", dhcp, id="dhcp")
        for id, label, example in (*FIXED, ("vlan", "VLAN id", "none")):
            yield Row(label, Field(self.session.fields.get(id, ""), id=id, placeholder=example))
        with Pane(classes="gap"):
            yield Notice(id="not-working", classes="lost")

    def buttons(self) -> Iterable[Widget]:
        """Apply, then Continue."""
        return (Action("Apply", id="apply"), Action("Continue", id="continue"), Action("Look again", id="refresh"))

    def on_mount(self) -> None:
        """Show what is known; keep looking while there is no address."""
        self._touched = False
        self._waiting = not self._has_address()
        self._show(self.session.machine)
        self._enable()
        connected = [nic for nic in self.session.machine.nics if nic.carrier]
        self.query_one("#nics", ChoiceList).set_rows(self._rows(), connected[0].name if connected else "")
        self.query_one("#continue" if self._has_address() else "#apply").focus()
        self.set_interval(POLL_SECONDS, self.poll)

    def on_key(self) -> None:
        """Once the operator is at work here, the screen no longer leaves by itself."""
        self._touched = True

    def _has_address(self) -> bool:
        return any(usable_addresses(nic) for nic in self.session.machine.nics)

    def _rows(self) -> list[tuple[str, str]]:
        return [(nic.name, nic_row(nic)) for nic in self.session.machine.nics]

    def _show(self, machine: Machine) -> None:
        self.session.machine = machine
        self._waiting = self._waiting and not self._has_address()
        self.query_one("#nics", ChoiceList).set_rows(self._rows())
        self.query_one("#summary", Lines).update(
            f"This machine: {network_line(machine)}."
            if self._has_address()
            else "This machine has no address yet. Apply asks for one by DHCP."
            if machine.nics
            else "No network interface was found. A repository on a USB disk works without."
        )
        self.query_one("#not-working", Notice).update(hang(cards_text(machine), self.size.width - 3))

    def _enable(self) -> None:
        dhcp = self.query_one("#dhcp", Toggle).value
        for id, _, example in FIXED:
            field = self.query_one(f"#{id}", Field)
            field.disabled = dhcp
            field.placeholder = "(by DHCP)" if dhcp else example

    def toggle_changed(self, id: str, value: bool) -> None:
        """A static address needs its fields."""
        super().toggle_changed(id, value)
        self._enable()

    def on_choice_list_chosen(self, event: ChoiceList.Chosen) -> None:
        """Enter on an interface goes on to its settings."""
        self.query_one("#dhcp").focus()

    @work(exclusive=True, group="poll")
    async def poll(self) -> None:
        """While waiting for an address: look; go forward when one came and nobody has touched a key."""
        if self.busy or not self._waiting or not self.is_current:
            return
        try:
            machine = await in_thread(self.session.engine.machine, refresh=True)
        except RekindleError:
            return
        if self.busy:
            return
        self._show(machine)
        if self._has_address() and self.is_current:
            self.query_one("#continue").focus()
            if not self._touched:
                self.press_continue()

    @work(exclusive=True, group="ask")
    async def press_apply(self) -> None:
        """Configure the highlighted interface and wait for its address."""
        try:
            interface = self.query_one("#nics", ChoiceList).selected
            config = network_config(interface, self.query_one("#dhcp", Toggle).value, self.session.fields)
        except RekindleError as error:
            self.show_error(error.report())
            return
        how = "asking for an address by DHCP" if config.dhcp else f"setting {config.address}"
        machine = await self.ask(f"{interface}: {how}", self.session.engine.configure_network, config)
        if machine is not None:
            self._show(machine)
            if self._has_address():
                self.query_one("#continue").focus()

    @work(exclusive=True, group="ask")
    async def press_refresh(self) -> None:
        """Look at the interfaces again."""
        machine = await self.ask("Looking at the network", self.session.engine.machine, refresh=True)
        if machine is not None:
            self._show(machine)

    def press_continue(self) -> None:
        """On to the repository."""
        self.console_app.go(RepositoryScreen())
