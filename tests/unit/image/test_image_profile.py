"""A profile is read strictly: every mistake is one clear error that names file, line and key."""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle_image.profile import Profile, read_profile
from rekindle_image.site import Card, kernel_words, network_files
from rekindle_image.toml_lines import key_lines

from recovery.cli.iso import check_answers, make_request
from recovery.errors import UsageError

KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
WHOLE = f"""\
firmware = "all"
packages = ["ipmitool", "mstflint"]
drivers = ["mpt3sas"]
keymap = "de-latin1"
ssh_keys = [
    "{KEY} ops@example",   # the night shift
]
serial = "ttyS1"
compression = 12
kernel_parameters = ["nomodeset", "pci=noaer"]

[server]
url = "https://backup.example.org:8443/"
ca = "{"0a" * 32}"

[[network]]
interface = "eno1"
address = ["192.0.2.10/24", "2001:db8::10/64"]
gateway = "192.0.2.1"
dns = ["192.0.2.53"]

[[network]]
interface = "52-54-00-12-34-56"
vlan = 42

[unattended]
host = "pve1"
after = "poweroff"
verify = true

[unattended.disks]
disk1 = "serial:ABC"
"""


def read(tmp_path: Path, text: str) -> Profile:
    file = tmp_path / "site.toml"
    file.write_text(text)
    return read_profile(file, check_answers)


def test_a_whole_profile(tmp_path: Path) -> None:
    profile = read(tmp_path, WHOLE)
    assert (profile.server, profile.firmware, profile.serial) == ("https://backup.example.org:8443", "all", "ttyS1")
    assert profile.authority is not None
    assert profile.ssh_keys == (f"{KEY} ops@example",)
    assert profile.kernel_parameters == ("nomodeset", "pci=noaer")
    assert profile.network == (
        Card("eno1", ("192.0.2.10/24", "2001:db8::10/64"), ("192.0.2.1",), ("192.0.2.53",)),
        Card("52:54:00:12:34:56", vlan=42),
    )
    assert list(kernel_words(profile.unattended)) == [
        "rekindle.host=pve1", "rekindle.after=poweroff", "rekindle.verify=yes", "rekindle.disks.disk1=serial:ABC",
    ]  # fmt: skip
    assert profile.places["keymap"].endswith("site.toml:4: keymap")


def test_the_words_of_the_menu_are_what_the_unattended_mode_reads(tmp_path: Path) -> None:
    from recovery.plan.answers import parse_answers

    words = " ".join(kernel_words(read(tmp_path, WHOLE).unattended))
    answers = parse_answers('secret = "s"\ncode = "c"\n', f"quiet rekindle.unattended {words} console=tty0")
    assert (answers.host, answers.after, answers.verify, answers.disks) == (
        "pve1", "poweroff", True, {"disk1": "serial:ABC"},
    )  # fmt: skip


MISTAKES = [
    ("firmwear = 'all'", 1, "firmwear is not known", "Did you mean 'firmware'?"),
    ("firmware = 'laptop'", 1, "firmware", "server, all, none"),
    ("\nfirmware = 1", 2, "firmware is not a text", "quotes"),
    ("compression = '19'", 1, "compression is not a number", ""),
    ("compression = 40", 1, "compression", ""),
    ("packages = 'ipmitool'", 1, "packages is not a list", ""),
    ("packages = [\n 'ok',\n 'Bad Name']", 1, "'Bad Name' is not the name of a Debian package", ""),
    ("packages = ['jq', 'jq']", 1, "packages has something twice", ""),
    ("drivers = ['../x']", 1, "is not the name of a driver", ""),
    ("keymap = 'de; reboot'", 1, "is not a keyboard layout", ""),
    ("ssh_keys = ['ssh-ed25519 AAAA']", 1, "cut off or damaged", ".pub"),
    ("ssh_keys = ['-----BEGIN OPENSSH PRIVATE KEY-----']", 1, "private key", ""),
    ("serial = 'ttyUSB0'", 1, "serial", ""),
    ("server = 'https://x'", 1, "server is not a table", "[server]"),
    ("[server]\nurl = 'http://x'", 2, "server.url", "https"),
    ("[server]\nurl = 'https://x'\nca = 'abc'", 3, "server.ca", ""),
    ("[server]\nurl = 'https://me:geheim@x'", 2, "secrets", ""),
    ("[server]\nfingerprint = 'abc'", 2, "server.fingerprint is not known", "url, ca"),
    ("[network]\ninterface = 'eno1'", 1, "network is not a list of cards", "[[network]]"),
    ("[[network]]\ninterface = 'eno1'\n[[network]]\naddress = '192.0.2.1/24'", 3, "has no 'interface'", ""),
    ("[[network]]\ninterface = 'eno1'\n[[network]]\ninterface = 'eno2'\naddress = '192.0.2.1'", 5,
     "network.address is not right", "192.0.2.10/24"),
    ("[[network]]\ninterface = 'eno1'\naddress = '192.0.2.0/24'", 3, "a network's address", ""),
    ("[[network]]\ninterface = 'eno1'\ngateway = '192.0.2.1'", 3, "needs an 'address'", ""),
    ("[[network]]\ninterface = 'eno1'\nvlan = 5000", 3, "network.vlan", "1 to 4094"),
    ("[[network]]\ninterface = 'eno1'\n\n[[network]]\ninterface = 'eno1'", 5, "twice", ""),
    ("[[network]]\ninterface = 'a card'", 2, "neither a card's name nor a MAC", ""),
    ("[unattended]\nhost = 'x'\nsecret = 'geheim'", 3, "unattended.secret is a secret", "labelled REKINDLE"),
    ("[unattended]\nhost = 'x'\npassword = 'geheim'", 3, "unattended.password is a secret", ""),
    ("[unattended]\nhosts = 'x'", 2, "unattended.hosts", "unattended.md"),
    ("[unattended]\nhost = 'x'\ncountdown = 1", 3, "unattended.countdown", ""),
    ("[unattended]\nhost = 'x'\ndisks.disk1 = 'what'", 3, "unattended.disks", ""),
    ("[unattended]\nhost = \"a'b\"", 2, "quotes", ""),
    ("keymap =", 1, "not TOML", "example"),
    ("keymap = 'us'\nkeymap = 'de'", 2, "not TOML", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text + "\n")
    assert message in caught.value.message
    assert "geheim" not in caught.value.message.replace("me:geheim@x", "")
    assert hint in caught.value.hint
    where = f"{tmp_path / 'site.toml'}:{line}: "
    assert caught.value.message.startswith(where) or f"line {line}" in caught.value.message


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_profile(tmp_path / "missing.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_profile(tmp_path / "binary")


def test_the_example_in_the_documentation_is_a_profile(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/medium.md").read_text()
    example = page.split("```toml\n", 1)[1].split("```", 1)[0]
    assert read(tmp_path, example).network


OPTIONS: dict[str, Any] = dict.fromkeys(
    ("server", "ca", "output", "firmware", "cache", "date", "compression", "netboot", "serial", "mirror",
     "security_mirror"),
) | {"kernel_parameters": (), "url": "http://192.0.2.1/rekindle"}  # fmt: skip


def test_an_option_goes_before_the_profile_and_the_profile_before_the_default(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(WHOLE)
    options = {**OPTIONS, "cache": str(tmp_path), "output": str(tmp_path / "x.iso")}
    request = make_request(file, {**options, "firmware": "none"})
    assert (request.firmware, request.compression, request.serial) == ("none", 12, "ttyS1")
    assert request.unattended[0] == "rekindle.host=pve1"
    added = make_request(file, {**options, "kernel_parameters": ("norandmaps", "nomodeset")})
    assert added.kernel_parameters == ("nomodeset", "pci=noaer", "norandmaps")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(UsageError, match="address of the server is missing"):
        make_request(tmp_path / "empty.toml", options)
    request = make_request(None, {**options, "server": "https://b", "ca": "0a" * 32})
    assert (request.firmware, request.compression, request.serial) == ("server", 19, "ttyS0")


def test_files_for_networkd() -> None:
    files = network_files((Card("eno1", ("192.0.2.10/24",), ("192.0.2.1",), ("192.0.2.53",)), Card("eno1", vlan=42)))
    assert sorted(files) == ["50-site-eno1-vlan42.netdev", "50-site-eno1-vlan42.network", "50-site-eno1.network"]
    assert files["50-site-eno1.network"].endswith(
        "[Network]\nVLAN=vlan42\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nDNS=192.0.2.53\n"
    )
    assert "DHCP=yes" in files["50-site-eno1-vlan42.network"]
    only_vlan = network_files((Card("52:54:00:12:34:56", vlan=7),))
    assert "MACAddress=52:54:00:12:34:56\n" in only_vlan["50-site-525400123456.network"]
    assert "DHCP" not in only_vlan["50-site-525400123456.network"]


def test_lines_of_keys_in_all_their_shapes() -> None:
    text = '''
a = 1 # b = 2
"quoted key" = """
no = "key"
"""
list = [
  { x = 1 },
  "y = 2",
]
c.d = 3
[t.u]
e = "[not.a.table]"
[[r]]
f = 1
[[r]]
f = 2
[r.sub]
g = 1
'''
    tomllib.loads(text)
    lines = key_lines(text)
    assert lines[("a",)] == 2
    assert lines[("quoted key",)] == 3
    assert ("no",) not in lines
    assert lines[("list",)] == 6
    assert lines[("c",)] == lines[("c", "d")] == 10
    assert lines[("t", "u", "e")] == 12
    assert (lines[("r", 0, "f")], lines[("r", 1, "f")], lines[("r", 1, "sub", "g")]) == (14, 16, 18)


@given(st.text(max_size=80))
def test_any_text_is_a_profile_or_one_error(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "p.toml"
        file.write_bytes(text.encode("utf-8", errors="replace"))
        try:
            read_profile(file, check_answers)
        except UsageError as error:
            assert error.message
