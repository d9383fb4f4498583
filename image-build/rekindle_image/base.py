"""The larger part of the medium: Debian with kernel, initramfs, boot loaders and firmware; cached between builds."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from recovery.errors import CommandError, UsageError
from rekindle_image.apt import Mirrors, render_sources
from rekindle_image.request import ImageRequest
from rekindle_image.scratch import OWN_MOUNTS
from rekindle_image.workshop import BLOCK, HERE, Workshop, content_hash, copy_overlay, make_squashfs

#: Never unpacked: documentation and translations.
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
)


@dataclass(frozen=True)
class Package:
    """A Debian package of the medium and the source package it was built from."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str


@dataclass(frozen=True)
class Base:
    """The finished base: a folder with base.squashfs, vmlinuz, initrd.img, boot/, fonts/, keymaps, packages.tsv."""

    path: Path

    @property
    def squashfs(self) -> Path:
        """Debian and firmware."""
        return self.path / "base.squashfs"

    @property
    def kernel_version(self) -> str:
        """As ``uname -r`` will say."""
        return (self.path / "kernel-version").read_text().strip()

    def keymaps(self) -> list[str]:
        """The keyboard layouts that are in it."""
        return (self.path / "keymaps").read_text().split()

    def packages(self) -> list[Package]:
        """What is in it, by name."""
        lines = (self.path / "packages.tsv").read_text().splitlines()
        return [Package(*line.split("\t")) for line in lines]


def read_list(name: str) -> list[str]:
    """The names in a package list, in its order; ``#`` starts a comment."""
    lines = (HERE / "packages" / f"{name}.list").read_text().splitlines()
    return [word for line in lines for word in line.split("#", 1)[0].split()]


def package_names(request: ImageRequest) -> list[str]:
    """Everything to install for a firmware flavour and a site; no name twice."""
    return list(dict.fromkeys([*read_list("base"), *read_list(f"firmware-{request.firmware}"), *request.packages]))


def base_key(request: ImageRequest) -> str:
    """The name of the base in the cache: its recipe, its packages, its date. The mirror is not part of it."""
    words = [request.suite, request.firmware, request.date, str(request.compression), BLOCK]
    words += [*package_names(request), "drivers", *request.drivers]
    recipe = [HERE / "base", HERE / "base.py", HERE / "packages" / "drop.list"]
    return "base-" + content_hash(*words, *recipe)


def build_base(shop: Workshop, request: ImageRequest, mirrors: Mirrors, apt_options: list[str]) -> tuple[Base, bool]:
    """The base from the cache, or built now. Returns it and whether it came from the cache."""

    def make(target: Path) -> None:
        root = shop.scratch("root")
        sources = shop.work / "medium.sources"
        sources.write_text(render_sources(mirrors, request.suite))
        overlay = shop.scratch("base-files")
        copy_overlay(HERE / "base" / "files", overlay)
        (overlay / "etc/initramfs-tools/modules").write_text("".join(f"{name}\n" for name in request.drivers))
        _install(shop, request, root, sources, overlay, apt_options)
        for part in (root / "rekindle-out").iterdir():
            shutil.move(part, target / part.name)
        (root / "rekindle-out").rmdir()
        shop.tell("Packing Debian; this takes the longest")
        make_squashfs(shop, root, target / "base.squashfs", request.compression)
        (target / "base.json").write_text(json.dumps({"date": request.date, "firmware": request.firmware}) + "\n")

    path, cached = shop.cached(base_key(request), make)
    return Base(path), cached


def _install(
    shop: Workshop, request: ImageRequest, root: Path, sources: Path, overlay: Path, apt_options: list[str]
) -> None:
    environment = {"INITRD": "No", "REKINDLE_HERE": str(HERE), "REKINDLE_DRIVERS": " ".join(request.drivers)}
    try:
        shop.run(_mmdebstrap(request, root, sources, overlay, apt_options), env=environment)
    except CommandError as error:
        # What the profile asked for and Debian does not have is not a failure of the builder.
        said = shop.log.read_text(errors="replace")
        for key, pattern, what in (
            (
                "packages",
                r"Unable to locate package (\S+)|Package '?([^\s']+)'? has no installation candidate",
                "package",
            ),
            ("drivers", r"E: no driver (\S+)", "driver"),
        ):
            if match := re.search(pattern, said):
                name = next(group for group in match.groups() if group)
                where = request.places.get(key, key)
                raise UsageError(
                    f"{where}: {request.suite.capitalize()} has no {what} '{name}'.",
                    hint=f"Correct the name, or leave it out. Everything that was said is in {shop.log}",
                ) from error
        raise


def _mmdebstrap(request: ImageRequest, root: Path, sources: Path, overlay: Path, apt_options: list[str]) -> list[str]:
    dpkg = ["force-confold", "force-unsafe-io", *(f"path-exclude={pattern}" for pattern in _EXCLUDED)]
    return [
        *OWN_MOUNTS, "mmdebstrap", "--mode=root", "--variant=minbase", "--architectures=amd64", "--verbose",
        f"--include={','.join(package_names(request))}",
        *(f"--dpkgopt={option}" for option in dpkg),
        *(f"--aptopt={option}" for option in apt_options),
        # Before the kernel is installed, so that its initramfs is made to our measure.
        f"--essential-hook=cp -a {shlex.quote(str(overlay))}/. \"$1\"/",
        f"--customize-hook={HERE / 'base' / 'finish'}",
        request.suite, str(root), str(sources),
    ]  # fmt: skip
