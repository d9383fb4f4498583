"""A profile: everything about a medium in one TOML file, checked strictly before anything is built.

Each error names the file, the line and the key. ``docs/medium.md`` has an example with every key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from recovery.errors import RekindleError, UsageError
from rekindle_image.request import (
    Authority,
    Firmware,
    parse_authority,
    parse_compression,
    parse_firmware,
    parse_mirror,
    parse_serial,
    parse_server,
)
from rekindle_image.site import (
    Card,
    parse_address,
    parse_driver,
    parse_host_address,
    parse_interface,
    parse_keymap,
    parse_package,
    parse_parameter,
    parse_ssh_key,
    parse_vlan,
    parse_word,
)
from rekindle_image.toml_lines import Place, key_lines

T = TypeVar("T")

#: Answers that are secrets: a medium lies about, and its squashfs can be read by anybody.
_SECRETS = ("password", "code", "secret", "luks_secret")
_TOP = ("firmware", "packages", "drivers", "kernel_parameters", "keymap", "ssh_keys", "serial", "compression",
        "mirror", "security_mirror", "server", "network", "unattended")  # fmt: skip
_SERVER = ("url", "ca")
_NETWORK = ("interface", "address", "gateway", "dns", "vlan")
#: Larger is no profile.
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Profile:
    """What a profile said; None and empty for what it left to the command line and the defaults."""

    server: str = ""
    authority: Authority | None = None
    firmware: Firmware | None = None
    compression: int | None = None
    serial: str | None = None
    mirror: str = ""
    security_mirror: str = ""
    packages: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    kernel_parameters: tuple[str, ...] = ()
    keymap: str = ""
    ssh_keys: tuple[str, ...] = ()
    network: tuple[Card, ...] = ()
    unattended: Mapping[str, Any] = field(default_factory=dict)
    """Answers as they stand there; kernel words are made of them (``site.kernel_words``)."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Key -> ``FILE:LINE: key``, for an error that is found only later (a keymap that Debian has not)."""


def read_profile(path: Path, check_answers: Callable[[Mapping[str, Any]], None] | None = None) -> Profile:
    """Read and check a profile. ``check_answers`` raises RekindleError for unattended answers that are not right.

    Raises UsageError that names file, line and key.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"'{path}' is too large for a profile.")
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"The profile '{path}' cannot be read: {why}.", hint="Give a TOML file.") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path}: this is not TOML: {error}.", hint="docs/medium.md has an example of a profile."
        ) from None
    return _Reader(path, data, key_lines(text)).profile(check_answers)


class _Reader:
    def __init__(self, path: Path, data: dict[str, Any], lines: dict[Place, int]) -> None:
        self._path, self._data, self._lines = path, data, lines

    def profile(self, check_answers: Callable[[Mapping[str, Any]], None] | None) -> Profile:
        data = self._data
        self._known((), data, _TOP)
        server = self._table(("server",))
        self._known(("server",), server, _SERVER)
        unattended = self._table(("unattended",))
        for key in _SECRETS:
            if key in unattended:
                self._fail(
                    ("unattended", key), "is a secret; a medium must not carry one",
                    f"Put it into rekindle.toml on a volume labelled REKINDLE, which you lock away: {key} = ...",
                )  # fmt: skip
        for key, value in unattended.items():
            self._each_word(("unattended", key), value)
        if unattended and check_answers is not None:
            try:
                check_answers(unattended)
            except RekindleError as error:
                key = next((k for k in unattended if re.search(rf"\b{re.escape(k)}\b", error.message)), "")
                place: Place = ("unattended", key) if key else ("unattended",)
                self._fail(place, f"is not right: {error.message}", error.hint)
        return Profile(
            server=self._value(("server", "url"), server.get("url"), parse_server) or "",
            authority=self._value(("server", "ca"), server.get("ca"), self._authority),
            firmware=self._value(("firmware",), data.get("firmware"), parse_firmware),
            compression=self._compression(data.get("compression")),
            serial=self._value(("serial",), data.get("serial"), parse_serial),
            mirror=self._value(("mirror",), data.get("mirror"), lambda text: parse_mirror(text, "mirror")) or "",
            security_mirror=self._value(
                ("security_mirror",), data.get("security_mirror"), lambda text: parse_mirror(text, "security_mirror")
            ) or "",
            packages=self._list(("packages",), data.get("packages"), parse_package),
            drivers=self._list(("drivers",), data.get("drivers"), parse_driver),
            kernel_parameters=self._list(("kernel_parameters",), data.get("kernel_parameters"), parse_parameter),
            keymap=self._value(("keymap",), data.get("keymap"), parse_keymap) or "",
            ssh_keys=self._list(("ssh_keys",), data.get("ssh_keys"), parse_ssh_key),
            network=self._cards(),
            unattended=unattended,
            places={str(place[0]): self._where(place) for place in self._lines if len(place) == 1},
        )  # fmt: skip

    def _cards(self) -> tuple[Card, ...]:
        rows = self._data.get("network", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self._fail(
                ("network",), "is not a list of cards", "Write [[network]] with two brackets, once for each card."
            )
        cards: list[Card] = []
        for number, row in enumerate(rows):
            at: Place = ("network", number)
            self._known(at, row, _NETWORK)
            if "interface" not in row:
                self._fail(at, "has no 'interface'", "Name the card, as in eno1 or by its MAC address.")
            card = Card(
                interface=self._value((*at, "interface"), row["interface"], parse_interface) or "",
                addresses=self._list((*at, "address"), row.get("address"), parse_address, single=True),
                gateways=self._list((*at, "gateway"), row.get("gateway"), parse_host_address, single=True),
                dns=self._list((*at, "dns"), row.get("dns"), parse_host_address, single=True),
                vlan=self._vlan((*at, "vlan"), row.get("vlan")),
            )
            if card.gateways and not card.addresses:
                self._fail((*at, "gateway"), "needs an 'address'", "Without one the card asks by DHCP for both.")
            if any(card.interface == other.interface and card.vlan == other.vlan for other in cards):
                self._fail((*at, "interface"), f"names {card.interface} twice", "Give all its addresses as one list.")
            cards.append(card)
        return tuple(cards)

    def _authority(self, text: str) -> Authority:
        file = Path(text).expanduser()
        beside = self._path.parent / file
        return parse_authority(str(beside) if beside.is_file() else text)

    def _compression(self, value: object) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._fail(("compression",), "is not a number", "Choose 1 (fast, large) to 22; 19 is usual.")
        return self._checked(("compression",), value, parse_compression)

    def _vlan(self, place: Place, value: object) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._fail(place, "is not a number", "VLAN ids are 1 to 4094.")
        return self._checked(place, value, parse_vlan)

    def _each_word(self, place: Place, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                self._each_word((*place, key), inner)
        else:
            self._checked(place, value, parse_word)

    # -- shapes ------------------------------------------------------------------------------------------------------

    def _table(self, place: Place) -> dict[str, Any]:
        value = self._data.get(str(place[0]), {})
        if not isinstance(value, dict):
            self._fail(place, "is not a table", f"Write [{place[0]}] on a line of its own, and its keys below.")
        return value

    def _known(self, place: Place, table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                meant = f"Did you mean '{near[0]}'? " if near else ""
                self._fail((*place, key), "is not known", f"{meant}There are: {', '.join(keys)}.")

    def _value(self, place: Place, value: object, parse: Callable[[str], T]) -> T | None:
        if value is None:
            return None
        if not isinstance(value, str):
            self._fail(place, "is not a text", 'Put it into quotes: "..."')
        return self._checked(place, value, parse)

    def _list(self, place: Place, value: object, parse: Callable[[str], T], *, single: bool = False) -> tuple[T, ...]:
        if value is None:
            return ()
        if single and isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._fail(place, "is not a list of texts", 'Write it as ["...", "..."].')
        parsed = [self._checked(place, item, parse) for item in value]
        if len(set(parsed)) != len(parsed):
            self._fail(place, "has something twice", "Say it once.")
        return tuple(parsed)

    def _checked(self, place: Place, value: Any, parse: Callable[[Any], T]) -> T:
        try:
            return parse(value)
        except UsageError as error:
            self._fail(place, f"is not right: {error.message}", error.hint)

    def _where(self, place: Place) -> str:
        line = next((self._lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self._lines), 1)
        return f"{self._path}:{line}: {'.'.join(str(part) for part in place if isinstance(part, str))}"

    def _fail(self, place: Place, what: str, hint: str = "") -> NoReturn:
        raise UsageError(f"{self._where(place)} {what}{'' if what.endswith('.') else '.'}", hint=hint)
