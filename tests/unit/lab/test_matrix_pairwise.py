"""The all-pairs generator: every pair that can stand together occurs, nothing forbidden does, and it is the same each
time."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.matrix.pairwise import Row, pairwise
from tests.support.examples import examples

AXES: dict[str, tuple[Any, ...]] = {"a": (1, 2, 3), "b": ("x", "y"), "c": (True, False), "d": (0, 1, 2, 3)}


def pairs(rows: list[Row]) -> set[frozenset[tuple[str, Any]]]:
    return {frozenset(two) for row in rows for two in combinations(row.items(), 2)}


def all_rows(axes: dict[str, tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def test_every_pair_occurs_in_few_rows() -> None:
    rows = pairwise(AXES, lambda row: True)
    assert pairs(rows) == pairs(all_rows(AXES))
    assert 12 <= len(rows) <= 16, "the two largest axes alone need 12"
    assert all(set(row) == set(AXES) for row in rows)


def forbids(row: Row) -> bool:
    return not (row.get("a") == 1 and row.get("d") == 3) and not (row.get("b") == "y" and row.get("c") is True)


def test_what_is_forbidden_never_occurs_and_what_remains_does() -> None:
    rows = pairwise(AXES, forbids)
    assert all(forbids(row) for row in rows)
    assert pairs(rows) == pairs([row for row in all_rows(AXES) if forbids(row)])


def test_it_is_the_same_each_time() -> None:
    assert pairwise(AXES, forbids) == pairwise(AXES, forbids)


def test_nothing_allowed_gives_nothing() -> None:
    assert pairwise(AXES, lambda row: False) == []


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_any_axes(sizes: list[int], forbidden: set[tuple[int, int]]) -> None:
    axes: dict[str, tuple[Any, ...]] = {f"axis{n}": tuple(range(size)) for n, size in enumerate(sizes)}

    def allowed(row: Row) -> bool:
        return (row.get("axis0"), row.get("axis1")) not in forbidden

    rows = pairwise(axes, allowed)
    assert pairs(rows) == pairs([row for row in all_rows(axes) if allowed(row)])


@pytest.mark.parametrize("axis", AXES)
def test_values_are_used_evenly_where_pairs_leave_a_choice(axis: str) -> None:
    rows = pairwise(AXES, lambda row: True)
    counts = [sum(row[axis] == value for row in rows) for value in AXES[axis]]
    assert max(counts) - min(counts) <= 3
