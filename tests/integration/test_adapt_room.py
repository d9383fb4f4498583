"""Boot partitions made with the real tools on real tables; partitions are loop devices, for want of scanning."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recovery.adapt.gpt import read_table
from recovery.adapt.make_room import find_place, make_room
from recovery.adapt.model import AdaptRequest, Job
from recovery.adapt.tables import differences, growth
from recovery.commands import Completed, run_real, use_runner
from recovery.errors import SpaceError
from recovery.format.point import Point, PointBody, PointDisk, PointHeader
from recovery.layout import Firmware
from recovery.machine.bootroom import ESP_SIZE, bios_can_start, existing_esp
from recovery.machine.model import Disk, Machine
from recovery.machine.probe_disks import probe_table
from recovery.units import MIB

SIZE = 320 * MIB
GPT = "label: gpt\nfirst-lba: 2048\nsize=200MiB, type=linux, name=root\ntype=swap\n"
MBR = "label: dos\nsize=150MiB, type=83, bootable\ntype=5\ntype=82\n"
SWAP = "5eed0000-0000-4000-8000-000000000001"


def sh(*words: object, input: str | None = None) -> str:
    done = subprocess.run([str(w) for w in words], input=input, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def partitions(image: Path) -> Iterator[Any]:
    """A runner for which ``image3`` is partition 3 of ``image`` as soon as the kernel was told of it."""
    loops: list[str] = []

    def show() -> None:
        for loop in loops:
            sh("losetup", "--detach", loop)
        loops.clear()
        for part in read_table(str(image)).partitions:
            words = ["--offset", part.start, "--sizelimit", part.size, image]
            loops.append(sh("losetup", "--find", "--show", *words).strip())
            name = image.with_name(f"{image.name}{part.number}")
            name.unlink(missing_ok=True)
            name.symlink_to(loops[-1])

    def runner(argv: list[str], **keywords: Any) -> Completed:
        if argv[0] == "udevadm":
            return Completed(tuple(argv), 0)
        if argv[0] == "partx":
            show()
            return Completed(tuple(argv), 0)
        return run_real(argv, **keywords)

    show()
    try:
        with use_runner(runner):  # type: ignore[arg-type]
            yield runner
    finally:
        for loop in loops:
            sh("losetup", "--detach", loop)


def make_disk(image: Path, script: str, swap: int) -> None:
    image.touch()
    os.truncate(image, SIZE)
    sh("sfdisk", "--quiet", image, input=script)
    with image.open("r+b") as file:
        file.write(b"\xeb\x63GRUB")  # boot code, which stays
    part = next(p for p in read_table(str(image)).partitions if p.number == swap)
    area = image.with_name("area")
    area.touch()
    os.truncate(area, part.size)
    sh("mkswap", "--uuid", SWAP, area)
    sh("dd", f"if={area}", f"of={image}", "bs=1M", f"seek={part.start}", "oflag=seek_bytes", "conv=notrunc")


def job_for(image: Path, now: Firmware, was: Firmware, *, use_swap: bool = False) -> Job:
    table, size = probe_table(str(image)), image.stat().st_size
    disk = PointDisk(name="disk1", size=SIZE, sector_size=512, chunk_size=MIB, root="", table=table)
    point = Point(
        id="p",
        header=PointHeader(version=1, repository="r", host="h", created=0),
        body=PointBody(disks=(disk,), consistency="offline", firmware=was),
    )
    request = AdaptRequest(
        point=point,
        targets={"disk1": Disk(id="x", path=str(image), size=size)},
        machine=Machine(firmware=now),
        use_swap=use_swap,
    )
    return Job(request, lambda event: None)


@pytest.mark.root
def test_an_esp_at_the_end_of_a_larger_disk(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_disk(image, GPT, 2)
    os.truncate(image, 1024 * MIB)
    sh("sgdisk", "--move-second-header", image)
    job = job_for(image, "uefi", "bios")
    old = job.request.point.disk("disk1").table
    with partitions(image):
        said = make_room(job)
        assert "at the end of the disk (partition 3)" in said
        assert make_room(job_for(image, "uefi", "bios")) == "It is there."
    found = existing_esp({"disk1": probe_table(str(image))})
    assert found is not None and found[1].number == 3 and found[1].size == ESP_SIZE
    assert "No problems found" in sh("sgdisk", "--verify", image)
    assert image.read_bytes()[:6] == b"\xeb\x63GRUB"
    live = read_table(str(image))
    assert differences(live, old) == []
    assert growth(live, 1024 * MIB)[0].number == 2  # up to the ESP
    assert "first-lba" in job.undo["table-" + str(image).replace("/", "-") + ".sfdisk"].decode()


@pytest.mark.root
def test_a_run_that_was_cut_off_before_formatting_is_gone_on_with(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_disk(image, GPT, 2)
    os.truncate(image, 1024 * MIB)
    sh("sgdisk", "--move-second-header", image)
    job = job_for(image, "uefi", "bios")
    sh("sgdisk", "--new=3:-512M:0", "--typecode=3:ef00", image)
    with partitions(image):
        assert "earlier run" in make_room(job)
    assert existing_esp({"": probe_table(str(image))}) is not None
    assert len(probe_table(str(image)).partitions) == 3


@pytest.mark.root
def test_grubs_partition_in_front_of_the_first(tmp_path: Path) -> None:
    """Also where the partitioner declared everything before the first MiB unusable."""
    image = tmp_path / "disk"
    make_disk(image, GPT, 2)
    job = job_for(image, "bios", "uefi")
    old = job.request.point.disk("disk1").table
    with partitions(image):
        assert "in front of the first partition (partition 3)" in make_room(job)
    table = probe_table(str(image))
    assert bios_can_start(table) and table.partitions[0].start == 34 * 512
    assert "No problems found" in sh("sgdisk", "--verify", image)
    assert differences(read_table(str(image)), old) == []


@pytest.mark.root
def test_swap_gives_room_only_when_asked_and_keeps_its_name(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_disk(image, MBR, 5)
    before = image.read_bytes()
    with partitions(image), pytest.raises(SpaceError, match="no room"):
        make_room(job_for(image, "uefi", "bios"))
    assert image.read_bytes() == before
    job = job_for(image, "uefi", "bios", use_swap=True)
    old = job.request.point.disk("disk1").table
    with partitions(image):
        assert "swap partition 5" in make_room(job)
        again = job_for(image, "uefi", "bios", use_swap=True)
        point = msgspec.structs.replace(
            again.request.point, body=job.request.point.body
        )  # what was captured, not what is there now
        again.request = msgspec.structs.replace(again.request, point=point)
        assert make_room(again) == "It is there."
    table = probe_table(str(image))
    swap = next(p for p in table.partitions if p.number == 5)
    box = next(p for p in table.partitions if p.number == 2)
    esp = next(p for p in table.partitions if p.number == 3)
    assert swap.content.kind == "swap" and swap.content.uuid == SWAP
    assert swap.start + swap.size <= box.start + box.size <= esp.start
    assert (esp.type, esp.content.kind) == ("ef", "vfat")
    assert re.search(r"1 : start=.*bootable", sh("sfdisk", "--dump", image))
    assert image.read_bytes()[:6] == b"\xeb\x63GRUB"
    assert differences(read_table(str(image)), old) == []


def test_the_adaptation_finds_the_place_that_the_plan_showed(tmp_path: Path) -> None:
    """Both ask the same function; this keeps it so."""
    from recovery.plan.firmware import conversion
    from recovery.plan.model import Choices

    image = tmp_path / "disk"
    make_disk(image, MBR, 5)
    request = job_for(image, "uefi", "bios", use_swap=True).request
    source = request.point.disk("disk1")
    choices = Choices(host="h", point="p", targets={}, use_swap=True)
    planned = conversion(request.point, ((source, request.targets["disk1"]),), request.machine, choices)
    assert planned is not None and planned.make == find_place(request, {"disk1": source.table}, "esp")
