"""What md arrays and encrypted volumes of the host ask of a restore, before the first write. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from recovery.format.point import Point
from recovery.layout import Content, LuksVolume, MdArray
from recovery.machine.model import Machine
from recovery.plan.model import Choices, Problem
from recovery.units import format_size

LUKS = "crypto_LUKS"

#: How many disks of an array may be missing, by its level; others can do without none.
_SPARE = {"raid4": 1, "raid5": 1, "raid6": 2, "raid10": 1}


def contents_by_place(point: Point) -> dict[str, Content]:
    """What lies on disks (``disk1``), partitions (``disk1:2``), arrays (``md/0``) and LVs (``vg0/root``)."""
    found: dict[str, Content] = {}
    for disk in point.body.disks:
        found[disk.name] = disk.content
        found |= {f"{disk.name}:{part.number}": part.content for part in disk.table.partitions}
    found |= {array.volume: array.content for array in point.body.md_arrays if array.volume}
    found |= {f"{group.name}/{lv.name}": lv.content for group in point.body.volume_groups for lv in group.volumes}
    return found


def luks_volumes(point: Point) -> list[LuksVolume]:
    """The point's encrypted volumes. Points that were made before their headers were read name where they lie."""
    known = {volume.on: volume for volume in point.body.luks_volumes}
    for place, content in contents_by_place(point).items():
        if content.kind == LUKS and place not in known:
            disk, offset = _start_of(point, place)
            known[place] = LuksVolume(on=place, uuid=content.uuid, version=0, disk=disk, offset=offset)
    return list(known.values())


def _start_of(point: Point, place: str) -> tuple[str, int]:
    """On which disk, and at which byte, a partition (or whole disk) starts; no disk for what else there is."""
    name, colon, number = place.partition(":")
    for disk in point.body.disks:
        if disk.name == name:
            parts = (part.start for part in disk.table.partitions if colon and str(part.number) == number)
            return name, next(parts, 0)
    return "", 0


def root_is_encrypted(point: Point) -> bool | None:
    """Whether the host's root lies in an encrypted volume; None when that is not known for sure."""
    if not luks_volumes(point):
        return False
    root = point.body.system.root
    if root:
        group = next((g for g in point.body.volume_groups if g.name == root.partition("/")[0] and "/" in root), None)
        seen = {content.uuid for content in contents_by_place(point).values() if content.uuid}
        return group is not None and bool(group.pv_uuids) and not seen.intersection(group.pv_uuids)
    # No root was seen. It may as well lie where the capture could not look.
    unseen = (lv for group in point.body.volume_groups for lv in group.volumes)
    if any(not lv.content.kind and lv.segment != "thin-pool" for lv in unseen):
        return None
    return True


def check_encryption(point: Point, choices: Choices) -> Iterator[Problem]:
    """The passphrase is asked for before the first write, or its absence is a decision."""
    volumes = [v for v in luks_volumes(point) if not v.disk or v.disk in choices.targets]
    encrypted = root_is_encrypted(point)
    if not volumes or encrypted is False:
        return
    names = " and ".join(volume.on for volume in volumes)
    if not choices.adapt:
        yield Problem(
            severity="warning",
            code="luks-not-adapted",
            what=f"The host's system lies in an encrypted volume ({names}), which is restored byte for byte.",
            why="Nothing in it is adapted: its initramfs has the old machine's drivers, fstab the old names.",
            todo="If it does not start here, run 'rekindle adapt --luks-secret-file FILE' on the medium.",
        )
        return
    if not choices.luks_secret:
        # On disks that are here already, nothing says where the root is.
        sure = encrypted is True and choices.restore
        way_out = ", or restore without making the host start here: then it comes back byte for byte, unadapted."
        yield Problem(
            severity="error" if sure else "warning",
            code="luks-secret-missing",
            what=f"{'The' if sure else 'Perhaps the'} host's system lies in an encrypted volume ({names}), and its "
            "passphrase was not given.",
            why="Without it nothing in it can be adapted to this machine: drivers, disk names, network.",
            todo="Give the passphrase that is typed when the host starts"
            + (way_out if choices.restore else ", if the host's root is in it."),
        )
        return
    tied = sorted({token for volume in volumes for token in volume.tokens if token in _TIED})
    if tied:
        yield Problem(
            severity="info",
            code="luks-key-stays",
            what=f"The old machine opened {names} by itself ({', '.join(tied)}).",
            why="That key does not come along: this machine will ask for the passphrase at every start.",
            todo="Enroll this machine in the restored host (systemd-cryptenroll, clevis luks bind).",
        )


#: LUKS2 tokens whose key is in the old machine, or plugged into it.
_TIED = ("systemd-tpm2", "systemd-fido2", "systemd-pkcs11", "clevis")


def check_key_memory(point: Point, machine: Machine, choices: Choices) -> Iterator[Problem]:
    """Argon2 wants as much memory as the machine had that made the key slot, at most 1 GiB by default."""
    if not choices.adapt or root_is_encrypted(point) is False:
        return
    for volume in point.body.luks_volumes:
        if machine.memory and volume.memory > machine.memory * 3 // 4:
            yield Problem(
                severity="warning",
                code="luks-memory",
                what=f"Opening {volume.on} needs {format_size(volume.memory)} of memory, this machine has "
                f"{format_size(machine.memory)}.",
                why="The key of an encrypted volume is derived with that much memory, at every start of the host too.",
                todo="Restore on a machine with more memory, or make a smaller key slot beforehand "
                "(cryptsetup luksConvertKey --pbkdf-memory).",
            )


def check_hibernation(point: Point, choices: Choices) -> Iterator[Problem]:
    """A Linux that was put to sleep before it was captured, or before it is repaired."""
    asleep = [place for place, content in contents_by_place(point).items() if content.kind == "swsuspend"]
    if asleep and choices.adapt:
        yield Problem(
            severity="warning",
            code="hibernated",
            what=f"A session of the host sleeps in {' and '.join(asleep)} (hibernation); it is given up.",
            why="It remembers the filesystems as they were, and they change when the host is made to start here.",
            todo="Go on if what was open is not needed."
            + (" A restore without adaptation keeps it, for the same machine." if choices.restore else ""),
        )


def array_members(point: Point, array: MdArray) -> list[str]:
    """Where the members of an array lie that the point has: ``disk1:2``, or ``disk1`` for a whole disk."""
    if array.members:
        return list(array.members)
    plain = array.uuid.replace(":", "").replace("-", "")
    return [
        place for place, content in contents_by_place(point).items()
        if content.kind == "linux_raid_member" and content.uuid.replace("-", "").replace(":", "") == plain
    ]  # fmt: skip


def fewest(array: MdArray) -> int:
    """With how many disks the array still starts."""
    if array.level == "raid1":
        return 1
    return max(1, array.devices - _SPARE.get(array.level, 0))


def check_arrays(point: Point, choices: Choices) -> Iterator[Problem]:
    """Every array gets the disks that it needs; a mirror of which one is restored starts degraded."""
    for array in point.body.md_arrays:
        members = array_members(point, array)
        restored = [place for place in members if place.partition(":")[0] in choices.targets]
        if not restored or len(restored) >= array.devices:
            continue
        name = array.name or array.uuid
        left_out = sorted({place.partition(":")[0] for place in members} - set(choices.targets))
        why = f"{', '.join(left_out)} is not restored." if left_out else "Only those were captured."
        if len(restored) >= fewest(array):
            yield Problem(
                severity="warning",
                code="md-degraded",
                what=f"The {array.level} array {name} gets {len(restored)} of its {array.devices} disks.",
                why=f"{why} The host starts with it degraded: nothing is lost, and nothing is mirrored.",
                todo="Give the array another disk afterwards ('mdadm --add'), or restore the others too.",
            )
        else:
            yield Problem(
                severity="error" if choices.adapt else "warning",
                code="md-incomplete",
                what=f"The {array.level} array {name} gets {len(restored)} of its {array.devices} disks.",
                why=f"{why} It needs at least {fewest(array)} to start.",
                todo="Choose a target for its other disks, or a point that has them.",
            )
