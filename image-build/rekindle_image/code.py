"""The smaller part of the medium: our code, its locked Python dependencies, the console font, services, pre-fills."""

from __future__ import annotations

import difflib
import gzip
import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import recovery
from recovery.errors import CommandError, NotFoundError, UsageError
from rekindle_image.base import Base
from rekindle_image.psf import Font, compose, read_psf, write_psf2
from rekindle_image.request import ImageRequest
from rekindle_image.site import network_files
from rekindle_image.workshop import HERE, Workshop, content_hash, copy_overlay, make_squashfs, settle_times

#: The medium's Python, Debian 13's, and the C libraries it is compatible with.
PYTHON = "3.13"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64", "any")
CODE = Path("opt/rekindle")


def find_lock() -> Path:
    """The lock file of the checkout this builder runs from. Raises NotFoundError."""
    lock = Path(recovery.__file__).parent.parent / "requirements.lock"
    if not lock.is_file():
        raise NotFoundError(
            "requirements.lock, which pins what goes onto the medium, is not beside the program.",
            hint="Build the medium from a checkout of Rekindle.",
        )
    return lock


def locked_packages(lock: str) -> list[tuple[str, str]]:
    """(name, version) of each requirement of a lock file, by name.

    Raises NotFoundError for one that depends on the Python version: pip judges that by the builder's Python, not by
    the medium's.
    """
    found = []
    for match in re.finditer(r"^([A-Za-z0-9._-]+)==(\S+?)(?:\s*;\s*(.*?))?\s*\\?$", lock, re.MULTILINE):
        name, version, marker = match.groups()
        if marker and "python_" in marker.replace("platform_python_implementation", ""):
            raise NotFoundError(f"'{name}' is locked for some Pythons only; which one the medium needs is not known.")
        found.append((name, version))
    return sorted(found)


def install_python_packages(shop: Workshop, lock: Path) -> tuple[Path, bool]:
    """The locked dependencies for the medium's Python, every file checked against its hash; cached."""

    def make(target: Path) -> None:
        words: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "--requirement",
            lock,
        ]
        words += ["--target", target, "--only-binary=:all:", "--no-deps", "--no-compile", "--implementation", "cp"]
        words += ["--python-version", PYTHON, *(w for p in _PLATFORMS for w in ("--platform", p))]
        shop.run(words)
        shutil.rmtree(target / "bin", ignore_errors=True)
        # Where a wheel came from is the builder's own affair.
        for file in (*target.glob("*.dist-info/direct_url.json"), *target.glob("*.dist-info/REQUESTED")):
            file.unlink()

    return shop.cached("python-" + content_hash(lock, PYTHON, HERE / "code.py"), make)


def build_font(base: Base, characters: Iterable[str]) -> tuple[bytes, Font]:
    """The console's font as PSF2: Terminus, else VGA. Raises CommandError for a character that neither has."""
    files = sorted(
        (base.path / "fonts").glob("*.psf.gz"), key=lambda p: ("Terminus" not in p.name, "Uni2" not in p.name, p.name)
    )
    fonts = [read_psf(gzip.decompress(file.read_bytes())) for file in files]
    font, missing = compose(characters, fonts)
    if missing:
        names = ", ".join(f"{c} U+{ord(c):04X}" for c in missing)
        raise CommandError(
            f"No console font of Debian has a glyph for: {names}.",
            hint="Take another character in recovery/tui/glyphs.py.",
        )
    return write_psf2(font), font


def console_characters() -> str:
    """All that the console may draw: ASCII and ``recovery.tui.glyphs``."""
    # By name, because the builder reads the list as data; it does not depend on the TUI (.importlinter).
    glyphs = importlib.import_module("recovery.tui.glyphs").GLYPHS
    return "".join(chr(code) for code in range(0x20, 0x7F)) + "\u00a0" + str(glyphs)


def medium_json(request: ImageRequest) -> str:
    """``/etc/rekindle/medium.json``: the fields of recovery.engine.api.Medium."""
    fields = {
        "server": request.server,
        "ca_fingerprint": request.authority.fingerprint,
        "ca_pem": request.authority.pem,
        "version": recovery.__version__,
        "built": request.date,
    }
    return json.dumps(fields, indent=2) + "\n"


def build_code(shop: Workshop, request: ImageRequest, base: Base, packages: Path, font: bytes, target: Path) -> None:
    """Lay the tree of the second squashfs and pack it."""
    tree = shop.scratch("code")
    copy_overlay(HERE / "rootfs", tree)
    lay_links((HERE / "rootfs.links").read_text(), tree)
    code = tree / CODE
    shutil.copytree(packages, code)
    shutil.copytree(
        Path(recovery.__file__).parent, code / "recovery", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    add_site(request, tree)
    share = tree / "usr/share/rekindle"
    share.mkdir(parents=True)
    (share / "console.psf").write_bytes(font)
    (tree / "etc/rekindle/medium.json").write_text(medium_json(request))
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    compile_code(shop, base, tree)
    settle_times(tree, request.epoch)
    make_squashfs(shop, tree, target, request.compression, all_root=True)


def lay_links(links: str, tree: Path) -> None:
    """Make the symbolic links of a list, one ``path target`` a line; FileExistsError where a file lies already."""
    for line in links.splitlines():
        if line and not line.startswith("#"):
            path, target = line.split()
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).symlink_to(target)


def add_site(request: ImageRequest, tree: Path) -> None:
    """What the site's profile adds: keyboard, SSH keys, fixed network."""
    etc = tree / "etc/rekindle"
    if request.keymap:
        (etc / "keymap").write_text(request.keymap + "\n")
    if request.ssh_keys:
        (etc / "authorized_keys").write_text("".join(f"{key}\n" for key in request.ssh_keys))
    folder = tree / "etc/systemd/network"
    for name, content in network_files(request.network).items():
        (folder / name).write_text(content)


def check_keymap(request: ImageRequest, base: Base) -> None:
    """Raises UsageError for a keyboard layout that Debian has not."""
    known = base.keymaps()
    if request.keymap and request.keymap not in known:
        near = difflib.get_close_matches(request.keymap, known, 5, 0.3)
        raise UsageError(
            f"{request.places.get('keymap', 'keymap')}: there is no keyboard layout '{request.keymap}'.",
            hint=f"Did you mean one of {', '.join(near)}?" if near else f"There are: {' '.join(known)}",
        )


def compile_code(shop: Workshop, base: Base, tree: Path) -> None:
    """Byte-compile with the medium's own Python, taken out of the base: without it each start would cost seconds.

    The compiled files do not depend on times (PEP 552), so that a build can be repeated.
    """
    root = shop.scratch("python")
    wanted = ["usr/bin/python3*", "usr/lib/python3*", "lib64", "lib", "bin", "usr/lib64"]
    wanted += [
        f"usr/lib/x86_64-linux-gnu/{name}"
        for name in ("ld-linux*", "libc.so*", "libm.so*", "libz.so*", "libexpat.so*")
    ]
    shop.run(["unsquashfs", "-quiet", "-no-progress", "-force", "-dest", root, base.squashfs, *wanted])
    (root / CODE).parent.mkdir(parents=True)
    (tree / CODE).rename(root / CODE)
    words: list[str | Path] = ["chroot", root, f"/usr/bin/python{PYTHON}", "-m", "compileall", "-q"]
    shop.run([*words, "--invalidation-mode", "unchecked-hash", f"/{CODE}"])
    (root / CODE).rename(tree / CODE)
