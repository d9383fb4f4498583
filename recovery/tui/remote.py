"""Remote access as the console shows it: a dialog that turns it on and off, from every screen, and one line of it."""

from __future__ import annotations

from recovery.engine.api import RemoteAccess
from recovery.tui.screens.base import ConsoleScreen


async def remote_dialog(screen: ConsoleScreen) -> None:
    """How this medium is reached, with buttons that turn it on and off, until the operator has seen enough.

    Only from a worker.
    """
    ssh: bool | None = None
    page: bool | None = None
    while True:
        access = await screen.ask("Looking", screen.session.engine.remote_access, ssh, page)
        if access is None:
            return
        answer = await screen.choose(
            "Remote access",
            "\n".join(remote_lines(access)),
            [
                ("ok", "OK"),
                ("ssh", f"Turn SSH {'off' if access.ssh else 'on'}"),
                ("page", f"Turn page {'off' if access.status else 'on'}"),
            ],
        )
        ssh = not access.ssh if answer == "ssh" else None
        page = not access.status if answer == "page" else None
        if answer not in ("ssh", "page"):
            return


def remote_lines(access: RemoteAccess) -> list[str]:
    """What a person types elsewhere to get here."""
    lines = ["SSH          off"]
    if access.ssh:
        lines = [f"SSH          ssh root@{address}" for address in access.addresses] or ["SSH          no address yet"]
        lines.append(f"  password   {access.password or 'none: only the keys of the medium may log in'}")
        lines.append(f"  host key   {access.host_key}")
    if access.keys:
        lines.append(f"  keys       {access.keys} on the medium")
    return [*lines, "", *([f"Status page  {url}" for url in access.status] or ["Status page  off"])]


def remote_line(access: RemoteAccess) -> str:
    """What is on, without its secrets: it stands there for hours. Empty when all is off."""
    ways = []
    if access.ssh:
        # An IPv6 address is not what one types if there is another.
        address = min(access.addresses, key=lambda each: ":" in each, default="")
        ways.append(f"ssh root@{address}" if address else "SSH, no address yet")
    if access.status:
        ways.append("status page")
    return f"Remote access (F8): {', '.join(ways)}" if ways else ""
