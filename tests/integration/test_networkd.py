"""What the network screen writes, given to the real systemd-networkd in namespaces that the test makes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from recovery.engine.api import NetworkConfig
from recovery.engine.network import network_files

NETWORKD = Path("/usr/lib/systemd/systemd-networkd")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
    pytest.mark.skipif(not NETWORKD.exists(), reason="needs systemd-networkd"),
]

#: networkd waits for udev unless /sys is read-only, as in a container. eno1 and eno2 are cards, peer1 what is at the
#: other end of eno1's cable: a second networkd that gives addresses away (DHCP and router advertisements).
STAGE = """
set -e
prepare() {{
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
    chown -R systemd-network /run/systemd/netif
    mount -t sysfs -o ro sysfs /sys
}}
export SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=info
if [ "$1" = far ]; then
    prepare
    cp {folder}/far.network /run/systemd/network/
    exec {networkd}
fi
ip link set lo up
ip link add eno1 type veth peer name peer1
ip link add eno2 type veth peer name peer2
ip link set peer2 up
prepare
unshare -n sh -c 'echo $$ > /run/far; exec sleep 60' &
while ! [ -s /run/far ]; do sleep 0.05; done
far="$(cat /run/far)"
ip link set peer1 netns "$far"
cp {folder}/files/* /run/systemd/network/
nsenter -t "$far" -n unshare -m sh {folder}/stage.sh far > {folder}/far.log 2>&1 &
{networkd} > {folder}/near.log 2>&1 &
sleep 1
for try in $(seq 80); do
    if ip -br addr show dev eno1 | grep -q '{until}'; then break; fi
    sleep 0.25
done
ip -br addr; ip route; ip -6 route show default
"""
ROUTER = """[Match]
Name=peer1

[Network]
Address=192.0.2.1/24
Address=2001:db8::1/64
DHCPServer=yes
IPv6SendRA=yes

[DHCPServer]
PoolOffset=100
PoolSize=9

[IPv6Prefix]
Prefix=2001:db8::/64
"""


def run_networkd(config: NetworkConfig, folder: Path, until: str, spoil: str = "") -> tuple[str, str]:
    """(what ``ip`` shows then, what networkd said). ``spoil`` is put at the end of each file."""
    files = folder / "files"
    files.mkdir()
    for name, text in network_files(config).items():
        (files / name).write_text(text + spoil)
    (folder / "far.network").write_text(ROUTER)
    script = folder / "stage.sh"
    script.write_text(STAGE.format(folder=folder, networkd=NETWORKD, until=until))
    done = subprocess.run(
        ["unshare", "-mnp", "--fork", "--kill-child", "--mount-proc", "sh", script, "near"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, (folder / "near.log").read_text()


def complaints(said: str) -> list[str]:
    words = ("Unknown", "ignoring", "Failed to parse", "Invalid")
    return [line for line in said.splitlines() if "/run/systemd/network" in line and any(w in line for w in words)]


def test_a_static_address(tmp_path: Path) -> None:
    config = NetworkConfig(
        interface="eno1", dhcp=False, address="192.0.2.10/24", gateway="192.0.2.1", dns=("192.0.2.53",)
    )
    shown, said = run_networkd(config, tmp_path, "192.0.2.10/24")
    assert "192.0.2.10/24" in shown
    assert "default via 192.0.2.1 dev eno1" in shown
    assert not complaints(said)


def test_a_static_address_of_ipv6(tmp_path: Path) -> None:
    config = NetworkConfig(interface="eno1", dhcp=False, address="2001:db8::10/64", gateway="2001:db8::1")
    shown, said = run_networkd(config, tmp_path, "2001:db8::10/64")
    assert "2001:db8::10/64" in shown
    assert "default via 2001:db8::1 dev eno1" in shown
    assert not complaints(said)


def test_addresses_are_asked_for_by_dhcp_and_taken_from_a_router(tmp_path: Path) -> None:
    shown, said = run_networkd(NetworkConfig(interface="eno1"), tmp_path, "192.0.2.*2001:db8:")
    line = next(line for line in shown.splitlines() if line.startswith("eno1"))
    assert "192.0.2.1" in line, said
    assert "2001:db8:" in line
    assert "default via 192.0.2.1" in shown
    assert not complaints(said)


#: How each file is read is known as soon as one card is up.
AT_ONCE = "eno1.*UP\\|eno1.*DOWN"
LAYERED = [
    NetworkConfig(interface="eno1", vlan=42),
    NetworkConfig(interface="eno1", bond=("eno2",), bond_mode="802.3ad"),
    NetworkConfig(interface="eno1", bond=("eno2",), vlan=7, dhcp=False, address="192.0.2.9/24"),
]


@pytest.mark.parametrize("config", LAYERED)
def test_files_for_vlan_and_bond_are_understood(config: NetworkConfig, tmp_path: Path) -> None:
    """How networkd reads the files; a kernel without bonds and VLANs makes none of them."""
    _, said = run_networkd(config, tmp_path, AT_ONCE)
    assert not complaints(said)


def test_what_networkd_does_not_understand_would_be_seen(tmp_path: Path) -> None:
    _, said = run_networkd(LAYERED[1], tmp_path, AT_ONCE, spoil="NoSuchKey=1\n")
    assert len(complaints(said)) == 4, said
