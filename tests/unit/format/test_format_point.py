"""Points and names: signed, encrypted, and strict about what can be a name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.errors import IntegrityError, UsageError
from recovery.format.keys import RepositoryKeys
from recovery.format.names import check_host, digest, map_name, pack_name, parse_name, point_name
from recovery.format.point import (
    DiskMapRef,
    PointBody,
    PointDisk,
    PointHeader,
    decode_header,
    decode_point,
    encode_point,
)
from tests.support.examples import examples

KEYS = RepositoryKeys(bytes(range(32)), "ab" * 16)
HEADER = PointHeader(
    version=1,
    repository="ab" * 16,
    host="hv1",
    created=1_790_000_000.5,
    maps=(DiskMapRef(disk="disk1", map="0" * 64),),
)
BODY = PointBody(
    disks=(PointDisk(name="disk1", size=2**33, sector_size=512, chunk_size=2**20, root="ff" * 32),),
    consistency="offline",
    firmware="uefi",
    note="before the upgrade — Größe",
)


def test_a_point_comes_back_with_its_id() -> None:
    id, data = encode_point(KEYS, HEADER, BODY)
    point = decode_point(KEYS, data)
    assert (point.id, point.header, point.body) == (id, HEADER, BODY)
    assert decode_header(data) == HEADER
    assert id == digest(data)
    assert b"upgrade" not in data and b"hv1" in data


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_no_flipped_bit_passes_the_signature(data: st.DataObject) -> None:
    stored = bytearray(encode_point(KEYS, HEADER, BODY)[1])
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IntegrityError):
        decode_point(KEYS, bytes(stored))


def test_another_repositorys_point_and_a_cut_one_are_refused() -> None:
    data = encode_point(KEYS, HEADER, BODY)[1]
    with pytest.raises(IntegrityError, match="signature"):
        decode_point(RepositoryKeys(bytes(32), "ab" * 16), data)
    for cut in (0, 8, 30, len(data) - 1):
        with pytest.raises(IntegrityError):
            decode_point(KEYS, data[:cut])


def test_names_are_understood() -> None:
    name = digest(b"x")
    assert parse_name("repo.json") is not None
    pack = parse_name(pack_name(name))
    assert pack is not None and (pack.kind, pack.digest) == ("pack", name)
    assert parse_name(map_name(name)) is not None
    point = parse_name(point_name("hv1.example", 1_790_000_000.25, name))
    assert point is not None and (point.host, point.created, point.digest) == (
        "hv1.example",
        1_790_000_000_250_000,
        name,
    )


@pytest.mark.parametrize(
    "name",
    [
        "", "/repo.json", "../repo.json", "repo.json/", "repo.json\n", "packs/../" + "a" * 64, "packs/ab/" + "c" * 64,
        "maps/" + "A" * 64, "maps/" + "a" * 63, "points/../0000000000000000-" + "a" * 64, "points/.x/1-a",
        "keys/../../etc/passwd", "keys/zz.json", "packs/aa/" + "a" * 64 + "/x", "état",
    ],
)  # fmt: skip
def test_odd_names_name_nothing(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize("host", ["", ".", "..", "-x", "a b", "a/b", "x" * 65, "ä"])
def test_a_hosts_name_must_be_plain(host: str) -> None:
    with pytest.raises(UsageError):
        check_host(host)
