"""Step: the firmware of this machine finds GRUB, and GRUB finds the host."""

from __future__ import annotations

from pathlib import Path

from recovery.adapt import esp as esp_files
from recovery.adapt.efivars import choose_loader, order_with_first, parse
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.commands import run
from recovery.errors import CommandError, DeviceError, UsageError

TITLE = "Install the bootloader"

#: Seconds.
_TIMEOUT = 1200


def install(job: Job) -> str:
    """BIOS: boot code on every disk that had it. UEFI: loader, fallback path, boot entry. Then GRUB's menu.

    Raises UsageError when the host cannot start in this machine's firmware mode, CommandError, NotFoundError,
    SpaceError, DeviceError.
    """
    host = job.host
    if host is None:
        return "No system to adapt."
    firmware = job.request.machine.firmware
    if firmware == "unknown":
        firmware = job.request.point.body.firmware
    summary = _install_uefi(job, host) if firmware == "uefi" else _install_bios(job, host)
    _update_menu(job, host)
    return summary


def _install_bios(job: Job, host: HostTree) -> str:
    # A UEFI host's disk may carry a partitioner's stub that only says "not bootable": GRUB's own code is asked for.
    by_grub = job.request.point.body.firmware == "uefi"
    disks = [disk.path for disk in job.request.targets.values() if has_boot_code(disk.path, by_grub)]
    if not disks:
        raise UsageError(
            "No restored disk has boot code: the host starts by UEFI, and this machine was started in BIOS mode.",
            hint="Switch the machine's firmware to UEFI, start the medium again and run 'rekindle adapt'.",
        )
    grub_install = host.program("grub-install", "grub2-install")
    if not grub_install or not host.is_dir("/usr/lib/grub/i386-pc"):
        job.warn("The host has no grub-install for BIOS; the boot code that it was captured with is used.")
        return "The captured boot code is used."
    for disk in disks:
        done = host.run([grub_install, "--target=i386-pc", disk], check=False, timeout=_TIMEOUT, on_output=job.note)
        if done:
            job.changed(f"GRUB was installed in the boot sector of {disk}.")
        else:
            # What was captured is still in place: GRUB writes only after all its checks.
            job.warn(f"GRUB was not renewed on {disk} ({_last(done.stderr)}); the captured boot code is used.")
    return f"GRUB for BIOS on {', '.join(disks)}"


def has_boot_code(path: str, by_grub: bool = False) -> bool:
    """Whether the first sector holds a boot program (GRUB's). Raises DeviceError."""
    try:
        with Path(path).open("rb") as disk:
            sector = disk.read(512)
    except OSError as error:
        raise DeviceError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the disk and its cable; see 'dmesg'."
        ) from error
    return any(sector[:440]) and sector[510:] == b"\x55\xaa" and (not by_grub or b"GRUB" in sector[:440])


def _install_uefi(job: Job, host: HostTree) -> str:
    if job.esp is None:
        raise UsageError(
            "The host has no EFI system partition in its fstab: it starts by BIOS, and this machine by UEFI.",
            hint="Switch the firmware to BIOS (legacy, CSM), start the medium again and run 'rekindle adapt'.",
        )
    grub_install = host.program("grub-install", "grub2-install")
    # RHEL's grub2-install refuses to replace the signed loader, and rightly: there the packages own the ESP.
    if grub_install and host.is_dir("/usr/lib/grub/x86_64-efi") and not grub_install.endswith("grub2-install"):
        words = [grub_install, "--target=x86_64-efi", f"--efi-directory={job.esp_path}", "--no-nvram"]
        # Into the folder that the host has, whatever GRUB_DISTRIBUTOR says today: signed GRUB knows no other.
        if captured := choose_loader(esp_files.loader_files(host.path(job.esp_path)), _vendor(job, host)):
            words.append(f"--bootloader-id={captured.split('/')[1]}")
        done = host.run(words, check=False, timeout=_TIMEOUT, on_output=job.note)
        if done:
            job.changed(f"GRUB was installed on the EFI system partition {job.esp.path}.")
        else:
            job.warn(f"GRUB was not renewed on {job.esp.path} ({_last(done.stderr)}); the captured loader is used.")
    root = host.path(job.esp_path)
    loader = esp_files.vendor_loader(root, _vendor(job, host))
    for sentence in esp_files.ensure_fallback(root, loader):
        job.changed(sentence)
    if job.request.machine.secure_boot and "shim" not in loader.lower():
        job.warn("Secure Boot is on, but the host has no signed shim: switch Secure Boot off, or it will not start.")
    _boot_entry(job, "\\" + loader.replace("/", "\\"))
    return f"GRUB for UEFI: {loader}"


def _vendor(job: Job, host: HostTree) -> str:
    """The vendor's folder on the ESP is the os-release ID, but for a few."""
    for line in (host.read("/etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "ID":
            return value.strip("\"'")
    return job.request.point.body.system.os_id


def _boot_entry(job: Job, loader: str) -> None:
    """Our entry first, its kind for partitions that are gone deleted. The fallback path works without: warnings."""
    if not Path("/sys/firmware/efi/efivars").is_dir():
        job.warn("The firmware's boot entries cannot be reached; it will start the host by the fallback path.")
        return
    assert job.esp is not None  # noqa: S101 - checked by the caller
    try:
        _write_entry(job, job.esp.part_uuid, job.request.targets[job.esp.disk].path, job.esp.number, loader)
    except CommandError as error:
        job.warn(f"The firmware took no boot entry ({error.message}); it will start the host by the fallback path.")


def _write_entry(job: Job, part_uuid: str, disk: str, number: int, loader: str) -> None:
    entries = parse(run(["efibootmgr", "-v"]).stdout)
    done = run(["lsblk", "--noheadings", "--list", "--output", "PARTUUID"])
    present = {line.strip().lower() for line in done.stdout.splitlines() if line.strip()} | {part_uuid}
    stale = entries.stale(present, loader)
    for entry in stale:
        run(["efibootmgr", "--quiet", "--bootnum", entry.number, "--delete-bootnum"])
        job.changed(f"Boot entry {entry.number} ({entry.label}) was deleted: its partition does not exist.")
    own = entries.find(part_uuid, loader)
    if own is None:
        label = label_of(job.request.point.body.system.os_name, loader)
        words = ["--create", "--disk", disk, "--part", str(number), "--label", label, "--loader", loader]
        run(["efibootmgr", "--quiet", *words])
        job.changed(f"The firmware got a boot entry for {loader}; it is the first.")
        return
    if not own.active:
        run(["efibootmgr", "--quiet", "--bootnum", own.number, "--active"])
    gone = {entry.number for entry in stale}
    order = tuple(n for n in entries.order if n not in gone)
    if order[:1] != (own.number,):
        run(["efibootmgr", "--quiet", "--bootorder", ",".join(order_with_first(order, own.number))])
        job.changed(f"Boot entry {own.number} ({own.label}) is the first now.")


def label_of(os_name: str, loader: str) -> str:
    """What the firmware's menu shows: the system's name, else the vendor's folder. Plain ASCII for old firmware."""
    plain = os_name.encode("ascii", errors="ignore").decode().strip()
    return plain or loader.strip("\\").split("\\")[1]


def _update_menu(job: Job, host: HostTree) -> None:
    environment = {"GRUB_DISABLE_OS_PROBER": "true"}  # other disks of this machine are none of the host's business
    if program := host.program("update-grub"):
        host.run([program], timeout=_TIMEOUT, env=environment, on_output=job.note)
    elif (program := host.program("grub2-mkconfig", "grub-mkconfig")) and (menu := menu_file(host)):
        host.run([program, "-o", menu], timeout=_TIMEOUT, env=environment, on_output=job.note)
    else:
        job.warn("The host has no tool that writes GRUB's menu; the captured menu is used.")
        return
    job.changed("GRUB's menu was written anew.")


def menu_file(host: HostTree) -> str | None:
    """Where the host's GRUB menu is."""
    return next((f for f in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg") if host.exists(f)), None)


def _last(text: str) -> str:
    return (text.strip() or "no reason given").splitlines()[-1].rstrip(".")
