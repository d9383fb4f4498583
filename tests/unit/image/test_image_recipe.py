"""What the recipe's parts decide: lists, menus, the pre-fills, the bill of materials, the cache."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rekindle_image import checks
from rekindle_image.base import Package, base_key, package_names, read_list
from rekindle_image.beside import bill_of_materials, write_checksum
from rekindle_image.boot import LABEL, fill, menu_values, parameters_of
from rekindle_image.code import console_characters, find_lock, lay_links, locked_packages, medium_json
from rekindle_image.request import Authority, ImageRequest
from rekindle_image.site import parse_parameter
from rekindle_image.workshop import HERE, Workshop, content_hash, copy_overlay, prune_cache

from recovery import events
from recovery.commands import Completed, FakeRunner, use_runner
from recovery.errors import CommandError, NotFoundError, SpaceError, UsageError


def make_request(tmp_path: Path, **changes: object) -> ImageRequest:
    values: dict[str, object] = {
        "server": "https://backup:8443",
        "authority": Authority("0a" * 32),
        "output": tmp_path / "x.iso",
        "cache": tmp_path / "cache",
        "epoch": 1795392000,
        **changes,
    }
    return ImageRequest(**values)  # type: ignore[arg-type]


def make_workshop(tmp_path: Path) -> tuple[Workshop, list[events.Event]]:
    heard: list[events.Event] = []
    work = tmp_path / "work"
    work.mkdir()
    return Workshop(work, tmp_path / "cache", tmp_path / "build.log", 1795392000, heard.append, steps=1), heard


def test_package_lists_have_no_doubles_and_hold_what_the_engine_needs(tmp_path: Path) -> None:
    names = package_names(make_request(tmp_path, packages=("ipmitool", "lvm2")))
    assert "ipmitool" in names
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in names)
    needed = {"python3-parted", "lvm2", "mdadm", "cryptsetup-bin", "gdisk", "xfsprogs", "btrfs-progs", "shim-signed"}
    assert needed <= set(names)
    assert set(read_list("firmware-server")) < set(read_list("firmware-all"))
    assert read_list("firmware-none") == []


def test_the_cache_key_changes_with_what_the_base_is_made_of_and_only_that(tmp_path: Path) -> None:
    key = base_key(make_request(tmp_path))
    assert key == base_key(make_request(tmp_path, server="https://other", output=tmp_path / "y.iso", serial="ttyS1"))
    site = {"keymap": "de", "ssh_keys": ("ssh-ed25519 A",), "unattended": ("rekindle.host=x",)}
    assert key == base_key(make_request(tmp_path, **site))
    for change in (
        {"epoch": 1795478400}, {"firmware": "none"}, {"compression": 3}, {"packages": ("jq",)}, {"drivers": ("jq",)},
    ):  # fmt: skip
        assert base_key(make_request(tmp_path, **change)) != key


def test_a_content_hash_sees_names_contents_and_modes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "a/file"
    file.write_text("one")
    seen = {content_hash(tmp_path)}
    file.write_text("two")
    seen.add(content_hash(tmp_path))
    file.chmod(0o755)
    seen.add(content_hash(tmp_path))
    file.rename(tmp_path / "a/other")
    seen.add(content_hash(tmp_path))
    seen.add(content_hash(tmp_path, "word"))
    assert len(seen) == 5
    before = content_hash(tmp_path)
    os.utime(tmp_path / "a/other", (1, 1))
    assert content_hash(tmp_path) == before


def test_a_cached_part_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    shop, _ = make_workshop(tmp_path)

    def fail(target: Path) -> None:
        (target / "half").write_text("x")
        raise CommandError("no")

    def make(target: Path) -> None:
        (target / "whole").write_text("x")

    with pytest.raises(CommandError):
        shop.cached("part", fail)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".part.lock"]
    assert shop.cached("part", make) == (tmp_path / "cache/part", False)
    assert shop.cached("part", fail) == (tmp_path / "cache/part", True)
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".part.lock", "part"]


def test_of_two_builds_of_one_part_one_makes_it_and_the_other_one_waits(tmp_path: Path) -> None:
    shop, heard = make_workshop(tmp_path)
    at_work, told, made = threading.Event(), threading.Event(), list[str]()

    def slow(target: Path) -> None:
        at_work.set()
        assert told.wait(30)
        made.append("slow")
        (target / "file").write_text("slow")

    def never(target: Path) -> None:
        made.append("never")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shop.cached, "part", slow)
        assert at_work.wait(30)
        second = pool.submit(shop.cached, "part", never)
        end = time.monotonic() + 30
        while not any(isinstance(event, events.Message) and "Another build" in event.text for event in heard):
            assert time.monotonic() < end
            time.sleep(0.01)
        told.set()
        assert first.result(30) == (tmp_path / "cache/part", False)
        assert second.result(30) == (tmp_path / "cache/part", True)
    assert made == ["slow"]


def test_old_parts_leave_the_cache_and_nothing_else_does(tmp_path: Path) -> None:
    now = 1795392000.0
    ages = {"base-new": 29, "base-old": 31, "python-old": 31, ".build-left": 2, ".base-now": 0, "photos": 400}
    for name, days in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (now - days * 86400, now - days * 86400))
    for name, days in {".base-gone.lock": 2, ".base-now.lock": 0}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - days * 86400, now - days * 86400))
    assert prune_cache(tmp_path, now) == [".build-left", "base-old", "python-old"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".base-now", ".base-now.lock", "base-new", "photos"]


def test_a_failing_tool_names_the_log_with_all_it_said(tmp_path: Path) -> None:
    shop, heard = make_workshop(tmp_path)
    program = "import sys; print('all the detail'); sys.exit('the reason')"
    with pytest.raises(CommandError, match="the reason") as caught, shop.step("one", "First step"):
        shop.run([sys.executable, "-c", program])
    assert str(tmp_path / "build.log") in caught.value.hint
    log = (tmp_path / "build.log").read_text()
    assert "all the detail" in log
    assert "the reason" in log
    assert [type(event).__name__ for event in heard if not isinstance(event, events.Progress)] == ["StepStarted"]


def test_tools_get_the_date_of_the_build(tmp_path: Path) -> None:
    shop, heard = make_workshop(tmp_path)
    with shop.step("one", "First step") as said:
        shop.run([sys.executable, "-c", "import os; print(os.environ['SOURCE_DATE_EPOCH'], os.environ['TZ'])"])
        said.append("done")
    assert "1795392000 UTC" in (tmp_path / "build.log").read_text()
    finished = heard[-1]
    assert isinstance(finished, events.StepFinished)
    assert finished.summary == "done"


def test_every_menu_can_be_filled_and_names_files_the_iso_has(tmp_path: Path) -> None:
    request = make_request(tmp_path, serial="ttyS1", unattended=("rekindle.host=pve 1", "rekindle.disks=same"))
    menu = fill((HERE / "boot/grub.cfg").read_text(), menu_values(request))
    assert "@" not in menu
    assert menu.count("{\n") == menu.count("}\n") >= 7
    assert set(re.findall(r"^ +(?:linux|initrd) (\S+)", menu, re.MULTILINE)) == {
        "$files/vmlinuz", "$files/initrd.img", "$memtest/memtest86+x64.efi", "$memtest/memtest86+x64.bin",
    }  # fmt: skip
    assert re.findall(r"--id (\w+)", menu) == [
        "console", "serial", "unattended", "safe", "toram", "memtest", "disk", "firmware",
    ]  # fmt: skip
    assert "rekindle.unattended 'rekindle.host=pve 1' 'rekindle.disks=same' $screen" in menu
    assert "--unit=1 " in menu
    assert "console=ttyS1,115200" in menu
    with pytest.raises(KeyError):
        fill("@UNKNOWN@", {})


def test_kernel_parameters_stand_in_every_entry_that_starts_the_medium(tmp_path: Path) -> None:
    request = make_request(tmp_path, kernel_parameters=("nomodeset", "pci=noaer"))
    menu = fill((HERE / "boot/grub.cfg").read_text(), menu_values(request))
    starts = re.findall(r"^ +linux \$files/vmlinuz .*$", menu, re.MULTILINE)
    assert len(starts) == 5 and all(line.endswith(" $parameters") for line in starts)
    assert parameters_of(menu) == "nomodeset pci=noaer"
    plain = fill((HERE / "boot/grub.cfg").read_text(), menu_values(make_request(tmp_path)))
    assert parameters_of(plain) == parameters_of("") == ""


@pytest.mark.parametrize("word", ["two words", "$x", "a'b", 'a"b', "", "a`b", "rekindle.host=x", "-x"])
def test_what_is_no_kernel_parameter_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        parse_parameter(word)


def test_the_initramfs_looks_for_the_label_that_the_iso_has() -> None:
    script = (HERE / "base/files/etc/initramfs-tools/scripts/rekindle").read_text()
    assert f"\nLABEL={LABEL}\n" in script


def test_what_the_medium_carries_is_what_the_engine_reads(tmp_path: Path) -> None:
    import msgspec

    from recovery.engine.api import Medium

    text = medium_json(make_request(tmp_path, authority=Authority("0a" * 32, "PEM")))
    medium = msgspec.json.decode(text.encode(), type=Medium)
    assert (medium.server, medium.ca_fingerprint, medium.ca_pem) == ("https://backup:8443", "0a" * 32, "PEM")
    assert medium.built == "2026-11-23"
    assert set(json.loads(text)) == {f.name for f in msgspec.structs.fields(Medium)}


def test_the_lock_is_read_and_a_python_marker_refused() -> None:
    packages = dict(locked_packages(find_lock().read_text()))
    assert packages["textual"]
    assert "cffi" in packages, "a marker about the implementation holds for us"
    with pytest.raises(NotFoundError, match="tomli"):
        locked_packages("tomli==2.0.1 ; python_full_version < '3.11' \\\n    --hash=sha256:00\n")


def test_the_console_can_draw_ascii_and_every_glyph_of_the_tui() -> None:
    from recovery.tui.glyphs import GLYPHS

    characters = console_characters()
    assert set(GLYPHS) < set(characters)
    assert set(map(chr, range(0x20, 0x7F))) < set(characters)
    assert len(set(characters)) <= 512


def test_the_bill_of_materials_names_every_package(tmp_path: Path) -> None:
    debian = [
        Package("libc6", "2.41-12", "amd64", "glibc", "2.41-12"),
        Package("g++-x", "1:2~b+c", "all", "g++-x", "1:2~b+c"),
    ]
    bom = bill_of_materials(make_request(tmp_path), debian, [("Textual", "8.2.8")])
    assert bom["bomFormat"] == "CycloneDX"
    components = bom["components"]
    assert isinstance(components, list)
    assert [c["purl"] for c in components] == [
        "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=debian-13&upstream=glibc%402.41-12",
        "pkg:deb/debian/g++-x@1%3A2~b+c?arch=all&distro=debian-13",
        "pkg:pypi/textual@8.2.8",
    ]


def test_the_checksum_is_what_sha256sum_checks(tmp_path: Path) -> None:
    iso = tmp_path / "x.iso"
    iso.write_bytes(b"abc")
    digest, file = write_checksum(iso)
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file.read_text() == f"{digest}  x.iso\n"


def test_an_overlay_has_a_systems_modes_whatever_the_umask(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/file").write_text("x")
    (source / "etc/file").chmod(0o600)
    (source / "etc/script").write_text("x")
    (source / "etc/script").chmod(0o700)
    (source / "etc/link").symlink_to("file")
    target = tmp_path / "target"
    copy_overlay(source, target)
    assert (target / "etc/file").stat().st_mode & 0o777 == 0o644
    assert (target / "etc/script").stat().st_mode & 0o777 == 0o755
    assert (target / "etc/link").readlink() == Path("file")


def test_the_mediums_units_are_linked_to_units_that_are_there(tmp_path: Path) -> None:
    copy_overlay(HERE / "rootfs", tmp_path)
    lay_links((HERE / "rootfs.links").read_text(), tmp_path)
    system = tmp_path / "etc/systemd/system"
    started = {link.name for folder in system.glob("*.wants") for link in folder.iterdir()}
    assert {"rekindle-engine.service", "rekindle-tui@tty1.service", "rekindle-unattended.service"} <= started
    for link in (path for path in system.rglob("*") if path.is_symlink()):
        target = link.readlink()
        ours = target if target.is_absolute() else link.parent / target
        assert str(target).startswith(("/dev/null", "/usr/lib/systemd/")) or ours.resolve().is_file(), link
    for unit in system.rglob("*.service"):
        assert unit.is_symlink() or "[Service]" in unit.read_text(), f"{unit} is no unit: a link that was lost?"


def test_the_mediums_programs_that_units_and_programs_call_are_there(tmp_path: Path) -> None:
    copy_overlay(HERE / "rootfs", tmp_path)
    called = {
        name
        for file in tmp_path.rglob("*")
        if file.is_file() and not file.is_symlink()
        for name in re.findall(rb"/usr/lib/rekindle/([a-z-]+)", file.read_bytes())
    }
    assert {b"console", b"ready", b"devices", b"asked"} <= called
    for name in called:
        program = tmp_path / "usr/lib/rekindle" / name.decode()
        assert program.stat().st_mode & 0o777 == 0o755, f"{program.name} is missing, or nobody may run it"


def test_no_secret_and_no_identity_is_in_the_folders_of_the_builder() -> None:
    for file in HERE.rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            assert b"PRIVATE KEY" not in file.read_bytes()
            assert file.name not in ("machine-id", "authorized_keys", "shadow")


def test_checks_refuse_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpaceError, match="free"):
        checks.check_space({tmp_path: 1 << 60})
    checks.check_space({tmp_path: 1})
    huge: Callable[[Path], object] = lambda _: type("Usage", (), {"free": 150})()  # noqa: E731
    monkeypatch.setattr("rekindle_image.checks.shutil.disk_usage", huge)
    (tmp_path / "other").mkdir()
    checks.check_space({tmp_path: 100})
    with pytest.raises(SpaceError):  # one file system: what both need adds up
        checks.check_space({tmp_path: 100, tmp_path / "other": 100})
    monkeypatch.setattr("rekindle_image.checks.os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="root"):
        checks.check_root()
    monkeypatch.setattr(
        "rekindle_image.checks.shutil.which", lambda tool: None if tool in ("xorriso", "mmd", "mcopy") else "/x"
    )
    with pytest.raises(CommandError, match="mtools, xorriso missing"):
        checks.check_tools()


def test_how_the_mirror_is_reached_is_asked_of_apt() -> None:
    from rekindle_image.apt import read_transport_options

    fake = FakeRunner({("apt-config", "dump"): Completed((), 0, 'Acquire::http::Proxy "http://p:1";\nA::B "1";\n')})
    with use_runner(fake):
        assert read_transport_options() == ['Acquire::http::Proxy "http://p:1";']
