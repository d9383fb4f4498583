"""``rekindle remote``: reach this recovery medium from another machine."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from recovery.engine.api import SOCKET, RemoteAccess


@click.command()
@click.option("--ssh/--no-ssh", default=None, help="Turn SSH with a one-time password on or off.")
@click.option("--status/--no-status", default=None, help="Turn the read-only status page on or off.")
@click.option(
    "--socket", default=SOCKET, show_default=True, type=click.Path(path_type=Path), help="The engine's socket."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def remote(ssh: bool | None, status: bool | None, socket: Path, as_json: bool) -> None:
    """Show how the console can be reached over the network, and turn that on or off. Nothing listens by default."""
    from recovery.engine.client import EngineClient

    access = EngineClient(socket).remote_access(ssh, status)
    click.echo(msgspec.json.encode(access).decode() if as_json else "\n".join(describe(access)))


def describe(access: RemoteAccess) -> list[str]:
    """What a person needs to connect, as lines."""
    lines = []
    if access.ssh:
        lines += [f"SSH:          ssh root@{address}" for address in access.addresses] or [
            "SSH:          no address yet"
        ]
        lines.append(f"  host key    {access.host_key}")
        lines.append(f"  password    {access.password}" if access.password else "  password    none: only keys")
        lines += [f"  keys        {access.keys} from the medium's profile"] if access.keys else []
    else:
        lines.append("SSH:          off (rekindle remote --ssh)")
    lines += [f"Status page:  {url}" for url in access.status] or ["Status page:  off (rekindle remote --status)"]
    return lines
