"""What lies beside the ISO: checksum, package lists, the console's font, the netboot folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import recovery
from rekindle_image.base import Base, Package
from rekindle_image.boot import sha256_of
from rekindle_image.netboot import lay_netboot
from rekindle_image.request import ImageRequest


@dataclass(frozen=True)
class Medium:
    """What was built: the ISO (bytes, hex SHA-256) and the files beside it."""

    iso: Path
    size: int
    sha256: str
    files: tuple[Path, ...]


def write_checksum(iso: Path) -> tuple[str, Path]:
    """``<iso>.sha256`` as sha256sum checks it."""
    digest = sha256_of(iso)
    target = iso.with_name(iso.name + ".sha256")
    target.write_text(f"{digest}  {iso.name}\n")
    return digest, target


def write_package_list(target: Path, debian: list[Package], python: list[tuple[str, str]]) -> Path:
    """One line a package: origin, name, version. Made to be read and compared."""
    lines = [f"debian {p.name} {p.version}" for p in debian] + [f"python {name} {version}" for name, version in python]
    target.write_text("\n".join(lines) + "\n")
    return target


def bill_of_materials(
    request: ImageRequest, debian: list[Package], python: list[tuple[str, str]]
) -> dict[str, object]:
    """The same as CycloneDX 1.5, for scanners that look for known holes."""
    parts: list[dict[str, object]] = []
    for p in debian:
        where = f"arch={p.architecture}&distro=debian-13"
        if p.source != p.name or p.source_version != p.version:
            where += f"&upstream={quote(f'{p.source}@{p.source_version}', safe='')}"
        purl = f"pkg:deb/debian/{quote(p.name, safe='.-+')}@{quote(p.version, safe='.-+~')}?{where}"
        parts.append({"type": "library", "name": p.name, "version": p.version, "purl": purl, "bom-ref": purl})
    for name, version in python:
        purl = f"pkg:pypi/{name.lower()}@{version}"
        parts.append({"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl})
    when = datetime.fromtimestamp(request.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    subject = {"type": "operating-system", "name": "rekindle-medium", "version": recovery.__version__}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": when, "component": subject},
        "components": parts,
    }


def write_beside(
    request: ImageRequest, base: Base, python: list[tuple[str, str]], font: bytes, log: Path, iso: Path
) -> Medium:
    """Everything beside a finished ISO."""
    debian = base.packages()
    sha256, checksum = write_checksum(iso)
    stem = iso.with_suffix("") if iso.suffix == ".iso" else iso
    bom = stem.with_name(stem.name + ".cdx.json")
    bom.write_text(json.dumps(bill_of_materials(request, debian, python), indent=1) + "\n")
    packages = write_package_list(stem.with_name(stem.name + ".packages.txt"), debian, python)
    psf = stem.with_name(stem.name + ".psf")
    psf.write_bytes(font)
    if request.netboot:
        lay_netboot(iso, request.netboot, request.netboot_url, request.serial)
    files = (checksum, packages, bom, psf, log)
    return Medium(iso, iso.stat().st_size, sha256, (*files, request.netboot) if request.netboot else files)
