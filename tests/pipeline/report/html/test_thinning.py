"""Long series in few points."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.html.thinning import rule, thin

SERIES = st.dictionaries(st.integers(0, 5000).map(float), st.floats(-1e6, 1e6), max_size=600)


@given(SERIES, st.integers(1, 250))
def test_every_value_counts_once_and_nothing_is_hidden(series, most):
    thinned = thin(series, most)
    assert len(thinned.x) <= most
    assert bool(thinned) is bool(series)
    if not series:
        return
    sizes = [thinned.each] * (len(thinned.x) - 1) + [len(series) - thinned.each * (len(thinned.x) - 1)]
    total = sum(mean * size for mean, size in zip(thinned.y, sizes, strict=True))
    assert total == pytest.approx(sum(series.values()), abs=1e-3)
    assert (min(thinned.low), max(thinned.high)) == (min(series.values()), max(series.values()))
    assert all(
        low <= mean + 1e-9 and mean <= high + 1e-9
        for low, mean, high in zip(thinned.low, thinned.y, thinned.high, strict=True)
    )
    assert list(thinned.x) == sorted(thinned.x)


@given(SERIES)
def test_a_short_series_stays_as_it_is(series):
    thinned = thin(series, max(1, len(series)))
    assert dict(zip(thinned.x, thinned.y, strict=True)) == series
    assert thinned.each == 1
    assert rule(thinned.each, "epochs") == ""
