"""The dnsmasq.conf that is laid out for network boot, served by the real dnsmasq in a namespace: each kind of firmware
is told the right file, and gets it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rekindle_image.boot import fill
from rekindle_image.netboot import dnsmasq_values
from rekindle_image.workshop import HERE

from recovery.commands import run
from tests.support.netns import FAR, Link, link

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dnsmasq") or not shutil.which("curl"),
        reason="needs root, dnsmasq (dnsmasq-base) and curl",
    ),
]
URL = f"http://{FAR}/rekindle"
_COOKIE = b"\x63\x82\x53\x63"
MAC = bytes.fromhex("525400123456")


@contextlib.contextmanager
def served(tmp_path: Path) -> Iterator[Link]:
    folder = tmp_path / "netboot"
    folder.mkdir()
    for name in ("bios.pxe", "bootx64.efi", "grubx64.efi"):
        (folder / name).write_text(name)
    text = fill((HERE / "boot/dnsmasq.conf").read_text(), {"URL": URL, **dnsmasq_values(folder, URL)})
    file = tmp_path / "dnsmasq.conf"
    file.write_text(
        text.replace("interface=eth0\n", "interface=wire\n")
        + f"user=root\ndhcp-leasefile={tmp_path}/leases\npid-file=\nno-ping\n"
    )
    with link() as wire, (tmp_path / "log").open("wb") as log:
        with wire.far.entered():
            server = subprocess.Popen(
                ["dnsmasq", "--keep-in-foreground", "--log-facility=-", f"--conf-file={file}"], stdout=log, stderr=log
            )
        try:
            yield wire
        finally:
            server.terminate()
            server.wait()
            print((tmp_path / "log").read_text())


def discover(wire: Link, architecture: int, vendor: str, user: str = "") -> tuple[str, dict[int, bytes]]:
    """What a DHCPDISCOVER of such a firmware is offered: (boot file, options). RFC 2131, RFC 4578."""
    options = {53: b"\1", 55: bytes([1, 3, 60, 66, 67]), 60: vendor.encode(), 93: struct.pack(">H", architecture)}
    options |= {94: b"\1\3\x10", 97: b"\0" + bytes(16)}
    options |= {77: user.encode()} if user else {}
    transaction = os.urandom(4)
    packet = struct.pack(">BBBB4sHH16s16s64s128s", 1, 1, 6, 0, transaction, 0, 0x8000, b"", MAC, b"", b"")
    packet += _COOKIE + b"".join(bytes([n, len(v)]) + v for n, v in options.items()) + b"\xff"
    with wire.near.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire")
        channel.bind(("", 68))
        channel.settimeout(1)
        for _ in range(30):
            channel.sendto(packet, ("255.255.255.255", 67))
            try:
                while (answer := channel.recv(4096))[4:8] != transaction:
                    pass
                break
            except TimeoutError:
                continue
        else:
            raise AssertionError("no offer")
    found = read_options(answer[240:])
    boot_file = found.get(67, answer[108:236]).split(b"\0")[0].decode()
    return boot_file, found


def read_options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def test_each_firmware_is_told_its_file(tmp_path: Path) -> None:
    with served(tmp_path) as wire:
        pxe = "PXEClient:Arch:0000{}:UNDI:003000"
        assert discover(wire, 0, pxe.format(0))[0] == "bios.pxe"
        name, options = discover(wire, 7, pxe.format(7))
        assert name == "bootx64.efi"
        assert 60 not in options, "UEFI would ask for a boot menu on port 4011 instead of the file"
        assert discover(wire, 9, pxe.format(9))[0] == "bootx64.efi"
        name, options = discover(wire, 16, "HTTPClient:Arch:00016:UNDI:003001")
        assert name == f"{URL}/bootx64.efi"
        assert options[60] == b"HTTPClient", "firmware refuses an HTTP offer that does not say so"
        for architecture in (0, 7):
            assert discover(wire, architecture, pxe.format(0), user="iPXE")[0] == f"{URL}/rekindle.ipxe"


def test_the_files_come_by_tftp(tmp_path: Path) -> None:
    with served(tmp_path) as wire, wire.near.entered():
        deadline = time.monotonic() + 60
        while not (done := run(["curl", "-s", "-m", "3", f"tftp://{FAR}/bootx64.efi"], check=False)):
            assert time.monotonic() < deadline
        assert done.stdout == "bootx64.efi"


def test_dnsmasq_takes_the_file_as_it_is_laid_out(tmp_path: Path) -> None:
    values = {"URL": URL, **dnsmasq_values(tmp_path, URL)}
    file = tmp_path / "dnsmasq.conf"
    file.write_text(fill((HERE / "boot/dnsmasq.conf").read_text(), values))
    run(["dnsmasq", "--test", f"--conf-file={file}"])
    assert re.search(r"(?m)^dhcp-range=10\.99\.0\.100,10\.99\.0\.200,1h$", file.read_text())
