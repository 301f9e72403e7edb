"""Long series in few points, with the rule by which they were thinned out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

MOST = 200


@dataclasses.dataclass(frozen=True)
class Thinned:
    """A series to draw.

    Attributes:
        x: where its points lie; the middle of those that a point stands for.
        y: their mean.
        low: their minimum.
        high: their maximum.
        spans: what a point stands for, in words: `7`, or `5-9`.
        each: consecutive values that a point stands for; 1: every value is drawn.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spans: tuple[str, ...]
    each: int = 1

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.x)


def thin(series: Mapping[Any, float], most: int = MOST) -> Thinned:
    """Let a point stand for as many consecutive values as it takes to need no more than `most` points.

    Args:
        series: x, a number -> value.
        most: points to be drawn.
    """
    ordered = sorted(series.items())
    each = max(1, math.ceil(len(ordered) / most))
    bins = [ordered[start : start + each] for start in range(0, len(ordered), each)]
    values = [[value for _, value in one] for one in bins]
    return Thinned(
        tuple((one[0][0] + one[-1][0]) / 2 for one in bins),
        tuple(sum(ys) / len(ys) for ys in values),
        tuple(map(min, values)),
        tuple(map(max, values)),
        tuple(f"{one[0][0]:g}" if len(one) == 1 else f"{one[0][0]:g}-{one[-1][0]:g}" for one in bins),
        each,
    )


def rule(each: int, what: str) -> str:
    """How a series was thinned out, in words; empty where every value is drawn."""
    return f"a point is the mean of {each} {what}, the band goes from their least to their greatest" if each > 1 else ""
