"""``rekindle code``: one-time codes for somebody in front of a dead host."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from recovery.cli.user import json_option, open_state, show, state_option, when
from recovery.errors import UsageError

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """``30m``, ``24h``, ``7d`` -> seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})([mhd])", text.strip().lower())
    if match is None:
        raise UsageError(f"'{text}' is not a duration.", hint="Write 30m, 24h or 7d.")
    return int(match[1]) * _UNITS[match[2]]


@click.group()
def code() -> None:
    """Issue one-time codes: each restores one host, once, before it expires."""


@code.command("issue")
@click.option("--host", required=True, metavar="HOST", help="The host that may be restored with it.")
@click.option(
    "--valid", default="24h", show_default=True, metavar="TIME", help="How long it may be used: 30m, 24h, 7d."
)
@state_option
@json_option
def issue(host: str, valid: str, state: Path, as_json: bool) -> None:
    """Issue a code; it is shown this once."""
    from rekindle_server.codes import Codes

    entry, printable = Codes(open_state(state)).issue(host, parse_duration(valid))
    data = {**msgspec.to_builtins(entry), "code": printable}
    show(
        as_json,
        data,
        [f"One-time code for {host}:  {printable}", f"Once, until {when(entry.expires)}. Id {entry.id}."],
    )


@code.command("list")
@state_option
@json_option
def list_codes(state: Path, as_json: bool) -> None:
    """List the codes of the last 30 days, without the codes themselves."""
    from rekindle_server.codes import Codes

    codes = Codes(open_state(state)).list()
    lines = [f"{c.id}  {c.state:<8} {c.host:<30} until {when(c.expires)}  {c.used_from}".rstrip() for c in codes]
    show(as_json, codes, lines or ["There are no one-time codes."])


@code.command("revoke")
@click.argument("code_id", metavar="ID")
@state_option
@json_option
def revoke(code_id: str, state: Path, as_json: bool) -> None:
    """Revoke a code, and end what was opened with it."""
    from rekindle_server.codes import Codes

    Codes(open_state(state)).revoke(code_id)
    show(as_json, {"revoked": code_id}, [f"One-time code {code_id} is revoked."])
