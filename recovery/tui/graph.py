"""A graph of a rate over time, from character cells. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from recovery.tui.glyphs import LEVELS

_EIGHTHS = len(LEVELS) - 1


def rates(history: Sequence[tuple[float, float]], columns: int) -> list[float]:
    """``columns`` or fewer rates per second from (time, amount so far): all of the time, in equal parts of at least
    one second each."""
    if len(history) < 2 or columns < 1:
        return []
    begin, end = history[0][0], history[-1][0]
    count = max(1, min(columns, int(end - begin)))
    part = (end - begin) / count
    if part <= 0:
        return []
    found: list[float] = []
    index, before = 0, history[0][1]
    for number in range(1, count + 1):
        edge = begin + part * number if number < count else end
        while index + 1 < len(history) - 1 and history[index + 1][0] <= edge:
            index += 1
        # Between two of what is known it went evenly.
        (t0, v0), (t1, v1) = history[index], history[index + 1]
        amount = v0 + (v1 - v0) * min(1.0, max(0.0, (edge - t0) / (t1 - t0))) if t1 > t0 else v1
        found.append(max(0.0, amount - before) / part)
        before = amount
    return found


def bars(values: Sequence[float], rows: int) -> list[str]:
    """The values as columns of ``rows`` lines' height, the highest one full; from the top line down."""
    most = max(values, default=0.0)
    full = rows * _EIGHTHS
    # A rate that is not zero is seen.
    heights = [max(1, round(value / most * full)) if value > 0 and most else 0 for value in values]
    return [
        "".join(LEVELS[min(_EIGHTHS, max(0, height - (rows - 1 - row) * _EIGHTHS))] for height in heights)
        for row in range(rows)
    ]
