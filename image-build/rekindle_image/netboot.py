"""The folder for network boot, laid out from a finished ISO: boot loaders, kernel, initramfs, file systems, menus."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from recovery.commands import run
from recovery.errors import CommandError, IntegrityError, NotFoundError, UsageError
from rekindle_image.boot import fill, parameters_of, sha256_of
from rekindle_image.scratch import scratch_folder
from rekindle_image.workshop import HERE

_LOADERS = ("bootx64.efi", "grubx64.efi", "bios.pxe")
_MEMTEST = ("memtest86+x64.bin", "memtest86+x64.efi")


def lay_netboot(iso: Path, folder: Path, url: str, serial: str = "ttyS0") -> list[Path]:
    """Fill ``folder`` from ``iso``, so that machines boot from it when it is at ``url``. Returns its files.

    What is there already under these names is replaced. Raises CommandError, NotFoundError (no Rekindle ISO),
    IntegrityError (a damaged one).
    """
    if shutil.which("xorriso") is None:
        raise CommandError("The ISO cannot be opened: xorriso is missing.", hint="apt-get install xorriso")
    if not iso.is_file():
        raise NotFoundError(f"The ISO '{iso}' does not exist.", hint="Build one: rekindle iso build")
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder, ".new-") as work:
        tree = work / "iso"
        done = run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", tree], check=False)
        if not done or not (tree / "netboot/bios.pxe").is_file():
            raise NotFoundError(
                f"'{iso}' is not a Rekindle ISO that can boot over the network.", hint="Build one: rekindle iso build"
            )
        run(["chmod", "-R", "u+w", tree])
        _check(iso, tree / "rekindle")
        fresh = work / "fresh"
        (fresh / "grub").mkdir(parents=True)
        for name in _LOADERS:
            (tree / "netboot" / name).rename(fresh / name)
        for name in _MEMTEST:
            (tree / "boot" / name).rename(fresh / name)
        for file in (tree / "rekindle").iterdir():
            if file.name != "MANIFEST":
                file.rename(fresh / file.name)
        memory = 2 * sum(file.stat().st_size for file in fresh.glob("*.squashfs")) // (1 << 20) + 512
        menu = (tree / "boot/grub/grub.cfg").read_text()
        values = {"URL": url, "SERIAL": serial, "MEMORY": str(memory), **dnsmasq_values(folder, url)}
        values["PARAMETERS"] = parameters_of(menu)
        (fresh / "grub/grub.cfg").write_text(_template("netboot-grub.cfg", values) + menu)
        (fresh / "rekindle.ipxe").write_text(_template("netboot.ipxe", values))
        (fresh / "dnsmasq.conf").write_text(_template("dnsmasq.conf", values))
        laid = []
        for file in sorted(p for p in fresh.rglob("*") if p.is_file()):
            target = folder / file.relative_to(fresh)
            target.parent.mkdir(exist_ok=True)
            # A server's user other than the one who laid it out reads it.
            file.chmod(0o644)
            file.replace(target)
            laid.append(target)
    return laid


def _template(name: str, values: dict[str, str]) -> str:
    return fill((HERE / "boot" / name).read_text(), values)


def _check(iso: Path, folder: Path) -> None:
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        if sha256_of(folder / name) != digest:
            raise IntegrityError(f"'{iso}' is damaged: {name}.", hint="Build it anew, or copy it again.")


def dnsmasq_values(folder: Path, url: str) -> dict[str, str]:
    """Addresses to lend in the network of the web server, where its address says what that is."""
    parts = urlsplit(url)
    try:
        network = ipaddress.ip_network(f"{parts.hostname}/24", strict=False)
        if network.version != 4:
            raise UsageError("An IPv6 address.")
    except (ValueError, UsageError):
        network = ipaddress.ip_network("192.0.2.0/24")
    return {
        "FOLDER": str(folder.resolve()), "PORT": str(parts.port or 80), "FIRST": str(network[100]),
        "LAST": str(network[200]), "INTERFACE": "eth0",
    }  # fmt: skip
