"""Keys: both ways in give the same master key; wrong and mistyped secrets are told apart and refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import AccessError, IntegrityError
from recovery.format.keys import (
    KeyFile,
    RepositoryKeys,
    format_recovery_key,
    looks_like_recovery_key,
    new_master_key,
    parse_recovery_key,
    unwrap,
    wrap_with_passphrase,
    wrap_with_recovery_key,
)


@pytest.mark.strong_secrets
def test_passphrase_opens_and_a_wrong_one_does_not() -> None:
    master = new_master_key()
    stored = msgspec.json.decode(msgspec.json.encode(wrap_with_passphrase(master, "grün ist 3 Uhr")), type=KeyFile)
    assert (stored.memory_kib, stored.iterations, stored.lanes) == (65536, 3, 4)
    assert unwrap(stored, "grün ist 3 Uhr") == master
    with pytest.raises(AccessError, match="passphrase does not open"):
        unwrap(stored, "grün ist 4 Uhr")


def test_recovery_key_opens_as_a_person_types_it() -> None:
    master = new_master_key()
    stored, printable = wrap_with_recovery_key(master)
    assert unwrap(stored, printable) == master
    assert unwrap(stored, printable.lower().replace("-", " ")) == master
    other = wrap_with_recovery_key(master)[1]
    with pytest.raises(AccessError, match="does not open"):
        unwrap(stored, other)


@given(st.binary(min_size=20, max_size=20), st.integers(0, 44), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_mistyped_recovery_key_is_said_to_be_mistyped(secret: bytes, position: int, letter: str) -> None:
    printable = format_recovery_key(secret)
    assert parse_recovery_key(printable) == secret
    position %= len(printable)
    if printable[position] in ("-", letter):
        return
    wrong = printable[:position] + letter + printable[position + 1 :]
    with pytest.raises(AccessError, match="mistyped|does not match"):
        parse_recovery_key(wrong)
    assert not looks_like_recovery_key(wrong)


def test_a_short_recovery_key_says_how_long_it_should_be() -> None:
    with pytest.raises(AccessError, match="7 characters instead of 36"):
        parse_recovery_key("ABCD-EFG")


def test_impossible_parameters_of_a_forged_key_file_do_not_eat_the_memory() -> None:
    forged = msgspec.structs.replace(wrap_with_passphrase(new_master_key(), "x"), memory_kib=2**40)
    with pytest.raises(IntegrityError):
        unwrap(forged, "x")


def test_keys_differ_by_purpose_and_repository() -> None:
    one, two = RepositoryKeys(bytes(32), "a"), RepositoryKeys(bytes(32), "b")
    every = [k for r in (one, two) for k in (r.chunk_id_key, r.frame_key, r.map_key, r.point_key, r.public_key)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    "forged",
    [
        {"lanes": 64, "memory_kib": 8},
        {"lanes": 0},
        {"iterations": 0},
        {"memory_kib": 2 * 1024 * 1024},
        {"salt": "00"},
        {"nonce": "00"},
        {"nonce": "xy"},
    ],
)
def test_a_forged_key_file_is_said_to_be_damaged(forged: dict[str, object]) -> None:
    key_file = msgspec.structs.replace(wrap_with_recovery_key(bytes(32))[0], kind="passphrase", **forged)
    with pytest.raises(IntegrityError):
        unwrap(key_file, "a passphrase")
