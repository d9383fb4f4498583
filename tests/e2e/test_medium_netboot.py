"""The medium starts over the network: by PXE with BIOS and with UEFI (Secure Boot), and by UEFI HTTP boot.

The network is a namespace with a bridge: dnsmasq with the configuration that ``rekindle iso netboot`` writes, a web
server for its folder, and QEMU's card on a TAP device. Nothing outside of it is reached. Asked for by name:
``REKINDLE_MEDIUM_BOOTS=netboot`` (or some of ``ipxe-bios,pxe-bios,pxe-uefi-sb,http-uefi``);
``REKINDLE_MEDIUM=FILE.iso`` takes a medium that is there; ``REKINDLE_SCREENSHOTS=DIR`` keeps pictures of the consoles.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.cli.main import main
from tests.e2e.lab.accel import best_acceleration
from tests.e2e.lab.hardware import DiskSpec, Firmware, Hardware, make_blank_disk
from tests.e2e.lab.qemu import Machine
from tests.e2e.lab.screen import ScreenReader
from tests.support.netns import Namespace

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("dnsmasq") is None, reason="needs root and dnsmasq (dnsmasq-base)"
    ),
]

WANTED = os.environ.get("REKINDLE_MEDIUM_BOOTS", "")
#: An address of RFC 2544's range for tests in laboratories.
SERVER = "198.18.0.1"
#: Seconds with KVM; the lab's slowness multiplies them.
START = 120

#: Lines of the configuration that a case does without. OVMF tries PXE before HTTP: without a file by TFTP it goes on
#: to HTTP. QEMU's card starts a BIOS by iPXE: unless it is told apart it is served as any other PXE.
WITHOUT = {"http-uefi": r"(dhcp-boot=tag:efi|enable-tftp).*", "pxe-bios": r"dhcp-userclass=set:ipxe.*"}


@contextlib.contextmanager
def network(folder: Path, work: Path, without: str) -> Iterator[Namespace]:
    """A namespace in which machines on the TAP device ``boot0`` can start from ``folder``."""
    inside = Namespace()
    with contextlib.ExitStack() as stack:
        stack.callback(inside.close)
        inside.ip("link", "add", "lan0", "type", "bridge")
        inside.ip("address", "add", f"{SERVER}/24", "dev", "lan0")
        inside.ip("link", "set", "lan0", "up")
        inside.ip("tuntap", "add", "dev", "boot0", "mode", "tap")
        inside.ip("link", "set", "boot0", "master", "lan0", "up")
        configuration = (folder / "dnsmasq.conf").read_text()
        if without:
            configuration, count = re.subn(rf"(?m)^{without}$", "", configuration)
            assert count
        site, count = re.subn(r"(?m)^interface=eth0$", "interface=lan0", configuration)
        assert count == 1
        file = work / "dnsmasq.conf"
        # dnsmasq gives its rights up, and then could not read what only root can.
        file.write_text(site + f"user=root\ndhcp-leasefile={work}/leases\npid-file=\nlog-dhcp\n")
        for name, argv in (
            ("dnsmasq", ["dnsmasq", "--keep-in-foreground", "--log-facility=-", f"--conf-file={file}"]),
            ("web", [sys.executable, "-m", "http.server", "--bind", SERVER, "--directory", str(folder), "80"]),
        ):
            with inside.entered(), (work / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield inside


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``rekindle iso netboot`` lays out."""
    if "REKINDLE_MEDIUM" not in os.environ:
        pytest.skip("set REKINDLE_MEDIUM to a medium to start it over the network")
    folder = tmp_path_factory.mktemp("netboot")
    with pytest.raises(SystemExit) as ended:
        main(["iso", "netboot", os.environ["REKINDLE_MEDIUM"], str(folder), "--url", f"http://{SERVER}"])
    assert ended.value.code == 0
    return folder


@pytest.mark.parametrize(
    ("name", "firmware", "asked"),
    [
        ("ipxe-bios", "bios", r"GET /rekindle\.ipxe"),
        ("pxe-bios", "bios", r"sent .*/bios\.pxe"),
        ("pxe-uefi-sb", "uefi-sb", r"sent .*/grubx64\.efi"),
        ("http-uefi", "uefi", r"GET /+grubx64\.efi"),
    ],
)
def test_the_medium_starts_over_the_network(
    name: str, firmware: Firmware, asked: str, folder: Path, tmp_path: Path
) -> None:
    if WANTED not in ("all", "netboot") and name not in WANTED.split(","):
        pytest.skip("set REKINDLE_MEDIUM_BOOTS=netboot to start the medium over the network (minutes each)")
    disk = make_blank_disk(tmp_path / "disk.raw", 1 << 30)
    hardware = Hardware(firmware=firmware, tap="boot0", disks=(DiskSpec(disk, "nvme", "DISK0001"),))
    accel = best_acceleration(folder / "vmlinuz")
    limit = START * accel.slowness
    reader = ScreenReader.default(Path(os.environ["REKINDLE_MEDIUM"]).with_suffix(".psf"))
    with (
        network(folder, tmp_path, WITHOUT.get(name, "")) as inside,
        inside.entered(),
        Machine(hardware, tmp_path / "vm", accel, reader) as pc,
    ):
        try:
            # Not the boot menu first: it may have come and gone between two looks. Who served what is asked below.
            pc.wait_for_screen(r"Rekindle · (?!Start)", 2 * limit, interval=3)
        finally:
            if "REKINDLE_SCREENSHOTS" in os.environ and pc.running:
                pc.screenshot(Path(os.environ["REKINDLE_SCREENSHOTS"]) / f"medium-{name}.png")
            print((tmp_path / "dnsmasq.log").read_text()[-4000:], (tmp_path / "web.log").read_text()[-4000:])
        served = (tmp_path / "dnsmasq.log").read_text() + (tmp_path / "web.log").read_text()
        assert re.search(asked, served)
        assert "GET /base.squashfs" in served
        # The cards that served the start serve the system too: its own DHCP got an address.
        pc.press("alt+f2")
        pc.wait_for_screen(r"root@rekindle", limit / 3)
        pc.type(f"clear; ip -4 -br address; curl -sI http://{SERVER}/vmlinuz | head -1; echo end=$((1+1000))\n")
        said = pc.wait_for_screen("end=1001", limit / 3)
        assert "198.18.0." in said
        assert "200 OK" in said
