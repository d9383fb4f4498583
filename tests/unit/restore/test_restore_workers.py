"""How many workers a restore has: the plan promises fewer where memory is scarce, and a server takes only so many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recovery.restore.disk import worker_count
from recovery.units import GIB, MIB


def test_small_and_large_machines() -> None:
    assert worker_count(2, 8 * GIB) == 2
    assert worker_count(8, 512 * MIB) == 4
    assert worker_count(256, 512 * GIB) == 32


@given(st.integers(1, 1024), st.integers(0, 2**50))
def test_bounds(cores: int, free: int) -> None:
    found = worker_count(cores, free)
    assert 2 <= found <= min(32, cores) or found == 2
    assert found == 2 or found * 32 * MIB <= free // 4
