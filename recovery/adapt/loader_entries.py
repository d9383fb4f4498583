"""Hosts that start by systemd-boot: boot entries and kernels on the ESP (or on /boot) instead of a GRUB menu."""

from __future__ import annotations

from dataclasses import dataclass

from recovery.adapt.host import HostTree
from recovery.adapt.initramfs import initramfs_of, version_key
from recovery.adapt.model import Job
from recovery.errors import IntegrityError, SpaceError

#: ``kernel-install`` writes new entries with the words of the first of these; else with /proc/cmdline, which in a
#: chroot on the recovery medium is the medium's.
_COMMAND_LINES = ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline")
_MENUS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")


@dataclass(frozen=True)
class LoaderEntry:
    """A boot entry (Boot Loader Specification, type 1). ``file`` is the host's path of it; ``linux`` and
    ``initrds`` are paths on the filesystem that it lies on, mounted at ``base``."""

    file: str
    base: str
    title: str = ""
    version: str = ""
    linux: str = ""
    initrds: tuple[str, ...] = ()
    options: str = ""


def parse_entry(text: str, file: str, base: str) -> LoaderEntry:
    """One ``*.conf``. ``initrd`` and ``options`` may stand several times. Pure."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#"):
            found.setdefault(key.lower(), []).append(value.strip())
    one = {key: values[-1] for key, values in found.items()}
    return LoaderEntry(
        file, base, one.get("title", ""), one.get("version", ""), one.get("linux", ""),
        tuple(found.get("initrd", ())), " ".join(found.get("options", ())),
    )  # fmt: skip


def entries(job: Job, host: HostTree) -> list[LoaderEntry]:
    """All entries of the host that start a kernel, newest last. Those of GRUB hosts (Fedora, RHEL) are none of
    ours."""
    if any(host.exists(menu) for menu in _MENUS):
        return []
    found = []
    for base in dict.fromkeys(filter(None, (job.esp_path, "/boot"))):
        for file in host.glob(f"{base}/loader/entries/*.conf"):
            entry = parse_entry(host.read(file) or "", file, base)
            if entry.linux:
                found.append(entry)
    return sorted(found, key=lambda entry: version_key(entry.version))


def uses_entries(job: Job, host: HostTree) -> bool:
    """Whether the host starts by boot entries instead of a GRUB menu."""
    return bool(entries(job, host))


def pin_command_line(job: Job, host: HostTree) -> None:
    """The words of the newest entry become the host's own setting, before a tool in the chroot takes the medium's."""
    found = entries(job, host)
    if found and found[-1].options and not any(host.exists(name) for name in _COMMAND_LINES):
        host.write(_COMMAND_LINES[0], found[-1].options + "\n")
        job.changed(
            "The kernel's command line was written to /etc/kernel/cmdline, from which new boot entries take it."
        )


def repair_entries(job: Job, host: HostTree) -> None:
    """The initramfs that was rebuilt in /boot is the one that the entries start. Raises SpaceError."""
    for entry in entries(job, host):
        source = initramfs_of(host, entry.version)
        # The last one is the kernel's own; microcode may stand before it.
        target = f"{entry.base}/{entry.initrds[-1].lstrip('/')}" if entry.initrds else ""
        if not source or not target or host.path(source) == host.path(target) or not host.exists(target):
            continue
        try:
            copied = _copy(host, source, target)
        except OSError as error:
            raise SpaceError(
                f"The initramfs of {entry.version} has no room on {entry.base} of the host: {error.strerror}.",
                hint="Remove an old kernel from it, then run 'rekindle adapt' again.",
            ) from error
        if copied:
            job.changed(f"Boot entry {entry.title or entry.file} starts the new initramfs of {entry.version}.")


def _copy(host: HostTree, source: str, target: str) -> bool:
    """Copy without keeping what was there: an ESP has no room for two, and the old one boots the old machine only."""
    path = host.path(target)
    data = host.path(source).read_bytes()
    if path.read_bytes() == data:
        return False
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(data)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    new.replace(path)
    return True


def check_entries(job: Job, host: HostTree) -> tuple[LoaderEntry, ...]:
    """The entries whose files are all there. Raises IntegrityError when the newest lacks one."""
    found = entries(job, host)
    whole = []
    for entry in found:
        missing = [f for f in (entry.linux, *entry.initrds) if not host.exists(f"{entry.base}/{f.lstrip('/')}")]
        if not missing:
            whole.append(entry)
        elif entry is found[-1]:
            raise IntegrityError(
                f"The boot entry {entry.file} starts {', '.join(missing)}, which is not there.",
                hint="Run 'kernel-install add' (or reinstall the kernel) in the host's chroot, then adapt again.",
            )
        else:
            job.warn(f"The boot entry {entry.file} starts {', '.join(missing)}, which is not there: do not choose it.")
    return tuple(whole)
