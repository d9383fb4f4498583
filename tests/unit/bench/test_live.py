"""What the row capture-live decides without a disk: the trace, fio's figures, losses, what a day comes to."""

from __future__ import annotations

import json
import math
import random

import pytest
import zstandard

from tests.bench.live_fio import losses, parse_fio
from tests.bench.live_stored import BLOCK, IDEAL, KEYFRAME, OURS, changed_blocks, compressed, per_day
from tests.bench.measure import percentile
from tests.bench.model import Measured, Sample
from tests.bench.trace import ACCESS, LOG, MINUTE, PAGE, TABLE, Trace


def measured(name: str, figure: str, *values: float) -> Measured:
    return Measured(name=name, samples=[Sample(seconds=1, figures={figure: value}) for value in values])


def test_a_minute_is_the_same_each_time_and_other_minutes_differ() -> None:
    trace = Trace(table=4 * 2**20, transactions=20)
    assert trace.minute(3) == trace.minute(3)
    assert trace.minute(3) != trace.minute(4)
    assert Trace(table=4 * 2**20, transactions=20, seed=6).minute(3) != trace.minute(3)


def test_a_minute_has_what_a_database_and_a_web_server_write() -> None:
    trace = Trace(table=4 * 2**20, transactions=20)
    writes = trace.minute(0)
    assert [write.at for write in writes] == sorted(write.at for write in writes)
    assert writes[0].at >= 0 and writes[-1].at < MINUTE
    pages = [write for write in writes if write.file == TABLE]
    assert len(pages) == 100
    for page in pages:
        assert page.offset is not None and page.offset % PAGE == 0 and page.offset + PAGE <= trace.table
        assert len(page.data) == PAGE and PAGE * 0.5 < len(zstandard.compress(page.data)) < PAGE * 0.6
    assert sum(write.sync for write in writes) == len([write for write in writes if write.file == LOG]) == 20
    assert all(write.offset is None and not write.new for write in writes if write.file == ACCESS)


def test_figures_of_fio() -> None:
    written = {"iops": 1234.5, "clat_ns": {"max": 9e6, "percentile": {"50.000000": 1e6, "99.000000": 5e6}}}
    text = "fio: a warning\n" + json.dumps({"jobs": [{"write": written}]})
    assert parse_fio(text) == {"iops": 1234.5, "p50_ms": 1.0, "p99_ms": 5.0, "longest_ms": 9.0}
    for wrong in ("", "{}", '{"jobs": []}', '{"jobs": [{"write": {}}]}'):
        with pytest.raises(ValueError):
            parse_fio(wrong)


def test_losses_are_those_of_each_turn() -> None:
    before, after = measured("a", "iops", 100, 200), measured("b", "iops", 97, 210)
    assert losses(before, after, "iops") == pytest.approx([3.0, -5.0])
    assert losses(before, after, "iops", grows=True) == pytest.approx([-3.0, 5.0])


def test_blocks_that_differ_and_what_they_take() -> None:
    old = random.Random(1).randbytes(16 * BLOCK)
    new = bytearray(old)
    new[5 * BLOCK + 7] ^= 1
    new[15 * BLOCK] ^= 1
    found = changed_blocks(old, bytes(new))
    assert found == [bytes(new[5 * BLOCK : 6 * BLOCK]), bytes(new[15 * BLOCK :])]
    assert 2 * BLOCK < compressed(found) < 2 * BLOCK + 100
    assert changed_blocks(old, old) == []
    assert compressed([bytes(BLOCK)]) == compressed([]) < 20


def test_a_day_is_its_minutes_and_a_keyframe_an_hour() -> None:
    minutes, keyframe = measured(OURS, "stored", 10, 20, 30), measured(KEYFRAME, "stored", 600)
    assert per_day(minutes, keyframe) == 24 * (60 * 20 + 600)
    assert per_day(measured(IDEAL, "stored", 5), None) == 24 * 60 * 5


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 201)]
    random.Random(2).shuffle(values)
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (101.0, 199.0, 200.0)
    assert math.isnan(percentile([], 99))
