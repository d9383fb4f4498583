"""What an unattended restore is told beforehand: ``rekindle.toml`` and ``rekindle.*`` words of the kernel. Pure.

Strict on purpose: an unknown key, a value of the wrong kind, or one thing said twice in two ways is a UsageError,
because nobody is there to ask. Messages name keys, never values of secrets.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_type_hints

import msgspec

from recovery.errors import UsageError
from recovery.plan.growth import wishes
from recovery.plan.rules import parse_rule

After = Literal["reboot", "poweroff", "stay"]
#: ``rekindle.*`` words that belong to other parts of the medium, and to nobody's answers.
OTHER_WORDS = ("ssh", "status", "keymap", "tui")
#: Seconds that a person has at least, and at most, to stop it.
SHORTEST_COUNTDOWN, LONGEST_COUNTDOWN = 5, 3600
SECRETS = ("password", "code", "secret", "luks_secret")
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_PREFIX = "rekindle."
_YES, _NO = ("", "1", "yes", "true", "on"), ("0", "no", "false", "off")


class NetworkAnswers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to set the network up; without it every card asks by DHCP. ``interface`` is a name or a MAC address."""

    interface: str
    dhcp: bool = True
    address: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    vlan: int | None = None
    bond: tuple[str, ...] = ()
    """Further interfaces that form a bond with ``interface``."""
    bond_mode: str = "active-backup"


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be answered beforehand; the table in docs/unattended.md explains each key."""

    unattended: bool = False
    server: str = ""
    fingerprint: str = ""
    repository: str = ""
    """Instead of a server: the id (or its first 8 digits up) of a repository on a disk of this machine."""
    user: str = ""
    password: str = ""
    code: str = ""
    secret: str = ""
    luks_secret: str = ""
    """The passphrase of the host's encrypted volumes."""
    host: str = ""
    point: str = "latest"
    disks: str | dict[str, str] = {}
    """Disk of the point -> rule; or ``same``: each to the very disk that was captured."""
    skip: tuple[str, ...] = ()
    """Disks of the point that are left out on purpose."""
    adapt: bool = True
    grow: bool = True
    grow_to: tuple[str, ...] = ()
    """What grows onto larger disks instead of the last partition, as ``rekindle plan --grow-to`` has it."""
    to_gpt: bool = False
    """A disk with an MBR gets a GPT on a target that is larger than 2 TiB."""
    use_swap: bool = False
    verify: bool = False
    skip_damaged: bool = False
    overwrite: bool = False
    """Disks found by size, not by serial number or WWN, may hold data."""
    accept: tuple[str, ...] = ()
    """Codes of warnings that are no doubt here."""
    countdown: int = 60
    after: After = "stay"
    boot_once: bool = False
    """The machine starts from this medium only this once, so that restarting it can't restore it again and again."""
    network: NetworkAnswers | None = None


def parse_answers(toml: str, command_line: str = "") -> Answers:
    """The answers of a file and of a kernel command line together. Raises UsageError for any doubt about them."""
    try:
        given: dict[str, Any] = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        # Its message quotes at most one character.
        raise UsageError(
            f"rekindle.toml is not TOML: {error}.", hint="See docs/unattended.md for an example."
        ) from None
    if isinstance(given.get("point"), datetime.datetime):
        given["point"] = given["point"].isoformat()
    _merge(given, words_to_answers(split_words(command_line)), "")
    try:
        answers = msgspec.convert(given, Answers)
    except msgspec.ValidationError as error:
        raise UsageError(f"The unattended answers are not right: {error}.", hint="See docs/unattended.md.") from None
    _refuse([*_missing(answers), *_wrong(answers)])
    return answers


def check_some(given: Mapping[str, Any]) -> None:
    """A part of the answers, whose rest is said elsewhere: as a medium's profile has it. Raises UsageError."""
    try:
        answers = msgspec.convert(given, Answers)
    except msgspec.ValidationError as error:
        raise UsageError(f"The unattended answers are not right: {error}.", hint="See docs/unattended.md.") from None
    _refuse(list(_wrong(answers)))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UsageError(f"The unattended answers are not right: {' '.join(problems)}", hint="See docs/unattended.md.")


def wanted(toml: str, command_line: str) -> bool:
    """Whether an unattended restore is asked for at all: the boot menu's word, or the file says so.

    A file that can't be read asks for one: a person must be told that it is broken.
    """
    words = split_words(command_line)
    if any(word.partition("=")[0] == "unattended" for word in words):
        return any(word.partition("=")[2].lower() not in _NO for word in words if word.startswith("unattended"))
    try:
        return tomllib.loads(toml).get("unattended", False) is not False
    except tomllib.TOMLDecodeError:
        return True


def split_words(command_line: str) -> list[str]:
    """The words after ``rekindle.``, without the prefix; double quotes protect spaces as the kernel has it."""
    words = [word.replace('"', "") for word in _WORD.findall(command_line)]
    return [word.removeprefix(_PREFIX) for word in words if word.startswith(_PREFIX)]


def own_words(command_line: str) -> str:
    """Only our words of the kernel's command line, as they are written there."""
    return " ".join(word for word in _WORD.findall(command_line) if word.replace('"', "").startswith(_PREFIX))


def words_to_answers(words: Iterable[str]) -> dict[str, Any]:
    """``host=pve1 disks.disk1=serial:X verify`` -> nested answers with the right kinds. Raises UsageError."""
    found: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name == "unattended" or name.partition(".")[0] in OTHER_WORDS:
            continue  # the first is for ``wanted``: the menu's word counts, whatever the file says
        _merge(found, _nested(name, text), "")
    return found


def _nested(name: str, text: str) -> dict[str, Any]:
    top, dot, rest = name.partition(".")
    if top == "disks" and dot:
        return {"disks": {rest: text}}
    if top == "network" and dot:
        return {"network": {rest: _value(get_type_hints(NetworkAnswers), rest, name, text)}}
    return {top: _value(get_type_hints(Answers), name, name, text)}


def _value(hints: Mapping[str, Any], key: str, name: str, text: str) -> Any:
    kind = hints.get(key)
    if kind is None or key == "network":
        raise UsageError(f"The kernel's word 'rekindle.{name}' is not known.", hint="See docs/unattended.md.")
    if kind is bool:
        if text.lower() not in (*_YES, *_NO):
            raise UsageError(f"The kernel's word 'rekindle.{name}' is neither yes nor no.")
        return text.lower() in _YES
    if not text:
        raise UsageError(f"The kernel's word 'rekindle.{name}' says nothing.", hint=f"Write rekindle.{name}=...")
    if kind in (int, int | None):
        if not text.isdecimal():
            raise UsageError(f"The kernel's word 'rekindle.{name}' is not a number.")
        return int(text)
    return text.split(",") if kind == tuple[str, ...] else text


def _merge(into: dict[str, Any], more: Mapping[str, Any], where: str) -> None:
    """Add what is new; what is there already must say the same."""
    for key, value in more.items():
        here = f"{where}{key}"
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value, f"{here}.")
        elif key in into and into[key] != value:
            raise UsageError(
                f"'{here}' is answered twice, in two ways.", hint="Say it once: in rekindle.toml or to the kernel."
            )
        else:
            into[key] = value


def _missing(answers: Answers) -> Iterator[str]:
    if not answers.host:
        yield "'host' is missing."
    if not answers.secret:
        yield "'secret', the passphrase or recovery key of the repository, is missing."
    if not answers.disks:
        yield "'disks' is missing: nothing says where to restore to."
    if not answers.repository:
        if bool(answers.code) == bool(answers.user or answers.password):
            yield "The server wants either 'code', or 'user' and 'password'."
        elif bool(answers.user) != bool(answers.password):
            yield "'user' and 'password' belong together."
    if answers.after == "reboot" and not (answers.code or answers.boot_once):
        yield (
            "'after' is \"reboot\", and nothing keeps the machine from starting this medium and restoring again: log "
            "in with a one-time 'code', or say boot_once = true when it starts from the medium only this once."
        )


def _wrong(answers: Answers) -> Iterator[str]:
    if answers.server and answers.repository:
        yield "Both 'server' and 'repository' are given."
    if answers.repository:
        if not re.fullmatch(r"[0-9a-f]{8,64}", answers.repository):
            yield "'repository' is not the beginning of a repository's id (8 hexadecimal digits up)."
        if answers.code or answers.user or answers.password:
            yield "A repository on a disk needs no login."
    if isinstance(answers.disks, str):
        if answers.disks not in ("", "same"):
            yield "'disks' is neither a table of rules nor \"same\"."
    else:
        yield from (f"'{name}' is both skipped and restored." for name in answers.skip if name in answers.disks)
        for name, rule in answers.disks.items():
            try:
                parse_rule(rule)
            except UsageError as error:
                yield f"disks.{name}: {error.message}"
    try:
        wishes(answers.grow_to, answers.grow)
    except UsageError as error:
        yield f"grow_to: {error.message}"
    if not SHORTEST_COUNTDOWN <= answers.countdown <= LONGEST_COUNTDOWN:
        yield f"'countdown' is not between {SHORTEST_COUNTDOWN} and {LONGEST_COUNTDOWN} seconds."
    try:
        parse_point(answers.point)
    except UsageError as error:
        yield error.message


def parse_point(text: str) -> str | float:
    """``latest``, the beginning of an id, or the time (seconds since the epoch) at or before which the point was
    created. Raises UsageError."""
    if text == "latest" or re.fullmatch(r"[0-9a-f]{8,64}", text):
        return text
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"'point' is '{text}'; it must be latest, a time such as 2026-11-20T03:00Z, or an id of 8 digits up."
        ) from None
    if moment.tzinfo is None:
        raise UsageError(f"'point' is '{text}', a time without its zone.", hint="Add Z for UTC, or +01:00.")
    return moment.timestamp()


def secret_words(command_line: str) -> list[str]:
    """Keys of secrets that stand on the kernel's command line, where every program and the boot log can read them."""
    return sorted({word.partition("=")[0] for word in split_words(command_line)} & set(SECRETS))
