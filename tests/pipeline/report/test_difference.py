"""The difference of two success rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.report.difference import paired, unpaired

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)
COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def outcomes(both, lost, won, neither):
    return [(True, True)] * both + [(True, False)] * lost + [(False, True)] * won + [(False, False)] * neither


def test_the_paired_interval_is_the_published_one():
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 2635-2650, table III, cell counts 36, 12, 2, 0, method 10."""
    difference = paired(outcomes(both=36, lost=2, won=12, neither=0))
    assert (round(difference.low, 4), round(difference.high, 4)) == (0.0569, 0.3404)


def test_the_unpaired_interval_is_the_published_one():
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 873-890, table II: 56/70 and 48/80, method 10."""
    difference = unpaired((48, 80), (56, 70))
    assert (round(difference.low, 4), round(difference.high, 4)) == (0.0524, 0.3339)


@given(PAIRS)
def test_paired_differences(pairs):
    one, other = paired(pairs), paired([(second, first) for first, second in pairs])
    successes = [sum(each) for each in zip(*pairs, strict=True)]
    assert one.value == pytest.approx((successes[1] - successes[0]) / len(pairs))
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert one.won - one.lost == successes[1] - successes[0]
    assert (one.pairs, one.won, one.lost) == (len(pairs), other.lost, other.won)


@given(st.integers(0, 80), st.integers(0, 80))
def test_the_test_is_the_binomial_one_on_pairs_that_differ(lost, won):
    found = paired(outcomes(5, lost, won, 5)).p_value
    assert found == pytest.approx(binomtest(lost, lost + won).pvalue if lost + won else 1.0)


@given(COUNTS, COUNTS)
def test_unpaired_differences(first, second):
    one, other = unpaired(first, second), unpaired(second, first)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert one.p_value is None


def test_pairing_narrows_the_interval_where_outcomes_go_together():
    """Two policies that fail on the same hard states: that is why the evaluations share their states."""
    together = paired(outcomes(both=60, lost=1, won=9, neither=30))
    apart = unpaired((61, 100), (69, 100))
    assert together.high - together.low < apart.high - apart.low
    assert together.low > 0 > apart.low


def test_without_a_pair_there_is_no_difference():
    with pytest.raises(ValueError, match="0 successes in 0 episodes"):
        paired([])
