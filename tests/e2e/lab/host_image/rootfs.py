"""The host's system as a directory: Debian by mmdebstrap, then the files that make it this host."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rekindle_image import apt
from rekindle_image.scratch import OWN_MOUNTS

from recovery.commands import run
from tests.e2e.lab.host_image import modules, recipe

Say = Callable[[str], None]


def bootstrap(target: Path, packages: tuple[str, ...], variant: str, say: Say, *, suite: str = recipe.SUITE) -> Path:
    """Install or unpack Debian packages, from this machine's own mirror, into ``target``. Raises CommandError."""
    sources = apt.render_sources(apt.choose_mirrors(apt.read_machine_sources()), suite)
    argv = [*OWN_MOUNTS, "mmdebstrap", "--mode=root", f"--variant={variant}", "--format=directory"]
    for path in ("man", "doc", "info", "locale"):
        argv.append(f"--dpkgopt=path-exclude=/usr/share/{path}/*")
    argv += [f"--aptopt={option}" for option in apt.read_transport_options()]
    # As a file and not on stdin: commands whose output is watched have none.
    with (target.parent / f"{target.name}.sources").open("w") as file:
        file.write(sources)
    argv += [f"--include={','.join(packages)}", "", str(target), file.name]
    # The initramfs is made at the end, when the modules are chosen; each package would make it anew until then.
    run(argv, timeout=1800, on_output=say, env={"INITRD": "No"})
    return target


def kernel_version(root: Path) -> str:
    """The version of the one kernel that is installed in ``root``."""
    return next((root / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")


def configure(root: Path) -> None:
    """Make the bare Debian in ``root`` the virtualization host of the recipe."""
    version = kernel_version(root)
    files = {
        "etc/hostname": f"{recipe.HOST_NAME}\n",
        "etc/hosts": f"127.0.0.1 localhost\n{recipe.ADDRESS} {recipe.HOST_NAME}\n",
        "etc/fstab": recipe.FSTAB,
        "etc/network/interfaces": recipe.INTERFACES,
        "etc/default/grub": recipe.DEFAULT_GRUB,
        "etc/resolv.conf": "nameserver 10.0.2.3\n",
        "boot/grub/grub.cfg": recipe.grub_config(version),
        "etc/initramfs-tools/conf.d/modules": "MODULES=dep\n",
    }
    for name in recipe.VIRTUAL_MACHINES:
        files[f"etc/libvirt/qemu/{name}.xml"] = recipe.domain_xml(name)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    for name in recipe.VIRTUAL_MACHINES:
        link = root / f"etc/libvirt/qemu/autostart/{name}.xml"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/etc/libvirt/qemu/{name}.xml")
    (root / "boot/efi").mkdir(exist_ok=True)
    shutil.copytree(root / "usr/lib/grub/i386-pc", root / "boot/grub/i386-pc", dirs_exist_ok=True)

    run(["chroot", root, "chpasswd"], input=f"root:{recipe.ROOT_PASSWORD}\n".encode())
    # What would wake up in the middle of a test on an emulated processor.
    idle = ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"]
    run(["chroot", root, "systemctl", "-q", "mask", *idle])
    run(["chroot", root, "systemctl", "-q", "enable", "libvirtd.service", "ssh.service"])
    modules.prune(root, version, modules.ABSENT)
    modules.prune_hwdb(root)
    _initramfs(root, version)


def _initramfs(root: Path, version: str) -> None:
    """The initramfs that MODULES=dep makes on the old machine: only its own disk's drivers.

    MODULES=dep asks the running machine, which is not the old one here, so its answer is given as a list.
    """
    settings = root / "tmp/initramfs-tools"
    shutil.copytree(root / "etc/initramfs-tools", settings)
    (settings / "conf.d/modules").write_text("MODULES=list\n")
    (settings / "modules").write_text("\n".join(recipe.OLD_MODULES) + "\n")
    with mounted_system(root):
        run(
            ["chroot", root, "mkinitramfs", "-d", "/tmp/initramfs-tools", "-o", f"/boot/initrd.img-{version}", version]
        )  # noqa: S108
    shutil.rmtree(settings)


@contextlib.contextmanager
def mounted_system(root: Path) -> Iterator[None]:
    """/proc, /sys and /dev in ``root`` for the time of the block."""
    mounts = (("proc", "proc"), ("sysfs", "sys"))
    done: list[Path] = []
    try:
        for kind, name in mounts:
            run(["mount", "-t", kind, kind, root / name])
            done.append(root / name)
        yield
    finally:
        for path in reversed(done):
            run(["umount", path], check=False)
