"""Wilson's interval against published values and its own properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.wilson import interval


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes, episodes, low, high):
    assert interval(successes, episodes) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_encloses_the_rate_mirrors_and_stays_a_fraction(counts):
    successes, episodes = counts
    low, high = interval(successes, episodes)
    assert 0 <= low <= successes / episodes <= high <= 1
    mirrored = interval(episodes - successes, episodes)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="successes in"):
        interval(*counts)
