"""``rekindle iso``: make the bootable recovery medium, write it to a stick, check it, boot it over the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from recovery.cli.iso_medium import netboot, verify, write
from recovery.cli.progress import progress_listener
from recovery.errors import NotFoundError, UsageError
from recovery.events import Event, Listener, Message, Progress, StepFinished, StepStarted

if TYPE_CHECKING:
    from rekindle_image.request import ImageRequest


@click.group()
def iso() -> None:
    """Build the bootable recovery medium, write it to a stick, check it, boot it over the network."""


@iso.command()
@click.option(
    "--profile",
    "profile_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Everything about the medium in a TOML file (docs/medium.md); the options below go before it.",
)
@click.option("--server", metavar="URL", help="Address of the repository server, pre-filled on the medium.")
@click.option("--ca", metavar="FINGERPRINT|FILE", help="The server's CA: SHA-256 fingerprint or PEM file.")
@click.option("--output", metavar="FILE", help="Where the ISO goes (default: rekindle-<day>.iso here).")
@click.option("--firmware", metavar="server|all|none", help="Firmware flavour (default: server).")
@click.option("--cache", metavar="DIR", help="Where parts are kept between builds (default: ~/.cache/rekindle).")
@click.option("--date", metavar="YYYY-MM-DD|SECONDS", help="Date of everything on the medium (default: today).")
@click.option("--compression", type=int, metavar="LEVEL", help="zstd level (default: 19); 1 is fast and larger.")
@click.option("--netboot", metavar="DIR", help="Also lay out this folder for network boot.")
@click.option(
    "--url",
    default="http://192.0.2.1/rekindle",
    metavar="URL",
    help="Where the machines will find the folder of --netboot.",
)
@click.option("--serial", help="The serial line that gets menu and console (default: ttyS0).")
@click.option(
    "--kernel-parameter",
    "kernel_parameters",
    multiple=True,
    metavar="WORD",
    help="Of every entry of the boot menu (repeatable).",
)
@click.option("--mirror", metavar="URL", help="Debian mirror (default: the one this machine's apt uses).")
@click.option("--security-mirror", metavar="URL", help="Mirror of Debian's security updates.")
@click.option("--json", "as_json", is_flag=True, help="Events and result as JSON lines.")
def build(profile_file: Path | None, as_json: bool, **options: Any) -> None:
    """Build a hybrid ISO that boots by BIOS, UEFI and UEFI with Secure Boot, from CD, USB stick or network.

    It carries the server's address and the fingerprint of its CA, and no secret.
    """
    try:
        from rekindle_image import recipe
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("rekindle_image"):
            raise
        raise NotFoundError(
            "The image builder is not installed.", hint="Run from a checkout (scripts/setup)."
        ) from error

    request = make_request(profile_file, options)
    console = Console(stderr=True)
    if as_json:
        with progress_listener(as_json=True) as listener:
            medium = recipe.build_medium(request, listener)
        result = {
            "type": "medium",
            "iso": str(medium.iso),
            "size": medium.size,
            "sha256": medium.sha256,
            "files": [str(file) for file in medium.files],
        }
        click.echo(json.dumps(result))
        return
    with console.status("Checking") as status:
        medium = recipe.build_medium(request, _show(console, status.update))
    for file in medium.files:
        console.print(f"  {file}", style="dim", highlight=False, soft_wrap=True)
    # The one line for scripts and people that is the result.
    click.echo(medium.iso)


def make_request(profile_file: Path | None, options: Mapping[str, Any]) -> ImageRequest:
    """Profile, then options, then defaults. Raises UsageError."""
    from rekindle_image import request as words
    from rekindle_image.profile import Profile, read_profile
    from rekindle_image.site import kernel_words, parse_parameter

    profile = Profile() if profile_file is None else read_profile(profile_file, check_answers)
    server = words.parse_server(options["server"]) if options["server"] is not None else profile.server
    authority = words.parse_authority(options["ca"]) if options["ca"] is not None else profile.authority
    if not server or authority is None:
        raise UsageError(
            f"The {'address of the server' if not server else 'fingerprint of the server'} is missing.",
            hint="Give --server and --ca, or 'url' and 'ca' in the [server] table of a profile.",
        )
    epoch = words.parse_date(options["date"])
    return words.ImageRequest(
        server=server,
        authority=authority,
        output=words.parse_output(options["output"], epoch),
        cache=words.parse_directory(options["cache"], "--cache") or words.default_cache(),
        epoch=epoch,
        firmware=words.parse_firmware(options["firmware"] or profile.firmware or "server"),
        compression=words.parse_compression(_first(options["compression"], profile.compression, 19)),
        serial=words.parse_serial(options["serial"] or profile.serial or "ttyS0"),
        netboot=words.parse_directory(options["netboot"], "--netboot"),
        netboot_url=words.parse_netboot_url(options["url"]),
        mirror=words.parse_mirror(options["mirror"] or profile.mirror, "--mirror"),
        security_mirror=words.parse_mirror(options["security_mirror"] or profile.security_mirror, "--security-mirror"),
        packages=profile.packages,
        drivers=profile.drivers,
        kernel_parameters=tuple(
            dict.fromkeys((*profile.kernel_parameters, *map(parse_parameter, options["kernel_parameters"])))
        ),
        keymap=profile.keymap,
        ssh_keys=profile.ssh_keys,
        network=profile.network,
        unattended=tuple(kernel_words(profile.unattended)),
        places=profile.places,
    )


def check_answers(table: Mapping[str, Any]) -> None:
    """Unattended answers of a profile; it has not all of them, the secrets come from elsewhere. Raises UsageError."""
    from rekindle_image.site import kernel_words

    from recovery.plan.answers import parse_answers

    # What is missing is filled in, so that only what is there is judged; as words, because that is how it travels.
    rest: dict[str, str] = {"host": "x", "disks": "same", "secret": "x"}
    if not table.get("repository"):
        rest["code"] = "x"
        if table.get("user"):
            del rest["code"]
            rest["password"] = "x"  # noqa: S105 - a stand-in
    missing = {key: value for key, value in rest.items() if key not in table}
    parse_answers("", " ".join(f'"{word}"' for word in kernel_words({**table, **missing})))


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _show(console: Console, update: Callable[[str], None]) -> Listener:
    title = ""

    def tell(event: Event) -> None:
        nonlocal title
        match event:
            case StepStarted():
                title = f"{event.number}/{event.of} {event.title}"
                update(title)
            case Progress() if event.note:
                update(f"{title}  [dim]{_escape(event.note)}[/dim]")
            case Message():
                update(f"{title}  [dim]{_escape(event.text)}[/dim]")
            case StepFinished():
                console.print(
                    f"[green]√[/green] {title}: {event.summary} [dim]({event.seconds:.0f} s)[/dim]", highlight=False
                )

    return tell


def _escape(text: str) -> str:
    return text.replace("[", "\\[")[:90]


for command in (write, verify, netboot):
    iso.add_command(command)
