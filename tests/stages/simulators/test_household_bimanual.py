"""Tasks for two arms: the bar that changes hands, the tray between two hands, the drawer that has to be held open."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.simulators.household import controller, two_handed
from stages.simulators.household.options import Options
from stages.simulators.household.suites import long
from stages.simulators.interface import HELD_OUT, Episode
from tests.stages.simulators.household_table import Table

BAR, TRAY, DRAWER = "long_bar_over_into_box", "long_tray_onto_stand_then_cube", "long_cube_into_sprung_drawer"
TWO_ARMED = [name for name in long.define(Options()) if any(word in name for word in ("bar_", "tray_", "sprung_"))]
SEEDS = [3, HELD_OUT + 3]

table = functools.cache(Table)


def test_at_least_four_tasks_need_both_arms():
    assert len(TWO_ARMED) >= 4


@pytest.mark.parametrize("lame", [0, 1])
@pytest.mark.parametrize("task", TWO_ARMED)
def test_no_arm_does_it_alone(task, lame):
    table(task).reset(HELD_OUT + lame)
    for _ in table(task).expert(lame):
        pass
    assert not table(task).solved()


def test_no_arm_reaches_both_the_bar_and_its_place_in_the_box():
    benchmark, kit = table(BAR).benchmark, table(BAR).kit
    start = benchmark.start([Episode(BAR, seed) for seed in range(300)])
    bar, box = (start.position[:, kit.object(prop), 1] for prop in (two_handed.BAR, two_handed.LONG_BOX))
    across = controller.WORKSPACE_HIGH[1, 1]  # how far either hand reaches over the middle
    turned = abs(two_handed.BAR_FAR_END.at[0]) * np.sin(controller.MAX_TURNED)
    (goal,) = long.define(Options())[BAR].goal
    assert (np.abs(bar) > across + turned).all()
    assert (np.abs(box) - goal.half[1] > across + turned).all()
    assert (bar * box < 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_bar_is_held_by_one_hand_then_both_then_the_other(seed):
    start = table(BAR).reset(seed)
    bar = table(BAR).kit.object(two_handed.BAR)
    giver = int(start.object_position[0, bar, 1] < 0)
    held = []
    for state in table(BAR).expert():
        assert table(BAR).gap_between_arms() > 0
        if state.object_position[0, bar, 2] > 0.1:
            ends = np.linalg.norm(state.hand_position[0] - state.object_position[0, bar], axis=-1)
            gripped = (ends < 0.09) & (np.abs(state.opening[0] - two_handed.BAR_FAR_END.width) < 0.004)
            held.append((bool(gripped[giver]), bool(gripped[1 - giver])))
    assert table(BAR).solved()
    assert list(dict.fromkeys(held)) == [(True, False), (True, True), (False, True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tray_stays_level_and_keeps_what_stands_on_it(seed):
    state = table(TRAY).reset(seed)
    tray, cube = (
        next(i for i, prop in enumerate(table(TRAY).kit.props) if name in prop.name) for name in ("tray", "blue")
    )
    resting = state.object_position[0, cube, 2] - state.object_position[0, tray, 2]
    lifted = 0
    for state in table(TRAY).expert():
        lifted += state.object_position[0, tray, 2] > two_handed.STAND.rest + two_handed.STAND.top + 0.02
        assert state.object_rotation[0, tray, 2, 2] > np.cos(np.radians(2))
        height = state.object_position[0, cube, 2] - state.object_position[0, tray, 2]
        assert abs(height - resting) < 0.004
        assert table(TRAY).gap_between_arms() > 0
    assert table(TRAY).solved()
    assert lifted > 5


@settings(max_examples=12, deadline=None)
@given(st.floats(0.01, two_handed.SPRUNG_LEFT.travel))
def test_a_sprung_drawer_that_nobody_holds_shuts(opening):
    table(DRAWER).reset(0, drawer=opening)
    assert table(DRAWER).wait(0.1).drawer[0, 0] < opening
    assert table(DRAWER).wait(1.0).drawer[0, 0] < 0.002


@pytest.mark.parametrize("seed", SEEDS)
def test_the_drawer_is_held_while_the_cube_goes_in_and_shuts_with_it(seed):
    table(DRAWER).reset(seed)
    handle = table(DRAWER).kit.frame(two_handed.SPRUNG_LEFT.grip.frame)
    widest = 0.0
    for state in table(DRAWER).expert():
        widest = max(widest, state.drawer[0, 0])
        if state.drawer[0, 0] > 0.11:
            assert np.linalg.norm(state.hand_position[0, 0] - state.frame_position[0, handle]) < 0.02
        assert table(DRAWER).gap_between_arms() > 0
    assert table(DRAWER).solved()
    assert widest <= two_handed.SPRUNG_LEFT.travel + 0.002
