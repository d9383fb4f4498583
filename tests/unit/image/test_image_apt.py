"""The machine's own apt configuration says where Debian comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from rekindle_image.apt import (
    DEBIAN_KEYRING,
    Source,
    choose_mirrors,
    parse_deb822,
    parse_one_line,
    read_machine_sources,
    render_sources,
    transport_options,
)

from recovery.errors import NotFoundError

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
 contrib

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm

Types: deb
URIs: http://inline.example/debian
Suites: trixie
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcdef
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_deb822() -> None:
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert parse_deb822(DEB822) == [
        Source("http://mirror.example/debian", "bookworm", key),
        Source("http://mirror.example/debian", "bookworm-updates", key),
        Source("http://mirror.example/debian-security", "bookworm-security"),
        Source("http://inline.example/debian", "trixie"),
    ]


def test_one_line() -> None:
    text = """
# deb http://off.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib # why
deb [arch=amd64 signed-by=/etc/keys/own.gpg] http://own.example/debian bookworm-security main
deb-src http://mirror.example/debian bookworm main
"""
    assert parse_one_line(text) == [
        Source("http://mirror.example/debian", "bookworm"),
        Source("http://own.example/debian", "bookworm-security", "/etc/keys/own.gpg"),
    ]


def test_files_of_the_machine_are_read_in_apts_order(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (tmp_path / "sources.list.d/b.sources").write_text("Types: deb\nURIs: http://three.example/x\nSuites: y\n")
    (tmp_path / "sources.list.d/a.list").write_text("deb http://two.example/x y main\n")
    (tmp_path / "sources.list.d/c.sources.disabled").write_text("Types: deb\nURIs: http://off.example/x\nSuites: y\n")
    assert [s.uri for s in read_machine_sources(tmp_path)] == [
        "http://one.example/debian", "http://two.example/x", "http://three.example/x",
    ]  # fmt: skip
    assert read_machine_sources(tmp_path / "nothing") == []


def test_only_debian_is_taken_for_debian() -> None:
    sources = [
        Source("https://packages.other.example/apt", "cloud-sdk-bookworm"),
        Source("https://deb.other.example/node", "nodistro"),
        Source("http://mirror.example/debian", "bookworm-updates"),
        Source("http://mirror.example/debian", "bookworm"),
        Source("http://sec.example/debian-security", "bookworm-security"),
    ]
    mirrors = choose_mirrors(sources)
    assert mirrors.main.uri == "http://mirror.example/debian"
    assert mirrors.security.uri == "http://sec.example/debian-security"
    with pytest.raises(NotFoundError, match="no Debian mirror"):
        choose_mirrors(sources[:3])


def test_a_mirror_that_is_named_goes_first() -> None:
    sources = [
        Source("http://mirror.example/debian", "trixie"),
        Source("http://mirror.example/debian-security", "trixie-security"),
    ]
    mirrors = choose_mirrors(sources, "http://near.example/debian")
    assert (mirrors.main.uri, mirrors.security.uri) == (
        "http://near.example/debian",
        "http://near.example/debian-security",
    )
    assert choose_mirrors(sources, "http://n.example/d", "http://s.example/d").security.uri == "http://s.example/d"
    with pytest.raises(NotFoundError, match="security updates"):
        choose_mirrors(sources, "http://near.example/mirror/deb")


def test_security_updates_of_the_mediums_release_are_in_the_sources() -> None:
    text = render_sources(choose_mirrors(parse_deb822(DEB822)), "trixie")
    assert parse_deb822(text) == [
        Source("http://mirror.example/debian", "trixie", DEBIAN_KEYRING),
        Source("http://mirror.example/debian", "trixie-updates", DEBIAN_KEYRING),
        Source("http://mirror.example/debian-security", "trixie-security", DEBIAN_KEYRING),
    ]
    assert "non-free-firmware" in text


def test_the_key_of_one_release_gives_way_and_a_mirrors_own_key_stays() -> None:
    one = [
        Source("http://m.example/debian", "bookworm", "/usr/share/keyrings/debian-archive-bookworm-stable.gpg"),
        Source("http://m.example/debian-security", "bookworm-security", "/etc/keys/own.gpg"),
    ]
    text = render_sources(choose_mirrors(one), "trixie")
    assert text.count(f"Signed-By: {DEBIAN_KEYRING}\n") == 1
    assert text.count("Signed-By: /etc/keys/own.gpg\n") == 1


def test_transport_options_are_proxies_and_certificates_only() -> None:
    dump = """\
APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::CAInfo "/etc/ssl/own.pem";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "none";
DPkg::Pre-Install-Pkgs:: "/usr/sbin/something";
"""
    assert transport_options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CAInfo "/etc/ssl/own.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]
