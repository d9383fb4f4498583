"""Whatever configures the network: which names are NICs, what stands on them, and who gets which new NIC."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.adapt.netconfig import (
    NetConfig,
    add_facts,
    read_ifcfg,
    read_ifupdown,
    read_keyfile,
    read_networkd,
    read_persistent_rules,
)
from recovery.adapt.netplan import read_netplan
from recovery.adapt.nics import (
    OldNic,
    comment_out,
    link_file,
    link_files,
    map_nics,
    old_nics,
    replace_macs,
    systemd_version,
)
from recovery.machine.model import Nic

PROXMOX = """
auto lo
iface lo inet loopback

iface eno1 inet manual
iface eno2 inet manual
iface eno3 inet manual

auto bond0
iface bond0 inet manual
    bond-slaves eno1 eno2
    bond-miimon 100

auto vmbr0
iface vmbr0 inet static
    address 192.0.2.10/24
    gateway 192.0.2.1
    bridge-ports bond0
    bridge-stp off

auto vmbr0.20
iface vmbr0.20 inet static
    address 198.51.100.2/24

auto vmbr9
iface vmbr9 inet static
    address 10.9.9.1/24
    bridge_ports none
source /etc/network/interfaces.d/*
"""


def config_of(read: Callable[[str, NetConfig], None], *texts: str) -> NetConfig:
    config = NetConfig()
    for text in texts:
        read(text, config)
    return config


def test_ifupdown_with_bond_bridge_and_vlan() -> None:
    config = config_of(read_ifupdown, PROXMOX)
    assert config.physical() == ["eno1", "eno2", "eno3"]
    assert config.carried("eno2") == ["192.0.2.10/24 on vmbr0", "198.51.100.2/24 on vmbr0.20"]
    assert config.carried("eno3") == []


def test_ifupdown_dhcp_alias_and_raw_device() -> None:
    text = """
iface eth0 inet dhcp
iface eth0:1 inet static
  address 192.0.2.7
iface vlan30 inet static
  vlan-raw-device eth0
  address 192.0.2.30/24
"""
    config = config_of(read_ifupdown, text)
    assert config.physical() == ["eth0"]
    assert config.carried("eth0") == ["DHCP on eth0", "192.0.2.7 on eth0", "192.0.2.30/24 on vlan30"]


NETPLAN = """
# cloud
network:
  version: 2
  ethernets:
    enp5s0: {}
    lan:
      match:
        macaddress: "52:54:00:AA:BB:01"
      set-name: lan0
    bymac:
      match: {macaddress: 52:54:00:aa:bb:02}
      dhcp4: true
    "all":
      match:
        name: en*
  bridges:
    br0:
      interfaces: [enp5s0, lan0]
      addresses:
      - 192.0.2.20/24
      - "2001:db8::20/64":
          label: x
      dhcp4: no
  vlans:
    vlan7:
      id: 7
      link: br0
      addresses: [198.51.100.7/24]
"""


def test_netplan() -> None:
    config = config_of(read_netplan, NETPLAN)
    assert config.physical() == ["enp5s0", "lan0"]
    assert config.macs == {"lan0": "52:54:00:aa:bb:01"}
    assert config.carried("enp5s0") == [
        "192.0.2.20/24 on br0",
        "2001:db8::20/64 on br0",
        "198.51.100.7/24 on vlan7",
    ]


def test_networkd() -> None:
    config = config_of(
        read_networkd,
        "[NetDev]\nName=br0\nKind=bridge\n",
        "[Match]\nName=ens1 ens2\n[Network]\nBridge=br0\n",
        "[Match]\nName=br0\n[Network]\nAddress=192.0.2.5/24\n[Address]\nAddress=192.0.2.6/24\n",
        "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
        "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nName=wan0\n",
    )
    assert config.physical() == ["ens1", "ens2", "wan0"]
    assert config.carried("ens2") == ["192.0.2.5/24 on br0", "192.0.2.6/24 on br0"]
    assert config.macs == {"wan0": "52:54:00:00:00:01"}


def test_network_manager() -> None:
    config = config_of(
        read_keyfile,
        "[connection]\nid=x\ntype=bridge\ninterface-name=br0\n[ipv4]\nmethod=manual\naddress1=192.0.2.3/24,192.0.2.1\n",
        "[connection]\ntype=ethernet\ninterface-name=eno1\nmaster=br0\n[ethernet]\nmac-address=52:54:00:00:00:0A\n",
        "[connection]\ntype=vlan\ninterface-name=vlan9\n[vlan]\nparent=eno1\n[ipv4]\nmethod=auto\n",
    )
    assert config.physical() == ["eno1"]
    assert sorted(config.carried("eno1")) == ["192.0.2.3/24 on br0", "DHCP on vlan9"]
    assert config.macs == {"eno1": "52:54:00:00:00:0a"}


def test_ifcfg_and_persistent_rules() -> None:
    config = config_of(
        read_ifcfg,
        'DEVICE="em1"\nHWADDR=52:54:00:00:00:0B\nBRIDGE=br0\n',
        "DEVICE=br0\nTYPE=Bridge\nIPADDR=192.0.2.4\nPREFIX=24\n",
    )
    rules = 'SUBSYSTEM=="net", ATTR{address}=="52:54:00:00:00:0c", NAME="eth7"\n# NAME="eth8"\n'
    read_persistent_rules(rules, config)
    assert config.physical() == ["em1"]
    assert config.carried("em1") == ["192.0.2.4/24 on br0"]
    assert config.macs == {"em1": "52:54:00:00:00:0b", "eth7": "52:54:00:00:00:0c"}


def test_facts_fill_gaps_but_invent_no_nic() -> None:
    config = config_of(read_ifupdown, "iface eno1 inet manual\n")
    add_facts(config, [("eno1", "52:54:00:00:00:01", ("192.0.2.9/24",), False), ("bymac", "", ("x",), False)])
    assert config.macs == {"eno1": "52:54:00:00:00:01"}
    assert config.carried("eno1") == ["192.0.2.9/24 on eno1"]
    assert config.physical() == ["eno1"]
    empty = NetConfig()
    add_facts(empty, [("ens3", "", (), True), ("52:54:00:00:00:01", "", (), False)])
    assert empty.physical() == ["ens3"] and empty.carried("ens3") == ["DHCP on ens3"]


def nic(name: str, mac: str, carrier: bool = False) -> Nic:
    return Nic(name=name, mac=mac, carrier=carrier)


def test_addresses_go_first_and_links_with_carrier_go_first() -> None:
    old = old_nics(config_of(read_ifupdown, "iface a0 inet manual\niface a1 inet dhcp\n"))
    plan = map_nics(old, [nic("ens10", "02:00:00:00:00:10"), nic("ens9", "02:00:00:00:00:09", True)])
    assert [(o.name, n.name) for o, n in plan.pairs] == [("a1", "ens9"), ("a0", "ens10")]


def test_a_card_that_moved_along_keeps_its_name() -> None:
    old = [OldNic("a0", "", ("x on a0",)), OldNic("a1", "02:00:00:00:00:01", ())]
    plan = map_nics(old, [nic("n0", "02:00:00:00:00:01", True), nic("n1", "02:00:00:00:00:02")])
    assert {o.name: n.name for o, n in plan.pairs} == {"a1": "n0", "a0": "n1"}


def test_too_few_nics_name_the_addresses_that_are_lost() -> None:
    old = [OldNic("a0", "", ("192.0.2.1 on a0",)), OldNic("a1", "", ("192.0.2.2 on a1",)), OldNic("a2")]
    plan = map_nics(old, [nic("n0", "02:00:00:00:00:01")])
    assert plan.lost == ("192.0.2.2 on a1",)
    assert plan.without == ("a1", "a2")


def test_a_bond_on_fewer_nics_loses_no_address() -> None:
    plan = map_nics(old_nics(config_of(read_ifupdown, PROXMOX)), [nic("n0", "02:00:00:00:00:01")])
    assert plan.lost == ()
    assert plan.without == ("eno2", "eno3")


def test_an_unused_nic_gives_up_a_name_that_an_old_one_needs() -> None:
    plan = map_nics([OldNic("enp2s0")], [nic("enp1s0", "02:00:00:00:00:01", True), nic("enp2s0", "02:00:00:00:00:02")])
    assert [(n.mac, name) for n, name in plan.spares] == [("02:00:00:00:00:02", "spare0")]
    assert set(link_files(plan, 252)) == {"10-rekindle-enp2s0.link", "10-rekindle-spare0.link"}


@given(
    olds=st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True),
    news=st.lists(st.tuples(st.sampled_from(["a", "b", "x", "y"]), st.booleans()), unique_by=lambda n: n[0]),
)
def test_every_new_nic_has_one_name_and_every_name_one_nic(olds: list[str], news: list[tuple[str, bool]]) -> None:
    nics = [nic(name, f"02:00:00:00:00:0{i}", carrier) for i, (name, carrier) in enumerate(news)]
    plan = map_nics([OldNic(name) for name in olds], nics)
    bound = [n.mac for _, n in plan.pairs] + [n.mac for n, _ in plan.spares]
    assert len(bound) == len(set(bound))
    assert len(plan.pairs) == min(len(olds), len(nics))
    assert len(plan.pairs) + len(plan.without) == len(olds)
    named = [o.name for o, _ in plan.pairs] + [name for _, name in plan.spares]
    named += [n.name for n in nics if n.mac not in bound]
    assert len(named) == len(set(named))


def test_old_systemd_gets_a_match_that_it_knows() -> None:
    assert "PermanentMACAddress=02:00:00:00:00:aa\n" in link_file("eno1", "02:00:00:00:00:AA", 252)
    old = link_file("eno1", "02:00:00:00:00:AA", 241)
    assert "\nMACAddress=02:00:00:00:00:aa\nType=ether\n" in old and "Permanent" not in old
    assert systemd_version(["/usr/lib/systemd/libsystemd-shared-252.so", "libsystemd-shared-247.so"]) == 252
    assert systemd_version(["/usr/lib/systemd/libsystemd-shared-257.9-1~deb13u1.so"]) == 257
    assert systemd_version([]) == 0


MACS = {"52:54:00:aa:bb:01": "02:00:00:00:00:01"}


@pytest.mark.parametrize(
    "text",
    [
        "[Match]\nPermanentMACAddress=52:54:00:AA:BB:01\n",
        "[ethernet]\nmac-address=52:54:00:aa:bb:01\n",
        "HWADDR=52:54:00:aa:bb:01\n",
        "  x:\n    match:\n      macaddress: '52:54:00:aa:bb:01'\n",
        "  x:\n    match: {macaddress: 52:54:00:aa:bb:01}\n",
    ],
)
def test_a_mac_that_is_matched_is_replaced(text: str) -> None:
    assert "02:00:00:00:00:01" in replace_macs(text, MACS)


@pytest.mark.parametrize(
    "text",
    [
        "[Link]\nMACAddress=52:54:00:aa:bb:01\n",
        "[ethernet]\ncloned-mac-address=52:54:00:aa:bb:01\n",
        "  br0:\n    match:\n      name: x\n    macaddress: 52:54:00:aa:bb:01\n",
        "iface br0\n  hwaddress ether 52:54:00:aa:bb:01\n",
        "[Match]\nMACAddress=52:54:00:aa:bb:99\n",
    ],
)
def test_a_mac_that_is_set_stays(text: str) -> None:
    assert replace_macs(text, MACS) == text


def test_stale_rules_become_comments_once() -> None:
    once = comment_out('# x\n\nSUBSYSTEM=="net"\n')
    assert once == '# x\n\n#rekindle# SUBSYSTEM=="net"\n'
    assert comment_out(once) == once


BY_MAC = "[Match]\nMACAddress=52:54:00:AA:00:01\n\n[Network]\nAddress=192.0.2.1/24\n"


def test_a_nic_that_is_matched_by_its_mac_alone_gets_one() -> None:
    config = NetConfig()
    read_networkd(BY_MAC, config)
    read_keyfile(
        "[connection]\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:AA:00:02\n[ipv4]\nmethod=auto\n", config
    )
    old = old_nics(config)
    assert [(nic.mac, nic.carries) for nic in old] == [
        ("52:54:00:aa:00:01", ("192.0.2.1/24 on 52:54:00:aa:00:01",)),
        ("52:54:00:aa:00:02", ("DHCP on 52:54:00:aa:00:02",)),
    ]
    plan = map_nics(old, [Nic(name="enp1s0", mac="52:54:00:bb:00:01"), Nic(name="enp2s0", mac="52:54:00:bb:00:02")])
    assert [(nic.mac, new.mac) for nic, new in plan.pairs] == [
        ("52:54:00:aa:00:01", "52:54:00:bb:00:01"), ("52:54:00:aa:00:02", "52:54:00:bb:00:02"),
    ]  # fmt: skip
    assert link_files(plan, 252) == {}, "nothing calls them by a name"
    assert "52:54:00:bb:00:01" in replace_macs(BY_MAC, {"52:54:00:aa:00:01": "52:54:00:bb:00:01"})


def test_a_nic_that_one_file_names_and_another_matches_by_its_mac_is_one() -> None:
    config = NetConfig()
    read_networkd(BY_MAC, config)
    read_networkd("[Match]\nMACAddress=52:54:00:aa:00:01\n\n[Link]\nName=lan0\n", config)
    assert old_nics(config) == [OldNic("lan0", "52:54:00:aa:00:01", ("192.0.2.1/24 on 52:54:00:aa:00:01",))]
