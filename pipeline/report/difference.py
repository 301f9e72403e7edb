"""The difference of two success rates, with its 95 % confidence interval and the chance that it is one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pipeline.report.wilson import interval

PAIRED = "paired by initial state: Newcombe's score interval, exact McNemar test"
UNPAIRED = "not paired: Newcombe's score interval of independent rates"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The second rate minus the first.

    Attributes:
        value: the difference, a fraction in -1..1.
        low: lower end of its 95 % interval.
        high: upper end.
        method: how the interval and the p-value come about, in words.
        pairs: initial states that both played; None where they were not paired.
        lost: of these, those where only the first succeeded; None where they were not paired.
        won: of these, those where only the second succeeded; None where they were not paired.
        p_value: chance of a split of `lost` and `won` at least as uneven if the rates were equal, two-sided; None where
            they were not paired.
    """

    value: float
    low: float
    high: float
    method: str
    pairs: int | None = None
    lost: int | None = None
    won: int | None = None
    p_value: float | None = None


def paired(outcomes: Sequence[tuple[bool, bool]]) -> Difference:
    """Compare two policies on the initial states that both played.

    Interval: R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998), 2635-2650, method 10. Test: Q. McNemar, Psychometrika 12 (1947),
    153-157, with the binomial distribution in place of its chi-squared approximation.

    Args:
        outcomes: success of the first and of the second, at least one pair.

    Raises:
        ValueError: there is no pair.
    """
    count = len(outcomes)
    both = sum(first and second for first, second in outcomes)
    lost = sum(first and not second for first, second in outcomes)
    won = sum(second and not first for first, second in outcomes)
    neither = count - both - lost - won
    (low1, high1), (low2, high2) = interval(both + lost, count), interval(both + won, count)
    rate1, rate2 = (both + lost) / count, (both + won) / count
    phi = _correlation(both, lost, won, neither)
    below = _hypot(rate2 - low2, high1 - rate1, phi)
    above = _hypot(high2 - rate2, rate1 - low1, phi)
    value = rate2 - rate1
    return Difference(
        value,
        max(value - below, -1.0),
        min(value + above, 1.0),
        PAIRED,
        pairs=count,
        lost=lost,
        won=won,
        p_value=_mcnemar(lost, won),
    )


def unpaired(first: tuple[int, int], second: tuple[int, int]) -> Difference:
    """Compare two policies that played different initial states.

    Interval: R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 17 (1998), 873-890, method 10.

    Args:
        first: successes and episodes of the first.
        second: the same of the second.
    """
    (low1, high1), (low2, high2) = interval(*first), interval(*second)
    rate1, rate2 = first[0] / first[1], second[0] / second[1]
    value = rate2 - rate1
    return Difference(
        value,
        value - math.hypot(rate2 - low2, high1 - rate1),
        value + math.hypot(high2 - rate2, rate1 - low1),
        UNPAIRED,
    )


def _correlation(both: int, lost: int, won: int, neither: int) -> float:
    """Correlation of the two outcomes, with Newcombe's correction for continuity where it is positive."""
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if not margins:
        return 0.0
    product, count = both * neither - lost * won, both + lost + won + neither
    return (max(product - count / 2, 0.0) if product > 0 else product) / math.sqrt(margins)


def _hypot(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))


def _mcnemar(lost: int, won: int) -> float:
    """Two-sided p-value: under equal rates each discordant pair falls to either side like a fair coin."""
    count = lost + won
    tail = sum(math.comb(count, i) for i in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**count)
