"""Step: read back what booting needs. What is proven goes into the report; what is missing is said, never hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable

from recovery.adapt import prove_stack
from recovery.adapt.bootloader import menu_file
from recovery.adapt.devices import Node, below, is_unstable, resolve
from recovery.adapt.drivers import kernel_modules, module_name, needed_of
from recovery.adapt.esp import find_folder
from recovery.adapt.grub_bios import has_boot_code
from recovery.adapt.host import HostTree
from recovery.adapt.initramfs import host_kernels, initramfs_of
from recovery.adapt.loader_entries import check_entries, uses_entries
from recovery.adapt.luks import parse_crypttab
from recovery.adapt.make_room import firmware_of
from recovery.adapt.model import Job
from recovery.adapt.names import parse_fstab
from recovery.errors import IntegrityError
from recovery.machine.modules import modules_in_use

TITLE = "Prove that the host will boot"

#: GRUB's commands that load a kernel.
_LINUX = ("linux", "linux16", "linuxefi")


def prove(job: Job) -> str:
    """Raises IntegrityError when something without which the host cannot boot is missing."""
    host = job.host
    if host is None or job.root is None:
        return "No system to prove."
    job.changed(f"Proven: the root filesystem ({job.root.content}) on {job.root.path} mounts.")
    _prove_initramfs(job, host)
    _prove_encryption(job, host)
    if uses_entries(job, host):
        _prove_entries(job, host)
    else:
        _prove_menu(job, host)
    _prove_fstab(job, host)
    if firmware_of(job.request) == "uefi":
        _prove_esp(job, host)
    else:
        _prove_boot_sector(job)
    return "Everything that booting needs is in its place."


def _prove_initramfs(job: Job, host: HostTree) -> None:
    kernels = host_kernels(host)
    for kernel in reversed(kernels):
        problem = _initramfs_problem(job, host, kernel)
        if not problem:
            continue
        if kernel == kernels[-1]:  # the one that GRUB starts
            raise IntegrityError(
                f"{problem} The host would not find its disk.",
                hint="See the log of the step that rebuilt the initramfs, and 'lsinitramfs' in the host.",
            )
        job.warn(f"{problem} Do not start this older kernel.")
    job.changed(f"Proven: kernel {kernels[-1]} and its initramfs with this machine's disk drivers are there.")


def _initramfs_problem(job: Job, host: HostTree, kernel: str) -> str:
    image = initramfs_of(host, kernel)
    if image is None:
        return f"Kernel {kernel} has no initramfs."
    tool = host.program("lsinitramfs", "lsinitrd")
    done = host.run([tool, image], check=False) if tool else None
    if not done or not done.stdout.strip():
        return f"The initramfs {image} cannot be read."
    loadable, _ = kernel_modules(host.path(f"/lib/modules/{kernel}"))
    listing = done.stdout.splitlines()
    missing = missing_modules(needed_modules(job), loadable, listing)
    missing += prove_stack.missing_programs(_below_root(job), listing)
    return f"The initramfs {image} lacks {', '.join(missing)}." if missing else ""


def needed_modules(job: Job) -> list[str]:
    """The modules without which the restored disks, and what the root lies on, cannot be reached on this machine."""
    disks = job.request.targets.values()
    names = [name for disk in disks for name in needed_of(disk, modules_in_use(disk.path))]
    return [*names, *prove_stack.stack_modules(_below_root(job))]


def _below_root(job: Job) -> list[Node]:
    return below(job.root, job.nodes) if job.root else []


def _prove_encryption(job: Job, host: HostTree) -> None:
    chain = _below_root(job)
    entries = parse_crypttab(host.read("/etc/crypttab") or "")
    for path in prove_stack.unlisted(chain, entries):
        job.warn(f"crypttab does not name {path}, on which the root lies; the kernel's command line has to.")
    opened = [node.path for node in chain if node.kind == "crypt"]
    if opened:
        job.changed(f"Proven: the passphrase opens {', '.join(opened)}; it is asked for at every boot.")


def missing_modules(needed: Iterable[str], loadable: Iterable[str], listing: Iterable[str]) -> list[str]:
    """Needed modules that the kernel has as files but the initramfs has not. What is built in, or unknown to this
    kernel under that name, cannot be missing. Pure."""
    contained = {module_name(line.split()[-1]) for line in listing if ".ko" in line}
    files = set(loadable)
    return [name for name in dict.fromkeys(needed) if name in files and name not in contained]


def _prove_menu(job: Job, host: HostTree) -> None:
    menu = menu_file(host)
    if menu is None:
        job.warn("The host has no GRUB menu; whether its bootloader finds it was not proven.")
        return
    text = host.read(menu) or ""
    unknown, roots = unknown_names(text, job.nodes), root_names(text)
    if roots and all(name in unknown for name in roots):
        raise IntegrityError(
            f"GRUB's menu starts the host from {', '.join(roots)}, which is on no restored disk.",
            hint="Run update-grub in the host's chroot and look at its messages; then run 'rekindle adapt' again.",
        )
    if unknown:
        job.warn(f"GRUB's menu also names {', '.join(unknown)}, which is on no restored disk.")
    else:
        job.changed("Proven: every filesystem that GRUB's menu names is on the restored disks.")


def root_names(menu: str) -> list[str]:
    """The ``root=`` of the entries of a GRUB menu that start Linux; those made of variables are left out. Pure."""
    lines = (line.split() for line in menu.splitlines())
    words = (word for line in lines if line[:1] and line[0] in _LINUX for word in line)
    names = (word.removeprefix("root=") for word in words if word.startswith("root="))
    return [name for name in dict.fromkeys(names) if "$" not in name]


def unknown_names(menu: str, nodes: Iterable[Node]) -> list[str]:
    """Names of filesystems in a GRUB menu (``root=``, ``search --fs-uuid``) that no node has. Pure."""
    nodes = tuple(nodes)
    lines = [line for line in menu.splitlines() if not line.lstrip().startswith("#")]
    names = [f"UUID={m}" for line in lines for m in re.findall(r"--fs-uuid\s.*?([0-9A-Fa-f-]{4,36})\s*$", line)]
    names += root_names(menu)
    return [name for name in dict.fromkeys(names) if "$" not in name and resolve(name, nodes) is None]


def _prove_fstab(job: Job, host: HostTree) -> None:
    optional = {"nofail", "noauto"}
    proven = True
    for entry in parse_fstab(host.read("/etc/fstab") or ""):
        local = entry.spec.startswith("/dev/") or re.match(r"(PART)?(UUID|LABEL)=", entry.spec)
        if not local or optional & set(entry.options) or re.match(r"/dev/(sr|fd|cdrom|zvol)", entry.spec):
            continue
        if resolve(entry.spec, job.nodes) is None or is_unstable(entry.spec):
            proven = False
            job.warn(
                f"fstab wants {entry.spec} for {entry.point}, which is on no restored disk: the boot may stop there "
                "and ask. Add 'nofail' to its options if it is not needed."
            )
    if proven:
        job.changed("Proven: every filesystem that fstab needs is on the restored disks.")


def _prove_entries(job: Job, host: HostTree) -> None:
    for entry in check_entries(job, host):
        roots = [word.removeprefix("root=") for word in entry.options.split() if word.startswith("root=")]
        if lost := [name for name in roots if resolve(name, job.nodes) is None or is_unstable(name)]:
            raise IntegrityError(
                f"The boot entry {entry.file} starts the host from {', '.join(lost)}, which is on no restored disk.",
                hint="Correct it and /etc/kernel/cmdline in the restored system, then run 'rekindle adapt' again.",
            )
    job.changed("Proven: the boot entries' kernels, initramfs and root filesystem are there.")


def _prove_boot_sector(job: Job) -> None:
    disks = [disk.path for disk in job.request.targets.values()]
    if not any(has_boot_code(path) for path in disks):
        raise IntegrityError(
            f"Neither of {', '.join(disks)} has a boot sector that a BIOS could start.",
            hint="Run 'rekindle adapt' again; see the log of the step that installed the bootloader.",
        )


def _prove_esp(job: Job, host: HostTree) -> None:
    loader = find_folder(host.path(job.esp_path or "/boot/efi"), "EFI", "BOOT", "BOOTX64.EFI")
    if not loader.is_file() or loader.read_bytes()[:2] != b"MZ":
        raise IntegrityError(
            "The EFI system partition has no \\EFI\\BOOT\\BOOTX64.EFI that can be started.",
            hint="Run 'rekindle adapt' again; see the log of the step that installed the bootloader.",
        )
    job.changed("Proven: the firmware finds the host by \\EFI\\BOOT\\BOOTX64.EFI.")
