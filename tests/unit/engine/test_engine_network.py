from __future__ import annotations

import json
from pathlib import Path

import pytest

from recovery.commands import Completed, FakeRunner, use_runner
from recovery.engine import network
from recovery.engine.api import NetworkConfig
from recovery.engine.network import configure, network_files, vlan_name
from recovery.errors import CommandError, NotFoundError, UsageError


def test_dhcp_and_static() -> None:
    assert network_files(NetworkConfig(interface="eno1")) == {
        "10-rekindle-eno1.network": "[Match]\nName=eno1\n\n[Network]\nDHCP=yes\n"
    }
    config = NetworkConfig(
        interface="eno1", dhcp=False, address="192.0.2.10/24", gateway="192.0.2.1", dns=("192.0.2.53", "2001:db8::53")
    )
    (text,) = network_files(config).values()
    assert text.splitlines()[3:] == [
        "[Network]", "Address=192.0.2.10/24", "Gateway=192.0.2.1", "DNS=192.0.2.53", "DNS=2001:db8::53",
    ]  # fmt: skip


def test_a_vlan_on_top() -> None:
    files = network_files(NetworkConfig(interface="eno1", vlan=42))
    assert "VLAN=eno1.42" in files["10-rekindle-eno1.network"]
    assert "DHCP" not in files["10-rekindle-eno1.network"]
    assert "Id=42" in files["10-rekindle-eno1-vlan.netdev"]
    assert "Name=eno1.42\n\n[Network]\nDHCP=yes" in files["10-rekindle-eno1-vlan.network"]
    assert len(vlan_name(NetworkConfig(interface="enp129s0f1np1", vlan=4094))) <= 15


def test_a_bond_and_a_vlan_on_it() -> None:
    config = NetworkConfig(
        interface="eno1", bond=("eno2",), bond_mode="802.3ad", vlan=7, dhcp=False, address="192.0.2.9/24"
    )
    files = network_files(config)
    assert set(files) == {
        "10-rekindle-eno1.network", "10-rekindle-eno2.network", "10-rekindle-eno1-bond.netdev",
        "10-rekindle-eno1-bond.network", "10-rekindle-eno1-vlan.netdev", "10-rekindle-eno1-vlan.network",
    }  # fmt: skip
    for member in ("eno1", "eno2"):
        assert f"Name={member}\n\n[Network]\nBond=bond0" in files[f"10-rekindle-{member}.network"]
    assert "Mode=802.3ad" in files["10-rekindle-eno1-bond.netdev"]
    assert "VLAN=bond0.7" in files["10-rekindle-eno1-bond.network"]
    assert "Name=bond0.7\n\n[Network]\nAddress=192.0.2.9/24" in files["10-rekindle-eno1-vlan.network"]


def test_a_bond_that_is_taken_apart_leaves_nothing_behind(tmp_path: Path) -> None:
    for name in ("eno1", "eno2", "eno3"):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
    folder = tmp_path / "networkd"
    runner = FakeRunner({("ip", "-j"): _addr("192.0.2.9")})
    with use_runner(runner):
        configure(NetworkConfig(interface="eno3"), folder=folder, sysfs=tmp_path / "sys")
        configure(NetworkConfig(interface="eno1", bond=("eno2",)), folder=folder, sysfs=tmp_path / "sys")
        assert len(list(folder.iterdir())) == 5
        configure(NetworkConfig(interface="eno2"), folder=folder, sysfs=tmp_path / "sys")
    assert {file.name for file in folder.iterdir()} == {"10-rekindle-eno2.network", "10-rekindle-eno3.network"}
    assert ("ip", "link", "delete", "bond0") in [tuple(call) for call in runner.calls]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (NetworkConfig(interface="eno1", bond=("eno1",)), "twice"),
        (NetworkConfig(interface="eno1", bond=("eno2",), bond_mode="fast"), "mode"),
        (NetworkConfig(interface="eno1", bond=("a b",)), "name"),
        (NetworkConfig(interface=""), "name"),
        (NetworkConfig(interface="a/b"), "name"),
        (NetworkConfig(interface="eno1\n[Network]"), "name"),
        (NetworkConfig(interface="eno1", vlan=0), "VLAN"),
        (NetworkConfig(interface="eno1", vlan=4095), "VLAN"),
        (NetworkConfig(interface="eno1", dns=("x",)), "name server"),
        (NetworkConfig(interface="eno1", dhcp=False), "prefix"),
        (NetworkConfig(interface="eno1", dhcp=False, address="192.0.2.300/24"), "not an address"),
        (NetworkConfig(interface="eno1", dhcp=False, address="192.0.2.3/24", gateway="?"), "gateway"),
        (NetworkConfig(interface="eno1", dhcp=False, address="192.0.2.3/24", gateway="198.51.100.1"), "not in the"),
    ],
)
def test_what_makes_no_sense(config: NetworkConfig, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        network_files(config)


def _addr(address: str) -> Completed:
    info = {"scope": "global", "local": address, "prefixlen": 24}
    return Completed((), 0, json.dumps([{"ifname": "eno1", "addr_info": [info]}]))


def test_applied_and_awaited(tmp_path: Path) -> None:
    (tmp_path / "class/net/eno1").mkdir(parents=True)
    folder = tmp_path / "networkd"
    runner = FakeRunner({("ip", "-j"): _addr("192.0.2.10")})
    with use_runner(runner):
        assert configure(NetworkConfig(interface="eno1", vlan=7), folder=folder, sysfs=tmp_path) == ["192.0.2.10/24"]
        assert len(list(folder.iterdir())) == 3
        static = NetworkConfig(interface="eno1", dhcp=False, address="192.0.2.10/24")
        assert configure(static, folder=folder, sysfs=tmp_path) == ["192.0.2.10/24"]
    assert [file.name for file in folder.iterdir()] == ["10-rekindle-eno1.network"]
    assert ("networkctl", "reload") in runner.calls


def test_no_answer_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_DHCP_PATIENCE", 0.0)
    monkeypatch.setattr(network, "_STATIC_PATIENCE", 0.0)
    link = tmp_path / "class/net/eno1"
    link.mkdir(parents=True)
    with use_runner(FakeRunner({("ip", "-j"): _addr("192.0.2.99")})), pytest.raises(CommandError, match="no link"):
        configure(
            NetworkConfig(interface="eno1", dhcp=False, address="192.0.2.10/24"), folder=tmp_path / "n", sysfs=tmp_path
        )
    (link / "carrier").write_text("1\n")
    with use_runner(FakeRunner()), pytest.raises(CommandError, match="No DHCP server"):
        configure(NetworkConfig(interface="eno1"), folder=tmp_path / "n", sysfs=tmp_path)
    with use_runner(FakeRunner()), pytest.raises(NotFoundError, match="no interface"):
        configure(NetworkConfig(interface="eno9"), folder=tmp_path / "n", sysfs=tmp_path)
    with (
        use_runner(FakeRunner({("networkctl",): Completed((), 1, "", "Failed to connect to bus")})),
        pytest.raises(CommandError, match="Failed to connect"),
    ):
        configure(NetworkConfig(interface="eno1"), folder=tmp_path / "n", sysfs=tmp_path)
