"""Step: every kernel's initramfs gets the drivers of this machine."""

from __future__ import annotations

from recovery.adapt.drivers import kernel_modules, wanted_modules
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.errors import CommandError, NotFoundError, SpaceError
from recovery.machine.modules import modules_in_use
from recovery.units import format_count

TITLE = "Rebuild the initramfs with this machine's drivers"

#: Sourced after the files of the distribution and of the administrator, one of which may say MODULES=dep.
CONF = "/etc/initramfs-tools/conf.d/zz-rekindle"
MODULES = "/etc/initramfs-tools/modules"

_BEGIN = "# rekindle: drivers of the machine that this host was restored to"
_END = "# rekindle: end"

#: Seconds. Emulated machines take minutes for one initramfs.
_TIMEOUT = 3600


def rebuild(job: Job) -> str:
    """Raises NotFoundError when the host has no tool or no kernel, SpaceError, CommandError."""
    host = job.host
    if host is None:
        return "No system to adapt."
    kernels = host_kernels(host)
    if not kernels:
        raise NotFoundError(
            "The restored host has no kernel in /lib/modules.",
            hint="Was its /boot or /usr on a disk that was not restored?",
        )
    disks = list(job.request.targets.values())
    modules = wanted_modules(disks, (name for disk in disks for name in modules_in_use(disk.path)))
    known = set[str]().union(*(kernel_modules(host.path(f"/lib/modules/{k}"))[0] for k in kernels))
    modules = [name for name in modules if name in known]
    if uses_initramfs_tools(host):
        host.write(CONF, "# Written by rekindle: this host was restored to other hardware.\nMODULES=most\n")
        host.write(MODULES, with_modules(host.read(MODULES) or "", modules))
        _run(job, host, ["update-initramfs", "-u", "-k", "all"])
        # That one passes over a kernel without an initramfs and says nothing. The newest is what starts.
        if initramfs_of(host, kernels[-1]) is None:
            _run(job, host, ["update-initramfs", "-c", "-k", kernels[-1]])
    elif host.program("dracut"):
        words = ["--add-drivers", " ".join(modules)] if modules else []
        # A configuration may say hostonly="yes", and carry the old root and its disk's name into the initramfs.
        general = ["--no-hostonly", "--no-hostonly-cmdline"]
        _run(job, host, ["dracut", "--regenerate-all", "--force", *general, *words])
    else:
        raise NotFoundError(
            "The restored host has neither initramfs-tools nor dracut, so its initramfs cannot be rebuilt.",
            hint="If its initramfs has all drivers it may boot all the same; try it.",
        )
    job.changed(f"The initramfs of {', '.join(kernels)} was rebuilt with {', '.join(modules) or 'all drivers'}.")
    return format_count(len(kernels), "kernel")


def uses_initramfs_tools(host: HostTree) -> bool:
    """Debian's dracut has an ``update-initramfs`` too, which knows none of the settings that are written for this
    one."""
    return bool(host.program("update-initramfs")) and not (host.program("dracut") and not host.program("mkinitramfs"))


def initramfs_of(host: HostTree, kernel: str) -> str | None:
    """The initramfs of a kernel, as Debian or Red Hat names it."""
    names = (f"/boot/initrd.img-{kernel}", f"/boot/initramfs-{kernel}.img", f"/boot/initrd-{kernel}")
    return next((name for name in names if host.exists(name)), None)


def host_kernels(host: HostTree) -> list[str]:
    """Installed kernels (those with modules and an image in /boot), newest last."""
    names = [path.rsplit("/", 1)[-1] for path in host.glob("/lib/modules/*")]
    bootable = [name for name in names if host.exists(f"/boot/vmlinuz-{name}")]
    return sorted(bootable, key=version_key)


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Sort ``6.1.0-10`` after ``6.1.0-9``. Pure."""
    parts = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def with_modules(text: str, modules: list[str]) -> str:
    """The modules file with our block in its place; an earlier block is replaced. Pure."""
    lines = text.splitlines()
    if _BEGIN in lines and _END in lines:
        start, end = lines.index(_BEGIN), lines.index(_END)
        lines = lines[:start] + lines[end + 1 :]
    return "\n".join([*lines, _BEGIN, *modules, _END]) + "\n"


def _run(job: Job, host: HostTree, argv: list[str]) -> None:
    # systemd's tools (a hook of the host may copy the initramfs to the ESP) mistrust an ESP seen from a chroot.
    environment = {"SYSTEMD_RELAX_ESP_CHECKS": "1"}
    done = host.run(argv, check=False, timeout=_TIMEOUT, env=environment, on_output=job.note)
    if done:
        return
    said = done.stderr.strip() or done.stdout.strip()
    if "No space left" in said:
        raise SpaceError(
            "The restored host has no room for its new initramfs in /boot.",
            hint="Remove an old kernel from it (mount it, see 'rekindle adapt --help'), then adapt again.",
        )
    raise CommandError(
        f"The initramfs of the restored host cannot be rebuilt: {' / '.join(said.splitlines()[-3:])}",
        hint=f"The command in the host was: {' '.join(argv)}",
    )
