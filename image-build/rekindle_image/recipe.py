"""How a medium is made. ``build_medium``'s lines are the steps; each has its own file."""

from __future__ import annotations

import time

from recovery.events import Listener
from recovery.units import format_size
from rekindle_image.apt import choose_mirrors, read_machine_sources, read_transport_options
from rekindle_image.base import base_key, build_base
from rekindle_image.beside import Medium, write_beside
from rekindle_image.boot import lay_tree, make_esp, make_iso
from rekindle_image.checks import COLD_SPACE, OUTPUT_SPACE, check_root, check_space, check_tools
from rekindle_image.code import (
    build_code,
    build_font,
    check_keymap,
    console_characters,
    find_lock,
    install_python_packages,
    locked_packages,
)
from rekindle_image.request import ImageRequest
from rekindle_image.scratch import scratch_folder
from rekindle_image.workshop import Workshop, prune_cache


def build_medium(request: ImageRequest, listener: Listener) -> Medium:
    """Build the ISO and what lies beside it. Raises the errors of ``recovery.errors``; a failed step names the log.

    The ISO appears under its name when it is whole, never before.
    """
    check_root()
    check_tools()
    request.cache.mkdir(parents=True, exist_ok=True)
    prune_cache(request.cache, time.time())
    cold = 0 if (request.cache / base_key(request)).is_dir() else COLD_SPACE[request.firmware]
    check_space(
        {request.cache: cold + OUTPUT_SPACE[request.firmware], request.output.parent: OUTPUT_SPACE[request.firmware]}
    )
    lock = find_lock()
    python = locked_packages(lock.read_text())
    mirrors = choose_mirrors(read_machine_sources(), request.mirror, request.security_mirror)

    log = request.output.with_name(request.output.name + ".log")
    log.write_text("")
    # Beside the cache and not in /tmp, which may be a small tmpfs mounted without devices.
    with scratch_folder(request.cache, ".build-") as work:
        shop = Workshop(work, request.cache, log, request.epoch, listener, steps=5)
        with shop.step("debian", "Debian 13, kernel and firmware") as said:
            base, cached = build_base(shop, request, mirrors, read_transport_options())
            said.append(
                f"kernel {base.kernel_version}, {format_size(base.squashfs.stat().st_size)}" + " (cached)" * cached
            )
            check_keymap(request, base)
        with shop.step("python", "Locked Python packages") as said:
            packages, cached = install_python_packages(shop, lock)
            said.append(f"{len(python)} packages" + " (cached)" * cached)
        with shop.step("code", "Recovery console, services, console font") as said:
            font, glyphs = build_font(base, console_characters())
            code = shop.work / "rekindle.squashfs"
            build_code(shop, request, base, packages, font, code)
            said.append(f"{format_size(code.stat().st_size)}, {len(glyphs.glyphs)} characters on the console")
        with shop.step("iso", "Bootable image") as said:
            tree, esp = shop.scratch("iso"), shop.work / "efi.img"
            unfinished = request.output.with_name(f".{request.output.name}.part")
            try:
                lay_tree(request, base, code, tree)
                make_esp(shop, base, esp)
                make_iso(shop, request, base, tree, esp, unfinished)
                unfinished.replace(request.output)
            finally:
                unfinished.unlink(missing_ok=True)
            said.append(format_size(request.output.stat().st_size))
        with shop.step("beside", "Checksum, package lists, netboot files") as said:
            medium = write_beside(request, base, python, font, log, request.output)
            said.append(f"SHA-256 {medium.sha256[:16]}…")
    return medium
