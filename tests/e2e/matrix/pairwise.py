"""Pure: rows that cover every pair of values of two axes at least once (all-pairs), greedily and deterministically."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Row = dict[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairwise(axes: Mapping[str, Sequence[Any]], allowed: Callable[[Row], bool]) -> list[Row]:
    """A small list of ``allowed`` rows (axis -> value) in which each pair of values that any allowed row has occurs.

    Greedy: each row is grown from a pair that is still missing, value by value, by what covers most missing pairs;
    about a third more rows than the least possible. ``allowed`` gets rows that are not complete too, and says False
    as soon as what is there forbids the row. Of values that cover as much, the one used least is taken, so that what
    is not counted here (three values together) varies as well.
    """
    names = list(axes)
    reachable = _reachable(axes, allowed)
    missing = dict.fromkeys(reachable)
    rows: list[Row] = []
    used: Counter[tuple[str, Any]] = Counter()
    while missing:
        seed = next(iter(missing))
        row = _grow(dict(seed), names, axes, allowed, missing, used)
        rows.append(row)
        used.update(row.items())
        for pair in _pairs(row, names):
            missing.pop(pair, None)
    return rows


def _pairs(row: Row, names: Sequence[str]) -> list[Pair]:
    known = [name for name in names if name in row]
    return [((a, row[a]), (b, row[b])) for a, b in combinations(known, 2)]


def _reachable(axes: Mapping[str, Sequence[Any]], allowed: Callable[[Row], bool]) -> list[Pair]:
    """Every pair that some allowed row has."""
    found: list[Pair] = []
    for a, b in combinations(axes, 2):
        for x, y in product(axes[a], axes[b]):
            if _complete({a: x, b: y}, list(axes), axes, allowed) is not None:
                found.append(((a, x), (b, y)))
    return found


def _complete(
    row: Row, names: Sequence[str], axes: Mapping[str, Sequence[Any]], allowed: Callable[[Row], bool]
) -> Row | None:
    """The first allowed row that contains ``row``; None when there is none."""
    if not allowed(row):
        return None
    name = next((n for n in names if n not in row), None)
    if name is None:
        return row
    for value in axes[name]:
        done = _complete({**row, name: value}, names, axes, allowed)
        if done is not None:
            return done
    return None


def _grow(
    row: Row,
    names: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    allowed: Callable[[Row], bool],
    missing: Mapping[Pair, None],
    used: Mapping[tuple[str, Any], int],
) -> Row:
    for name in names:
        if name in row:
            continue
        options = [value for value in axes[name] if _complete({**row, name: value}, names, axes, allowed) is not None]

        def worth(value: Any, name: str = name) -> tuple[int, int]:
            covered = sum(pair in missing for pair in _pairs({**row, name: value}, names))
            return covered, -used.get((name, value), 0)

        row[name] = max(options, key=worth)
    return row
