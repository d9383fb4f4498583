"""``rekindle servers``: which servers announce themselves on the local network."""

from __future__ import annotations

import click
import msgspec

from recovery.cli.console import printable


@click.command()
@click.option("--seconds", default=2.0, show_default=True, help="How long to listen for answers.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def servers(seconds: float, as_json: bool) -> None:
    """Ask the local network for servers ('rekindle serve --announce').

    What is listed is what anybody on this network says: compare the fingerprint before you log in.
    """
    from recovery.repository.mdns import discover

    found = discover(seconds)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for server in found:
        click.echo(printable(f"{server.url}  {server.name}"))
        click.echo(
            f"    repository {server.repository or 'unknown'}, CA fingerprint {server.fingerprint or 'unknown'}"
        )
    if not found:
        click.echo(
            "No server answered. They announce themselves with 'rekindle serve --announce', on their own network."
        )
