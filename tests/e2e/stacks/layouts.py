"""Hosts whose root lies on a stack of md, LUKS, LVM or btrfs subvolumes, as data. Pure.

What makes them needs device-mapper and md, so it is a script for the medium's shell (``make``): it gets the blank
disks as ``$D1``, ``$D2`` and leaves the filesystems mounted at ``/mnt``. Any runner that can boot the medium can use
them: ``source_script(layout)`` makes the source, ``Case`` says what is captured and where it lands, ``Check`` what the
restored host must answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.lab.accel import KERNEL_PARAMETER
from tests.e2e.lab.hardware import DiskBus

ROOT_PASSWORD = "rekindle-lab"  # noqa: S105 - of machines that live in QEMU for a minute
PASSPHRASE = "opens the stack, 42!"
#: Installed on every source; what a layout needs besides is in it too, because one root filesystem serves all.
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "login", "kmod", "util-linux-extra", "linux-image-amd64", "initramfs-tools",
    "zstd",
    "busybox", "grub2-common", "grub-pc-bin", "lvm2", "thin-provisioning-tools", "mdadm", "cryptsetup",
    "cryptsetup-initramfs", "btrfs-progs", "e2fsprogs", "dosfstools", "ifupdown", "iproute2", "gdisk", "fdisk",
)  # fmt: skip

_GPT = "label: gpt\\nsize=1MiB, type=21686148-6449-6E6F-744E-656564454649\\n"
_BOOT = "size=256MiB, type=linux\\n"


@dataclass(frozen=True)
class Check:
    """A command on the restored host and what (a regular expression) its output must show."""

    what: str
    command: str
    shows: str


@dataclass(frozen=True)
class Layout:
    """A source. ``disks`` in MiB; ``files`` are written with the shell's variables filled in.

    ``point_root`` is the root as the recovery point must name it, empty where nothing can be seen without a key.
    """

    name: str
    title: str
    disks: tuple[int, ...]
    make: str
    files: dict[str, str]
    checks: tuple[Check, ...]
    point_root: str = ""
    passphrase: str = ""

    @property
    def host(self) -> str:
        """Its host name."""
        return f"stack-{self.name}"


@dataclass(frozen=True)
class Case:
    """Disks of a source are captured and restored onto another bus; ``larger`` in MiB a disk."""

    name: str
    layout: str
    disks: tuple[int, ...]
    bus: DiskBus = "nvme"
    larger: int = 0
    warns: str = ""
    """A regular expression for a warning that the restore must give; empty: none is asked for."""
    checks: tuple[Check, ...] = ()


LAYOUTS = (
    Layout(
        "md",
        "root and /boot on an md mirror (1.2) of two disks",
        (2560, 2560),
        rf"""
for d in $D1 $D2; do printf '{_GPT}type=raid\n' | sfdisk -q $d; done
udevadm settle
mdadm --create /dev/md/root --run --homehost=stack-md --name=root --metadata=1.2 --level=1 --raid-devices=2 \
    --assume-clean $(part $D1 2) $(part $D2 2)
udevadm settle
mkfs.ext4 -q -L root /dev/md/root
mount /dev/md/root /mnt
ROOT=$(blkid -s UUID -o value /dev/md/root)
ARRAY=$(mdadm --detail /dev/md/root | sed -n 's/.*UUID : //p')
GRUB="$D1 $D2"
""",
        {
            "/etc/fstab": "/dev/md/root / ext4 errors=remount-ro 0 1\n",
            # The names of the old disks, as administrators write them.
            "/etc/mdadm/mdadm.conf": "DEVICE /dev/sda2 /dev/sdb2\nHOMEHOST <system>\nMAILADDR root\n"
            "ARRAY /dev/md/root metadata=1.2 UUID=$ARRAY name=stack-md:root devices=/dev/sda2,/dev/sdb2\n",
        },
        (Check("the root is the md mirror", "findmnt -no SOURCE /", r"/dev/md"),),
        point_root="md/root",
    ),
    Layout(
        "luks",
        "LVM on LUKS2, /boot beside it",
        (3072,),
        rf"""
printf '{_GPT}{_BOOT}type=linux\n' | sfdisk -q $D1
udevadm settle
printf %s '{PASSPHRASE}' | cryptsetup luksFormat -q --type luks2 --pbkdf-memory 65536 --pbkdf-force-iterations 4 \
    --key-file=- $(part $D1 3)
printf %s '{PASSPHRASE}' | cryptsetup open --key-file=- $(part $D1 3) cryptdisk
LUKS=$(blkid -p -s UUID -o value $(part $D1 3))
pvcreate -q /dev/mapper/cryptdisk
vgcreate -q vgcrypt /dev/mapper/cryptdisk
lvcreate -q -y -L 96M -n swap vgcrypt
lvcreate -q -y -l 100%FREE -n root vgcrypt
udevadm settle
mkswap -q /dev/vgcrypt/swap
mkfs.ext4 -q -L root /dev/vgcrypt/root
mkfs.ext4 -q -L boot $(part $D1 2)
mount /dev/vgcrypt/root /mnt
mkdir /mnt/boot
mount $(part $D1 2) /mnt/boot
GRUB=$D1
""",
        {
            # /boot by the old disk's name: it must be replaced, or the host stops at its emergency shell.
            "/etc/fstab": "/dev/mapper/vgcrypt-root / ext4 errors=remount-ro 0 1\n/dev/sda2 /boot ext4 defaults 0 2\n"
            "/dev/mapper/vgcrypt-swap none swap sw 0 0\n",
            "/etc/crypttab": "cryptdisk UUID=$LUKS none luks,discard\n",
        },
        (
            Check("the root is the encrypted volume", "findmnt -no SOURCE /", r"vgcrypt-root"),
            Check("the mapping has the host's own name", "lsblk -no NAME,TYPE", r"cryptdisk\s+crypt"),
            Check("swap is on", "swapon --show=NAME --noheadings; cat /proc/swaps", r"/dev/dm-|vgcrypt"),
            Check("/boot is mounted", "findmnt -no SOURCE /boot", r"/dev/"),
        ),
        passphrase=PASSPHRASE,
    ),
    Layout(
        "btrfs",
        "btrfs with the root, /home and a snapshot in subvolumes",
        (2560,),
        rf"""
printf '{_GPT}type=linux\n' | sfdisk -q $D1
udevadm settle
mkfs.btrfs -q -L system $(part $D1 2)
mount $(part $D1 2) /mnt
btrfs -q subvolume create /mnt/@
btrfs -q subvolume create /mnt/@home
btrfs -q subvolume create /mnt/root
mkdir -p /mnt/root/etc /mnt/root/usr
echo 'UUID=0 / btrfs subvol=@ 0 0' > /mnt/root/etc/fstab
umount /mnt
mount -o subvol=@ $(part $D1 2) /mnt
mkdir /mnt/home
mount -o subvol=@home $(part $D1 2) /mnt/home
ROOT=$(blkid -p -s UUID -o value $(part $D1 2))
GRUB=$D1
""",
        {
            "/etc/fstab": "UUID=$ROOT / btrfs defaults,subvol=@ 0 0\n"
            "/dev/sda2 /home btrfs defaults,subvol=@home 0 0\n",
        },
        (
            Check("the root is the subvolume @", "findmnt -no FSTYPE,OPTIONS /", r"btrfs .*subvol=/@(,|$)"),
            Check("/home is the subvolume @home", "findmnt -no OPTIONS /home", r"subvol=/@home"),
        ),
        point_root="disk1:2",
    ),
    Layout(
        "thin",
        "root on an LVM-thin volume, /boot beside it",
        (3072,),
        rf"""
printf '{_GPT}{_BOOT}type=lvm\n' | sfdisk -q $D1
udevadm settle
pvcreate -q $(part $D1 3)
vgcreate -q vg-thin $(part $D1 3)
lvcreate -q -y -l 95%FREE -T vg-thin/pool
lvcreate -q -y -V 4G -T vg-thin/pool -n root
lvcreate -q -y -V 1G -T vg-thin/pool -n vm-1
udevadm settle
mkfs.ext4 -q -L root /dev/vg-thin/root
mkfs.ext4 -q -L vm /dev/vg-thin/vm-1
mkfs.ext4 -q -L boot $(part $D1 2)
mount /dev/vg-thin/root /mnt
mkdir /mnt/boot
mount $(part $D1 2) /mnt/boot
BOOT=$(blkid -p -s UUID -o value $(part $D1 2))
GRUB=$D1
""",
        {
            "/etc/fstab": "/dev/mapper/vg--thin-root / ext4 errors=remount-ro 0 1\n"
            "UUID=$BOOT /boot ext4 defaults 0 2\n",
        },
        (
            Check("the root is the thin volume", "findmnt -no SOURCE /; lvs --noheadings -o lv_name,segtype",
                  r"(?s)vg--thin-root.*root\s+thin"),
        ),
    ),
    Layout(
        "pvs",
        "one volume group over a partition and a whole second disk, the root on both",
        (1536, 2048),
        rf"""
printf '{_GPT}{_BOOT}type=lvm\n' | sfdisk -q $D1
udevadm settle
pvcreate -q $(part $D1 3) $D2
vgcreate -q vgtwo $(part $D1 3) $D2
lvcreate -q -y -l 100%FREE -n root vgtwo
udevadm settle
mkfs.ext4 -q -L root /dev/vgtwo/root
mkfs.ext4 -q -L boot $(part $D1 2)
mount /dev/vgtwo/root /mnt
mkdir /mnt/boot
mount $(part $D1 2) /mnt/boot
BOOT=$(blkid -p -s UUID -o value $(part $D1 2))
GRUB=$D1
""",
        {"/etc/fstab": "/dev/vgtwo/root / ext4 errors=remount-ro 0 1\nUUID=$BOOT /boot ext4 defaults 0 2\n"},
        (
            Check("the root is the volume over both disks", "findmnt -no SOURCE /; pvs --noheadings",
                  r"(?s)vgtwo-root.*vgtwo.*vgtwo"),
        ),
        point_root="vgtwo/root",
    ),
)  # fmt: skip

CASES = (
    Case(
        "md", "md", (1, 2), larger=1024,
        checks=(
            Check("both legs are in it", "cat /proc/mdstat", r"\[2/2\] \[UU\]"),
            Check("it has grown", "cat /sys/block/md*/size", r"^[67]\d{6}$"),
        ),
    ),
    Case(
        "md-one-leg", "md", (1,), bus="virtio", warns=r"degraded, with 1 of 2 disks",
        checks=(Check("it is degraded, and runs", "cat /proc/mdstat", r"\[2/1\] \[(U_|_U)\]"),),
    ),
    Case(
        "luks", "luks", (1,), larger=1024,
        checks=(Check("the encrypted volume has grown", "blockdev --getsize64 /dev/mapper/cryptdisk", r"^4\d{9}$"),),
    ),
    Case("btrfs", "btrfs", (1,), bus="virtio", larger=512),
    Case("thin", "thin", (1,), larger=1024),
    Case("pvs", "pvs", (1, 2)),
)  # fmt: skip


def layout(name: str) -> Layout:
    """The layout of that name. Raises KeyError."""
    return {one.name: one for one in LAYOUTS}[name]


def source_script(one: Layout, disks: tuple[str, ...], root_tar: str) -> str:
    """The whole bash script that makes a source on the blank ``disks`` (the guest's paths) from the packed root
    filesystem ``root_tar``, and lets go of everything."""
    names = "\n".join(f"D{number}={disk}" for number, disk in enumerate(disks, 1))
    files = "".join(_write(path, text) for path, text in {**_common(one), **one.files}.items())
    return f"""\
set -euo pipefail
export LC_ALL=C.UTF-8
part() {{ case $1 in *[0-9]) echo $1p$2;; *) echo $1$2;; esac; }}
{names}
ROOT= LUKS= BOOT= ARRAY=
{one.make}
tar -xf {root_tar} -C /mnt
{files}
ln -sf /proc/self/mounts /mnt/etc/mtab
for f in dev dev/pts proc sys run; do mount --bind /$f /mnt/$f; done
echo 'root:{ROOT_PASSWORD}' | chroot /mnt chpasswd
chroot /mnt update-initramfs -c -k all
for d in $GRUB; do chroot /mnt grub-install --target=i386-pc $d; done
chroot /mnt update-grub
sync
umount -R /mnt
swapoff -a
vgchange -q -an
for m in /dev/mapper/*; do case $m in */control) ;; *) cryptsetup close $m || true;; esac; done
mdadm --stop --scan || true
udevadm settle
"""


def _common(one: Layout) -> dict[str, str]:
    return {
        "/etc/hostname": f"{one.host}\n",
        "/etc/hosts": f"127.0.0.1 localhost {one.host}\n",
        "/etc/network/interfaces": "auto lo\niface lo inet loopback\n",
        # As a host that has never seen another machine: only what its own disks need.
        "/etc/initramfs-tools/conf.d/dep": "MODULES=dep\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n",
        "/etc/default/grub": "GRUB_DEFAULT=0\nGRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=\n"
        f'GRUB_CMDLINE_LINUX=\\"console=tty0 console=ttyS0,115200 {KERNEL_PARAMETER}\\"\n'
        'GRUB_TERMINAL=\\"console serial\\"\n'
        'GRUB_SERIAL_COMMAND=\\"serial --speed=115200\\"\n',
    }


def _write(path: str, text: str) -> str:
    lines = text.replace("\n", "\\n")
    return f'mkdir -p /mnt{path.rpartition("/")[0]}; printf "%b" "{lines}" > /mnt{path}\n'
