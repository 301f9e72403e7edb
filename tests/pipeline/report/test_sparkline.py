"""Sparklines: what is higher is never drawn lower, whatever the numbers, the width and the bars."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.sparkline import ASCII_BARS, BARS, sparkline

numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.lists(st.one_of(numbers, st.just(math.nan), st.just(math.inf), st.none()), max_size=60)
bars = st.sampled_from([BARS, ASCII_BARS])


@given(st.lists(numbers, min_size=1, max_size=60), bars)
def test_higher_values_have_no_lower_bars(given_values, drawn):
    line = sparkline(given_values, len(given_values), bars=drawn)
    levels = [drawn.index(letter) for letter in line]
    ordered = [level for _, level in sorted(zip(given_values, levels, strict=True))]
    assert ordered == sorted(ordered)
    if min(given_values) / 2 < max(given_values) / 2:
        assert (min(levels), max(levels)) == (0, len(drawn) - 1)


@given(values, st.integers(1, 80), numbers, numbers, bars)
def test_any_values_and_scale_give_as_many_bars_as_fit(given_values, width, one, other, drawn):
    line = sparkline(given_values, width, low=min(one, other), high=max(one, other), bars=drawn)
    assert len(line) == min(len(given_values), width)
    assert set(line) <= {*drawn, " "}


@given(st.lists(numbers, min_size=1, max_size=200), st.integers(1, 40))
def test_rising_values_rise_in_any_width(given_values, width):
    line = sparkline(sorted(given_values), width)
    assert list(line) == sorted(line)  # the bars are in the order of their code points


@given(st.lists(st.one_of(st.none(), numbers), min_size=1, max_size=40))
def test_what_is_not_known_is_blank(given_values):
    line = sparkline(given_values, len(given_values))
    assert [letter == " " for letter in line] == [value is None for value in given_values]


@pytest.mark.parametrize(
    ("given_values", "line"),
    [
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([0.3, 0.3], "▃▃"),
        ([-1.0, 2.0], "▁█"),
        ([], ""),
    ],
)
def test_rates_on_the_scale_from_nothing_to_all(given_values, line):
    assert sparkline(given_values, 10, low=0.0, high=1.0) == line


def test_equal_values_on_a_scale_of_their_own_are_half_high():
    assert sparkline([4.0, 4.0], 10) == "▅▅"
    assert sparkline([3.0, 4.0, 5.0], 10, low=4.0, high=4.0) == "▁▅█"


def test_neighbours_share_a_column_as_their_mean():
    assert sparkline([0.0, 0.0, 1.0, 0.0, 1.0, None], 3, low=0.0, high=1.0) == "▁▅█"
