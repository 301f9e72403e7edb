"""Rates that OmniGibson's arithmetic would round down are refused, all others that nest are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson.frequencies import check


@given(st.integers(1, 120), st.integers(1, 8), st.integers(1, 8))
def test_a_step_takes_as_long_as_it_should(action, frames, substeps):
    """`Simulator.step` of OmniGibson, written out: how much time passes in a step of the rates that are taken."""
    rendering, physics = action * frames, action * frames * substeps
    try:
        check(action, rendering, physics)
    except SimulatorConfigError:
        assert int((1 / action) // (1 / rendering)) != frames
        return
    passed = int((1 / action) // (1 / rendering)) * substeps / physics
    assert passed == pytest.approx(1 / action)


@pytest.mark.parametrize("rates", [(30, 30, 120), (60, 60, 120), (30, 60, 120), (20, 60, 120), (15, 30, 120)])
def test_the_usual_rates_are_taken(rates):
    check(*rates)


def test_a_trap_is_explained():
    with pytest.raises(SimulatorConfigError) as caught:
        check(15, 45, 90)
    assert str(caught.value) == (
        "omnigibson: at action_frequency 15 and rendering_frequency 45 OmniGibson draws 2 frames a step, not 3, "
        "because of rounding; set rendering_frequency to 15 or 30"
    )
