"""Sparklines: numbers as a row of bars, a character each."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#@"  # where the terminal's encoding has no bars; the darker, the higher


def sparkline(
    values: Sequence[float | None], width: int, *, low: float | None = None, high: float | None = None, bars: str = BARS
) -> str:
    """A row of bars, one for each value, or for the mean of neighbours where there are more values than columns.

    Args:
        values: in order; None or not finite: a blank.
        width: columns, at least 1.
        low: value of the lowest bar; None: the smallest bar that is drawn.
        high: value of the highest bar; None: the largest that is drawn. Values beyond either end are drawn there.
        bars: characters from the lowest to the highest.

    Returns:
        `min(len(values), width)` characters.
    """
    means = [_mean(values[begin:end]) for begin, end in _parts(len(values), width)]
    known = [mean for mean in means if mean is not None]
    if not known:
        return " " * len(means)
    bottom, top = min(known) if low is None else low, max(known) if high is None else high
    return "".join(" " if mean is None else bars[_level(mean, bottom, top, len(bars))] for mean in means)


def _parts(count: int, width: int) -> list[tuple[int, int]]:
    """Begin and end of what each column stands for."""
    columns = min(count, width)
    return [(column * count // columns, (column + 1) * count // columns) for column in range(columns)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(value / len(known) for value in known) if known else None  # divided first: a sum may overflow


def _level(value: float, low: float, high: float, levels: int) -> int:
    span = high / 2 - low / 2  # halves, because the difference of two finite numbers may overflow
    if span <= 0:
        return levels // 2 if value == low else 0 if value < low else levels - 1
    share = min(max((value / 2 - low / 2) / span, 0.0), 1.0)
    return min(int(share * levels), levels - 1)
