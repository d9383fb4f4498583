"""``rekindle serve``: serve a repository over HTTPS until it is told to stop."""

from __future__ import annotations

import ipaddress
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from recovery.errors import UsageError

if TYPE_CHECKING:
    from rekindle_server.announce import Announcer
    from rekindle_server.server import Server


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--listen", metavar="ADDRESS:PORT", default=":8443", show_default=True, help="No address: all of them. [::1]:8443."
)
@click.option("--name", "names", multiple=True, metavar="NAME", help="A further DNS name or address clients use.")
@click.option(
    "--state", type=click.Path(path_type=Path), help="Users, codes, certificates. Default: DIRECTORY/.server"
)
@click.option("--plain-http", is_flag=True, help="No TLS: on a loopback address, e.g. behind a proxy.")
@click.option(
    "--insecure-network", is_flag=True, help="Allow --plain-http on other addresses. Sends secrets in clear."
)
@click.option(
    "--plain-packs",
    metavar="ADDRESS:PORT",
    help="Also give packs (they are encrypted) by plain HTTP there, for signed reads. See docs/operations.md.",
)
@click.option("--announce", is_flag=True, help="Let recovery media on the local network find it (multicast DNS).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line when ready.")
def serve(
    directory: Path,
    listen: str,
    names: tuple[str, ...],
    state: Path | None,
    plain_http: bool,
    insecure_network: bool,
    plain_packs: str | None,
    announce: bool,
    as_json: bool,
) -> None:
    """Serve the repository in DIRECTORY over HTTPS.

    The first start makes a CA and a certificate and prints the CA's fingerprint: give it to 'rekindle iso build --ca'
    and compare it where you log in. Then make users ('rekindle user add') and one-time codes ('rekindle code issue').
    """
    from rekindle_server.server import Server, ServerConfig

    address, port = parse_listen(listen)
    if plain_http and not insecure_network and (not address or not ipaddress.ip_address(address).is_loopback):
        raise UsageError(
            "--plain-http would send passwords and tokens over the network in the clear.",
            hint="Listen on loopback (--listen 127.0.0.1:8080), or say --insecure-network as well.",
        )
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    server = Server(
        ServerConfig(
            root=directory,
            state=state or directory / ".server",
            address=address,
            port=port,
            names=names,
            tls=not plain_http,
            plain_packs=parse_listen(plain_packs) if plain_packs is not None else None,
        )
    )

    def stop(number: int, frame: object) -> None:
        # Stopping waits for running requests; a signal handler must not.
        threading.Thread(target=server.stop, name="stop").start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    certificate = server.certificate
    if as_json:
        ready = {
            "type": "serving",
            "url": server.url,
            "port": server.listener.port,
            "plain_packs_port": server.plain_listener.port if server.plain_listener else None,
            "ca_fingerprint": certificate.fingerprint if certificate else "",
            "names": certificate.names if certificate else (),
            "repository": server.app.repository_id,
            "writable": server.objects.writable,
        }
        click.echo(msgspec.json.encode(ready).decode())
    else:
        click.echo(f"Serving {directory} at {server.url}")
        if certificate:
            click.echo(f"CA fingerprint (SHA-256): {certificate.fingerprint}")
            click.echo(f"Certificate for: {', '.join(certificate.names)}")
        if server.plain_listener:
            click.echo(f"Packs, which are encrypted, also by plain HTTP on port {server.plain_listener.port}")
        if not server.objects.writable:
            click.echo("The directory is read-only: restores only.")
        if not server.app.users.list():
            click.echo(f"There are no users yet: rekindle user add NAME --role capture --state {server.config.state}")
    sys.stdout.flush()
    announcer = announcer_of(server) if announce else None
    server.run()
    if announcer is not None:
        announcer.stop()


def announcer_of(server: Server) -> Announcer:
    """Answers on the local network for a server, started."""
    from rekindle_server.announce import Announcer
    from rekindle_server.certificates import own_names

    announcer = Announcer(
        server.listener.port,
        own_names,
        fingerprint=server.certificate.fingerprint if server.certificate else "",
        repository=server.app.repository_id,
    )
    announcer.start()
    return announcer


def parse_listen(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT``, ``:PORT`` or ``PORT`` -> address ("" for all) and port. Raises UsageError."""
    address, _, port = text.rpartition(":")
    address = address.strip("[]")
    try:
        if address:
            ipaddress.ip_address(address)
        number = int(port)
        if not 0 <= number <= 65535:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"'{text}' is not an address and port.", hint="Write 192.0.2.1:8443, [2001:db8::1]:8443 or :8443."
        ) from None
    return ("" if address in ("0.0.0.0", "::") else address), number  # noqa: S104 - meant so
