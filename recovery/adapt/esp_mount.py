"""Step: a host that knew no EFI system partition gets the one on its disks, mounted, and a line in its fstab."""

from __future__ import annotations

from recovery.adapt.devices import Node, probe, scan
from recovery.adapt.host import HostTree
from recovery.adapt.make_room import firmware_of
from recovery.adapt.model import Job
from recovery.adapt.names import parse_fstab
from recovery.commands import run
from recovery.errors import CommandError
from recovery.machine.bootroom import ESP_TYPES

TITLE = "Mount the EFI system partition"

#: As Debian's installer writes it: only root may read what the boot loader keeps there.
_OPTIONS = "umask=0077 0 1"


def mount_esp(job: Job) -> str:
    """Mount the ESP where fstab has none. Raises CommandError, SpaceError."""
    host = job.host
    if host is None:
        return "No system to adapt."
    if firmware_of(job.request) != "uefi":
        return "This machine starts by BIOS and needs none."
    if job.esp is None:
        job.nodes = scan(job.request.targets)
        node = next((n for n in job.nodes if _is_esp(n)), None)
        if node is None:
            return "The host has none."
        place = _mount_point(host)
        host.path(place).mkdir(parents=True, exist_ok=True)
        done = run(["mount", node.path, host.path(place)], check=False)
        if not done:
            raise CommandError(
                f"The EFI system partition {node.path} cannot be mounted: {done.stderr.strip()}.",
                hint=f"Check it with 'fsck.vfat {node.path}' on the shell, then run 'rekindle adapt' again.",
            )
        job.esp, job.esp_path = node, place
    _list(job, host, job.esp)
    return f"{job.esp.path} is mounted at {job.esp_path}."


def _is_esp(node: Node) -> bool:
    if node.kind != "part" or node.content != "vfat":
        return False
    kind = probe(node.path).get("PART_ENTRY_TYPE", "").lower()
    return kind.removeprefix("0x") in ESP_TYPES


def _mount_point(host: HostTree) -> str:
    return next((place for place in ("/boot/efi", "/efi") if host.is_dir(place)), "/boot/efi")


def _list(job: Job, host: HostTree, esp: Node) -> None:
    """A converted host gets the line; one that came from UEFI without it finds its ESP by the type, as before."""
    converted = job.request.point.body.firmware != "uefi" or not job.request.point.id
    text = host.read("/etc/fstab") or ""
    new = with_esp(text, esp.uuid, job.esp_path)
    if converted and esp.uuid and new != text:
        host.write("/etc/fstab", new)
        job.changed(f"fstab: the EFI system partition {esp.path} is mounted at {job.esp_path}.")


def with_esp(fstab: str, uuid: str, point: str) -> str:
    """fstab with a line for the ESP at ``point``; a line there is that names it stays, one for another is put out.
    Pure."""
    line = f"UUID={uuid} {point} vfat {_OPTIONS}"
    listed = [m for m in parse_fstab(fstab) if m.point == point]
    if any(m.spec.lower() == f"uuid={uuid.lower()}" for m in listed):
        return fstab
    specs = {m.spec for m in listed}
    kept = [
        f"#rekindle# {text}" if _names(text, point, specs) else text
        for text in fstab.splitlines()
    ]  # fmt: skip
    return "\n".join([*kept, line]) + "\n"


def _names(line: str, point: str, specs: set[str]) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] in specs and words[1] == point
