"""The 95 % confidence interval of a success rate."""

from __future__ import annotations

import math

Z95 = 1.959963984540054


def interval(successes: int, episodes: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion.

    Holds its coverage near 0 and 1 and for few episodes, where the normal approximation fails. Formula: E. B. Wilson,
    "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212.

    Args:
        successes: episodes that succeeded.
        episodes: episodes in all, at least 1.
        z: quantile of the standard normal distribution; the default gives 95 %.

    Returns:
        Lower and upper end, fractions in 0..1.

    Raises:
        ValueError: the counts are impossible.
    """
    if not 0 <= successes <= episodes or episodes < 1:
        raise ValueError(f"{successes} successes in {episodes} episodes")
    rate, widening = successes / episodes, z * z / episodes
    center = (rate + widening / 2) / (1 + widening)
    half = math.sqrt(rate * (1 - rate) * widening + widening * widening / 4) / (1 + widening)
    # Rounding may push an end past the rate it must enclose at 0 and 1.
    return min(max(0.0, center - half), rate), max(min(1.0, center + half), rate)
