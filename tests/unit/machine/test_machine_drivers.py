"""Devices that do not work are named, with what they miss; cards are told with link, slot and bond."""

from __future__ import annotations

import json
from pathlib import Path

from recovery.commands import Completed, FakeRunner, use_runner
from recovery.machine.model import Nic
from recovery.machine.probe_drivers import firmware_wanted, probe_driverless
from recovery.machine.probe_system import probe_nics


def device(sysfs: Path, slot: str, kind: str, alias: str, driver: str = "") -> Path:
    """A PCI device as sysfs shows it."""
    folder = sysfs / "devices/pci0000:00" / slot
    folder.mkdir(parents=True)
    for name, text in (("class", kind), ("modalias", alias), ("vendor", "0x8086"), ("device", "0x1593")):
        (folder / name).write_text(text + "\n")
    if driver:
        (sysfs / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(sysfs / "bus/pci/drivers" / driver)
    bus = sysfs / "bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / slot).symlink_to(folder)
    return folder


def test_each_reason(tmp_path: Path) -> None:
    device(tmp_path, "0000:00:1f.2", "0x010601", "pci:ahci", "ahci")
    device(tmp_path, "0000:01:00.0", "0x010400", "pci:unknown-raid")
    device(tmp_path, "0000:02:00.0", "0x020000", "pci:ice")
    device(tmp_path, "0000:03:00.0", "0x020000", "pci:bnx2x", "bnx2x")
    device(tmp_path, "0000:04:00.0", "0x010700", "pci:mpt3sas")
    device(tmp_path, "0000:05:00.0", "0x030000", "pci:vga")
    (tmp_path / "module/mpt3sas").mkdir(parents=True)
    log = (
        "[    3.1] bnx2x 0000:03:00.0: firmware: failed to load bnx2x/bnx2x-e2-7.13.21.0.fw (-2)\n"
        "[    3.1] bnx2x 0000:03:00.0: Direct firmware load for bnx2x/bnx2x-e2-7.13.21.0.fw failed with error -2\n"
    )
    answers = {
        ("dmesg",): Completed((), 0, log),
        ("modprobe", "--resolve-alias", "pci:ice"): Completed((), 0, "ice\n"),
        ("modprobe", "--resolve-alias", "pci:mpt3sas"): Completed((), 0, "mpt3sas\n"),
        ("modprobe",): Completed((), 1, "", "modprobe: FATAL: Module pci:unknown-raid not found"),
        ("udevadm",): Completed((), 0, "ID_VENDOR_FROM_DATABASE=Maker\nID_MODEL_FROM_DATABASE=Card X"),
    }
    with use_runner(FakeRunner(answers)):
        found = {d.slot: d for d in probe_driverless(tmp_path)}
    assert list(found) == ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0"]
    raid, card, firmware, hung = found.values()
    assert (raid.purpose, raid.reason) == ("storage", "This medium has no driver for it.")
    assert (card.purpose, card.modules) == ("network", ("ice",))
    assert "modprobe ice" in card.reason
    assert firmware.firmware == ("bnx2x/bnx2x-e2-7.13.21.0.fw",)
    assert "firmware bnx2x/bnx2x-e2-7.13.21.0.fw of its driver bnx2x is not on this medium" in firmware.reason
    assert "loaded and does not take it" in hung.reason
    assert card.name == "Maker Card X"


def test_without_a_name_the_numbers_are_told(tmp_path: Path) -> None:
    device(tmp_path, "0000:02:00.0", "0x020000", "pci:x")
    with use_runner(FakeRunner({})):
        (found,) = probe_driverless(tmp_path)
    assert found.name == "PCI 8086:1593"


def test_a_machine_without_pci(tmp_path: Path) -> None:
    assert probe_driverless(tmp_path) == ()


def test_firmware_is_read_from_the_log_only_where_it_says_so() -> None:
    assert firmware_wanted("r8169 0000:02:00.0: Unable to load firmware rtl_nic/x.fw (-2)") == {}
    log = "qla2xxx [0000:05:00.0]-0063: something\n e100 0000:07:08.0: Direct firmware load for e100/a.bin failed"
    assert firmware_wanted(log) == {"0000:07:08.0": ("e100/a.bin",)}


def test_cards_with_link_slot_and_bond(tmp_path: Path) -> None:
    for number, (name, carrier, state) in enumerate([("eno1", "1", "up"), ("eno2", "0", "down"), ("eno3", "1", "up")]):
        folder = device(tmp_path, f"0000:0{number + 1}:00.0", "0x020000", "pci:x", "igb")
        net = tmp_path / "class/net" / name
        net.mkdir(parents=True)
        (net / "device").symlink_to(folder)
        for file, text in (
            ("carrier", carrier),
            ("operstate", state),
            ("speed", "1000"),
            ("address", "02:00:00:00:00:01"),
        ):
            (net / file).write_text(text)
    links = [
        {"ifname": "eno1", "master": "bond0", "addr_info": []},
        {"ifname": "eno2", "master": "br0", "addr_info": []},
        {"ifname": "eno3", "link": "eno3", "addr_info": []},  # points back at itself, as a veth's peer may
        {"ifname": "br0", "linkinfo": {"info_kind": "bridge"}, "addr_info": []},
        {"ifname": "bond0", "linkinfo": {"info_kind": "bond"}, "addr_info": []},
        {"ifname": "bond0.7", "link": "bond0",
         "addr_info": [{"scope": "global", "local": "192.0.2.9", "prefixlen": 24}]},
    ]  # fmt: skip
    with use_runner(FakeRunner({("ip",): Completed((), 0, json.dumps(links))})):
        one, two, three = probe_nics(tmp_path)
    assert (one.bond, one.slot, one.driver, one.addresses) == ("bond0", "0000:01:00.0", "igb", ("192.0.2.9/24",))
    assert (two.bond, two.addresses, two.link) == ("", (), "switched off")
    assert three.link == "1000 Mbit/s"
    assert Nic(name="x", mac="", state="lowerlayerdown").link == "no link"
