"""Who may do what, and what is a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_server.names import check_prefix, parse_name
from rekindle_server.policy import Action, Grant, Role, allows

from recovery.errors import UsageError

HEX = "ab" * 32
NAMES = {
    "repository": "repo.json",
    "key": "keys/0123456789abcdef.json",
    "pack": f"packs/ab/{HEX}",
    "map": f"maps/{HEX}",
    "mine": f"points/pve1/1700000000000000-{HEX}",
    "journal": f"journals/pve1/{HEX}",
    "other journal": f"journals/db9/{HEX}",
    "other": f"points/db9/1700000000000000-{HEX}",
}
EVERYTHING = {(action, what) for action in ("read", "stat", "write", "delete") for what in NAMES}
#: role -> what it may do when limited to pve*, and the map is not one of its hosts'
ALLOWED: dict[Role, set[tuple[str, str]]] = {
    "admin": EVERYTHING,
    "restore": {(a, w) for a in ("read", "stat") for w in NAMES if w not in ("other", "other journal", "map")},
    "capture": {
        *((a, w) for a in ("read", "stat") for w in ("repository", "key", "mine")),
        ("stat", "pack"),
        ("stat", "journal"),
        *(("write", w) for w in ("pack", "map", "journal", "mine")),
    },
}


@pytest.mark.parametrize("role", ["capture", "restore", "admin"])
def test_the_whole_matrix(role: Role) -> None:
    actions: tuple[Action, ...] = ("read", "stat", "write", "delete")
    grant = Grant(actor="x", role=role, hosts=("pve*",))
    allowed = {
        (action, what)
        for action in actions
        for what, name in NAMES.items()
        if allows(grant, action, parse_name(name), lambda digest: False)
    }
    assert allowed == ALLOWED[role]


@pytest.mark.parametrize("role", ["capture", "restore"])
def test_the_maps_of_its_own_hosts_only_are_read(role: Role) -> None:
    grant = Grant(actor="x", role=role, hosts=("pve1",))
    assert allows(grant, "read", parse_name(NAMES["map"]), lambda digest: digest == HEX)
    assert not allows(grant, "read", parse_name(NAMES["map"]), lambda digest: digest != HEX)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../repo.json",
        "packs/../repo.json",
        "packs/ab/../../repo.json",
        ".server/server.sqlite",
        ".incoming/lock",
        "repo.json/",
        "repo.json\n",
        "./repo.json",
        "keys/..json",
        f"packs/cd/{HEX}",
        f"packs/ab/{HEX.upper()}",
        f"maps/{HEX}\0",
        f"maps//{HEX}",
        f"points/../1700000000000000-{HEX}",
        f"points/./1700000000000000-{HEX}",
        f"points/a/b/1700000000000000-{HEX}",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        parse_name(name)


@pytest.mark.parametrize("text", ["a" * 511 + "!", "a-" * 255 + "!", "a/" * 255 + "!"])
def test_no_prefix_takes_longer_than_its_length(text: str) -> None:
    """One that could be matched in many ways would keep the whole server busy for hours; here it would hang."""
    with pytest.raises(UsageError):
        check_prefix(text)


@given(st.text(max_size=40))
def test_a_prefix_that_is_accepted_cannot_leave_the_directory(text: str) -> None:
    try:
        check_prefix(text)
    except UsageError:
        return
    assert not text.startswith(("/", "."))
    assert not any(part.startswith(".") for part in text.split("/") if part)
