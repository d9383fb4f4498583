"""LVM and md as they are found on the disks of the machine. A tool that is not installed means: nothing found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import msgspec

from recovery.commands import run
from recovery.errors import CommandError
from recovery.layout import Content, LogicalVolume, MdArray, VolumeGroup

_UNITS = ("--units", "b", "--nosuffix", "--reportformat", "json")
#: What each of LVM's reports is called in its own answer, and what is asked for.
_REPORTS = {
    "pvs": ("pv", "pv_name,pv_uuid,vg_name"),
    "lvs": ("lv", "vg_name,lv_name,lv_uuid,lv_size,segtype,lv_active,lv_device_open"),
    "vgs": ("vg", "vg_name,vg_uuid,vg_size,vg_free"),
}


class Volumes(msgspec.Struct, frozen=True, kw_only=True):
    """LVM of the machine. ``pv_groups`` maps a PV's UUID to its VG; ``open`` are device-mapper names of open LVs."""

    groups: tuple[VolumeGroup, ...] = ()
    pv_groups: dict[str, str] = {}
    open: frozenset[str] = frozenset()


def said(argv: list[str]) -> str:
    """What a program said, or nothing when it failed or is not installed."""
    try:
        done = run(argv, check=False, timeout=60)
    except CommandError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def blkid(argv: list[str]) -> Content:
    """What ``blkid -p`` recognises; no cache is asked, so a disk written a second ago is seen as it is."""
    facts = {}
    for line in said(["blkid", "-p", "-o", "export", *argv]).splitlines():
        key, _, value = line.partition("=")
        facts[key] = value.replace("\\", "")
    size = facts.get("BLOCK_SIZE", "")
    return Content(
        kind=facts.get("TYPE", ""),
        uuid=facts.get("UUID", ""),
        label=facts.get("LABEL", ""),
        block_size=int(size) if size.isdigit() else 0,
    )


def _report(program: str) -> list[dict[str, Any]]:
    key, columns = _REPORTS[program]
    text = said([program, *_UNITS, "-o", columns])
    if not text.strip():
        return []
    try:
        return [row for part in msgspec.json.decode(text)["report"] for row in part.get(key, ())]
    except (msgspec.DecodeError, KeyError, TypeError):
        return []


def mapper_name(group: str, volume: str) -> str:
    """The device-mapper name of an LV: hyphens within a name are doubled."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def probe_lvm() -> Volumes:
    """Ask pvs, vgs and lvs, all at once: each waits 40 ms for locks and the kernel. A VG of which a PV is missing is
    found too."""
    with ThreadPoolExecutor(len(_REPORTS)) as pool:
        # With the context, in which the door to commands is.
        asked = {program: pool.submit(copy_context().run, _report, program) for program in _REPORTS}
    found = {program: report.result() for program, report in asked.items()}
    pvs: dict[str, list[str]] = defaultdict(list)
    pv_groups = {}
    for row in found["pvs"]:
        if row["vg_name"]:
            pvs[row["vg_name"]].append(row["pv_uuid"])
            pv_groups[row["pv_uuid"]] = row["vg_name"]
    volumes: dict[str, list[LogicalVolume]] = defaultdict(list)
    opened = set()
    for row in found["lvs"]:
        group, name = row["vg_name"], row["lv_name"]
        active = row.get("lv_active") == "active"
        if row.get("lv_device_open") == "open" and row["segtype"] != "thin-pool":
            opened.add(mapper_name(group, name))
        content = blkid([f"/dev/{group}/{name}"]) if active and row["segtype"] != "thin-pool" else Content()
        volumes[group].append(
            LogicalVolume(
                name=name, size=int(row["lv_size"]), uuid=row["lv_uuid"], segment=row["segtype"], content=content
            )
        )
    groups = tuple(
        VolumeGroup(
            name=row["vg_name"],
            uuid=row["vg_uuid"],
            size=int(row["vg_size"]),
            free=int(row["vg_free"]),
            pv_uuids=tuple(sorted(pvs[row["vg_name"]])),
            volumes=tuple(volumes[row["vg_name"]]),
        )
        for row in found["vgs"]
    )
    return Volumes(groups=groups, pv_groups=pv_groups, open=frozenset(opened))


def probe_md(members: Iterable[str]) -> tuple[MdArray, ...]:
    """The arrays that the superblocks on ``members`` (device paths) describe, active or not."""
    arrays: dict[str, MdArray] = {}
    for member in members:
        facts = dict(
            line.partition("=")[::2] for line in said(["mdadm", "--examine", "--export", member]).splitlines()
        )
        uuid = facts.get("MD_UUID", "")
        if uuid:
            devices = facts.get("MD_DEVICES", "")
            arrays[uuid] = MdArray(
                uuid=uuid,
                level=facts.get("MD_LEVEL", ""),
                name=facts.get("MD_NAME", ""),
                devices=int(devices) if devices.isdigit() else 0,
            )
    return tuple(arrays.values())
