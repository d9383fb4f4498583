"""The power fails at any moment: what the disk had not been told to keep may be there, or not, or half of it.

Every write of a restore is recorded. A disk as it may be found after a loss of power is then made from them: all that
was written before the last flush, and any part of what came after it, in any order. Whatever the moment, it either
does not boot (its first sector is empty), or has not been touched, or is complete. What QEMU shows in ``tests/e2e``
for two moments, this shows for hundreds.
"""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recovery.events import ignore
from recovery.restore.disk import RestoreOptions, restore_disk
from recovery.restore.target import Target
from tests.support.copies import CHUNK, Copies

pytestmark = pytest.mark.faults

MIB = 2**20
_MOMENTS = int(os.environ.get("REKINDLE_MOMENTS", "150"))
_SEED = int(os.environ.get("REKINDLE_SEED", "8"))
#: What a disk writes wholly or not at all.
_SECTOR = 4096


@dataclass
class Recorder:
    """What the disk was told, in order: (offset, bytes), or None for a flush that was over."""

    told: list[tuple[int, bytes] | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on, for every Target."""
        write, zero, sync = Target._write, Target.zero, Target.sync

        def noted(offset: int, data: bytes) -> None:
            with self.lock:
                self.told.append((offset, data))

        def on_write(target: Target, offset: int, data: memoryview) -> None:
            noted(offset, bytes(data))
            write(target, offset, data)

        def on_zero(target: Target, offset: int, length: int) -> None:
            noted(offset, bytes(length))
            zero(target, offset, length)

        def on_sync(target: Target) -> None:
            sync(target)
            with self.lock:
                self.told.append(None)

        monkeypatch.setattr(Target, "_write", on_write)
        monkeypatch.setattr(Target, "zero", on_zero)
        monkeypatch.setattr(Target, "sync", on_sync)

    def after_power_loss(self, before: bytes, moment: int, source: random.Random) -> bytes:
        """The disk as it may be when the power failed at this place of the record."""
        disk = bytearray(before)
        flushed = max((at for at in range(moment) if self.told[at] is None), default=-1)
        kept = [event for event in self.told[: flushed + 1] if event is not None]
        loose = [event for event in self.told[flushed + 1 : moment] if event is not None]
        source.shuffle(loose)
        for offset, data in kept:
            disk[offset : offset + len(data)] = data
        for offset, data in loose:
            # Nothing, all, or some of its sectors.
            sectors = range(0, len(data), _SECTOR)
            kind = source.choice(("nothing", "all", "begin", "end", "some"))
            cut = source.randrange(len(sectors) + 1)
            for number, at in enumerate(sectors):
                here = {"nothing": False, "all": True, "begin": number < cut, "end": number >= cut}.get(kind)
                if source.random() < 0.5 if here is None else here:
                    disk[offset + at : offset + at + _SECTOR] = data[at : at + _SECTOR]
        return bytes(disk)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a stranger's disk", "the host's own disk", "a disk half restored"])
def test_whenever_the_power_fails_the_disk_does_not_half_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = random.Random(f"{_SEED} {kind}")
    copies = Copies(tmp_path)
    repository, out = copies.open("one"), tmp_path / "out.img"
    size = len(copies.data) + MIB
    before = bytearray(source.randbytes(size))
    if kind == "the host's own disk":
        before[: len(copies.data)] = copies.data
        for _ in range(12):
            at = source.randrange(len(copies.data) // CHUNK) * CHUNK
            before[at : at + 100] = source.randbytes(100)
    elif kind == "a disk half restored":
        before[: len(copies.data)] = copies.data
        before[len(copies.data) // 2 :] = source.randbytes(size - len(copies.data) // 2)
        before[:MIB] = bytes(MIB)
    out.write_bytes(before)
    recorder = Recorder()
    recorder.watch(monkeypatch)
    options = RestoreOptions(workers=3, verify_all=True)
    restore_disk(repository, copies.point, "disk1", str(out), ignore, threading.Event(), options)
    assert out.read_bytes()[: len(copies.data)] == copies.data
    monkeypatch.undo()

    seen = {"untouched": 0, "incomplete": 0, "complete": 0}
    ends = [len(recorder.told) - number for number in range(12)]  # where it becomes complete
    moments = [*range(12), *ends, *(source.randrange(len(recorder.told)) for _ in range(_MOMENTS))]
    for moment in moments:
        found = recorder.after_power_loss(bytes(before), moment, source)
        if found[: len(copies.data)] == copies.data:
            seen["complete"] += 1
        elif not any(found[:_SECTOR]):
            seen["incomplete"] += 1
        else:
            # The first flush was not over: of the old disk at most both ends are gone, in part.
            assert None not in recorder.told[:moment] or recorder.told.index(None) >= moment, (
                f"seed {_SEED}, moment {moment} of {len(recorder.told)}: it looks complete and is not"
            )
            tail = (size - MIB) // MIB * MIB
            assert found[MIB:tail] == before[MIB:tail]
            seen["untouched"] += 1
    print(kind, seen, f"of {len(recorder.told)} events")
    assert seen["incomplete"] > _MOMENTS // 2
    assert seen["complete"] > 0


def test_what_a_loss_of_power_left_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And from such a disk the restore goes on: to the same bytes, without fetching what is there."""
    source, copies = random.Random(_SEED), Copies(tmp_path)
    repository, out = copies.open("one"), tmp_path / "out.img"
    before = source.randbytes(len(copies.data))
    out.write_bytes(before)
    recorder = Recorder()
    recorder.watch(monkeypatch)
    restore_disk(repository, copies.point, "disk1", str(out), ignore, threading.Event(), RestoreOptions(workers=3))
    monkeypatch.undo()
    for moment in [len(recorder.told) * part // 8 for part in range(1, 8)]:
        found = recorder.after_power_loss(before, moment, source)
        out.write_bytes(found)
        right = sum(
            found[at : at + CHUNK] == copies.data[at : at + CHUNK] and any(found[at : at + CHUNK])
            for at in range(MIB, len(copies.data) - 2 * MIB, CHUNK)
        )
        options = RestoreOptions(verify_all=True)
        report = restore_disk(repository, copies.point, "disk1", str(out), ignore, threading.Event(), options)
        assert out.read_bytes() == copies.data
        assert report.root_matched
        assert report.skipped >= right * CHUNK, f"seed {_SEED}, moment {moment}"
