"""What the protected host is: its disk's layout, packages, names and secrets."""

from __future__ import annotations

from dataclasses import dataclass

from recovery.units import GIB, MIB
from tests.e2e.lab.accel import KERNEL_PARAMETER

SUITE = "trixie"
HOST_NAME = "vhost1"
ROOT_PASSWORD = "rekindle-lab"  # noqa: S105 - of a machine that lives in QEMU for a quarter of an hour
ADDRESS = "10.0.2.40"
#: What Linux calls the old machine's network card (PCI bus 0, slot 3).
NIC_NAME = "enp0s3"
NIC_SLOT = 3
VIRTUAL_MACHINES = ("web", "db")
VOLUME_GROUP = "vg0"

PACKAGES = (
    "systemd-sysv", "udev", "dbus", "login", "kmod", "less", "nano", "ca-certificates", "util-linux-extra",
    "linux-image-amd64", "initramfs-tools", "zstd",
    "grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed", "efibootmgr",
    "lvm2", "e2fsprogs", "dosfstools", "parted", "gdisk",
    "ifupdown", "bridge-utils", "iproute2", "iputils-ping", "openssh-server", "curl",
    "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils",
)  # fmt: skip
#: The VMs' kernel and userland.
GUEST_PACKAGES = ("linux-image-cloud-amd64", "busybox-static")


@dataclass(frozen=True)
class Part:
    """A partition: bytes, GPT type, name, and the identifier of what lies on it."""

    start: int
    size: int
    type: str
    name: str
    uuid: str = ""


DISK_SIZE = 8 * GIB
_LVM_START = 4 * GIB + 258 * MIB
BIOS_BOOT = Part(1 * MIB, 1 * MIB, "21686148-6449-6E6F-744E-656564454649", "bios")
ESP = Part(2 * MIB, 256 * MIB, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "esp", "5EED-C0DE")
ROOT = Part(258 * MIB, 4 * GIB, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "root", "0aa7b0a7-19c5-4b0e-9a33-000000000002")
LVM = Part(_LVM_START, DISK_SIZE - _LVM_START - 1 * MIB, "E6D6D379-F507-44C2-A23C-238F2A3DF928", "lvm")
PARTITIONS = (BIOS_BOOT, ESP, ROOT, LVM)


def sfdisk_script() -> str:
    """The partition table for ``sfdisk``."""
    lines = ["label: gpt", "label-id: 9f0c6a1e-5d9b-4c7e-8a54-000000000001"]
    lines += [f'start={p.start // 512}, size={p.size // 512}, type={p.type}, name="{p.name}"' for p in PARTITIONS]
    return "\n".join(lines) + "\n"


FSTAB = f"""\
UUID={ROOT.uuid} / ext4 errors=remount-ro 0 1
UUID={ESP.uuid} /boot/efi vfat umask=0077 0 1
"""

INTERFACES = f"""\
auto lo
iface lo inet loopback

iface {NIC_NAME} inet manual

auto br0
iface br0 inet static
    address {ADDRESS}/24
    gateway 10.0.2.2
    bridge_ports {NIC_NAME}
    bridge_stp off
    bridge_fd 0
"""

#: The modules that MODULES=dep finds on the old machine: a SATA disk with ext4. No NVMe, no SCSI, no virtio.
OLD_MODULES = ("ahci", "sd_mod", "ext4")

DEFAULT_GRUB = f"""\
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 {KERNEL_PARAMETER}"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --speed=115200"
"""


def grub_config(version: str) -> str:
    """``/boot/grub/grub.cfg`` as ``update-grub`` writes it, in short."""
    return f"""\
set timeout=1
insmod part_gpt
insmod ext2
insmod serial
serial --speed=115200
terminal_input console serial
terminal_output console serial
search --no-floppy --fs-uuid --set=root {ROOT.uuid}
menuentry 'Debian GNU/Linux' --class debian {{
    linux /boot/vmlinuz-{version} root=UUID={ROOT.uuid} ro console=tty0 console=ttyS0,115200 {KERNEL_PARAMETER}
    initrd /boot/initrd.img-{version}
}}
"""


#: What Debian's signed GRUB reads on the ESP.
ESP_GRUB_CONFIG = f"""\
search.fs_uuid {ROOT.uuid} root
set prefix=($root)'/boot/grub'
configfile $prefix/grub.cfg
"""


#: The VMs' kernel, uncompressed, on the host. Their disks boot by themselves too (GRUB and kernel are on them), but
#: a boot loader and a decompressor under two emulators take minutes; a kernel that QEMU loads takes no time.
GUEST_KERNEL = "/var/lib/libvirt/boot/vmlinux"
GUEST_INITRD = "/var/lib/libvirt/boot/initrd"
#: What Debian's kernel does at each start though a VM of two programs has no use for it: entropy from jitter (the
#: emulated processor has RDRAND), certificates for signed modules, tables of tracepoints. Half of its
#: instructions, and less of its time below two emulators: most of that goes into code which runs once.
GUEST_LEAVES_OUT = ("jent_mod_init", "load_system_certificate_list", "init_kprobe_trace", "trace_eval_init")
GUEST_WORDS = (
    "console=ttyS0 quiet root=/dev/vda1 nokaslr mitigations=off noreplace-smp no_timer_check acpi=off lsm=capability "
    f"{KERNEL_PARAMETER} audit=0 cryptomgr.notests initcall_blacklist={','.join(GUEST_LEAVES_OUT)}"
)

#: A VM's time goes by its own instructions (4 ns each), and by the host's only while it idles. By the host's clock a
#: tick comes every 4 ms, in which a processor below two emulators does not even handle it: on a busy machine the VMs
#: did nothing else, and had not said a word after nine minutes; so both are up after five.
GUEST_CLOCK = "shift=2,sleep=on"


def domain_xml(name: str) -> str:
    """The libvirt domain: emulated processor, disk, bridge, and a console that libvirt writes to a file."""
    number = VIRTUAL_MACHINES.index(name) + 1
    disk = {
        "web": "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        "<source file='/var/lib/libvirt/images/web.qcow2'/>",
        "db": "<disk type='block' device='disk'><driver name='qemu' type='raw'/>"
        f"<source dev='/dev/{VOLUME_GROUP}/db'/>",
    }[name]
    return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>7e6b1d1a-0000-4000-8000-00000000000{number}</uuid>
  <memory unit='MiB'>96</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{GUEST_KERNEL}</kernel>
    <initrd>{GUEST_INITRD}</initrd>
    <cmdline>{GUEST_WORDS}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model>qemu64</model><feature policy='require' name='rdrand'/></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>restart</on_crash>
  <devices>
    {disk}<target dev='vda' bus='virtio'/></disk>
    <controller type='usb' model='none'/>
    <interface type='bridge'>
      <mac address='52:54:00:76:6d:0{number}'/>
      <source bridge='br0'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <serial type='file'><source path='{console_log(name)}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-icount'/><qemu:arg value='{GUEST_CLOCK}'/>
  </qemu:commandline>
</domain>
"""


def console_log(name: str) -> str:
    """Where libvirt writes what the VM says on its console."""
    return f"/var/log/libvirt/qemu/{name}-console.log"
