"""Durations and rates as people write them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as people write them: 42 s, 3:12 min, 2:05:00 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def percent(rate: float | None) -> str:
    """A fraction as a percentage; empty where there is none."""
    return "" if rate is None else f"{100 * rate:.1f} %"
