"""Layouts, success and reward of the household's tasks."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.simulators.household import controller, scene, tasks
from stages.simulators.household.options import TASK_NAMES, Options


def _layouts(name: str, seeds: range, options: Options) -> tasks.Layout:
    return tasks.sample_layouts([name] * len(seeds), [tasks.generator(name, seed, 0) for seed in seeds], options)


def _solved(name: str) -> tuple[np.ndarray, tasks.Snapshot, Options]:
    """A world whose task is done: the target on its goal, the hands open and away."""
    options = Options()
    layout = _layouts(name, range(1), options)
    state = tasks.Snapshot(
        hand_position=np.array([[[-0.16, 0.27, 0.2], [-0.16, -0.27, 0.2]]]),
        hand_rotation=np.tile(controller.HAND_DOWN, (1, 2, 1, 1)),
        opening=np.full((1, 2), 0.1),
        object_position=layout.position.copy(),
        object_rotation=np.tile(np.eye(3), (1, layout.position.shape[1], 1, 1)),
        object_speed=np.zeros(layout.position.shape[:2]),
    )
    ids = tasks.task_ids([name])
    state.object_position[:, tasks.TARGET] = tasks.goal(ids, state, options)
    return ids, state, options


@pytest.mark.parametrize("name", TASK_NAMES)
@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(0, 2**40),
    spread=st.floats(0, 1),
    size=st.floats(0.02, 0.06),
    plate=st.floats(0.05, 0.1),
    distractors=st.integers(0, 3),
)
def test_objects_start_apart_and_on_the_table(name, start, spread, size, plate, distractors):
    options = Options(spread=spread, object_size=size, plate_radius=plate, distractors=distractors)
    layout = _layouts(name, range(start, start + 4), options)
    table = layout.position[..., 0] < 1
    assert (table.sum(axis=1) == 2 + distractors).all()
    assert table[:, tasks.TARGET].all()
    for row in range(4):
        places = layout.position[row, table[row], :2]
        radii = np.full(layout.position.shape[1], size * np.sqrt(0.5))
        radii[tasks.PLATE] = plate
        radii = radii[table[row]]
        for i in range(len(places)):
            for j in range(i):
                assert np.linalg.norm(places[i] - places[j]) > radii[i] + radii[j] + 0.015


def test_a_seed_gives_one_layout_whatever_shares_its_batch():
    alone = _layouts("stack", range(7, 8), Options())
    among = _layouts("stack", range(5, 10), Options())
    np.testing.assert_array_equal(alone.position[0], among.position[2])
    assert not np.array_equal(among.position[1], among.position[2])


def test_the_target_lies_on_the_side_that_arms_allow():
    right = _layouts("stack", range(40), Options(arms="right"))
    both = _layouts("stack", range(40), Options(arms="both"))
    assert (right.side == 1).all()
    assert (right.position[:, tasks.TARGET, 1] < 0).all()
    assert set(both.side) == {0, 1}
    assert ((both.position[:, tasks.TARGET, 1] > 0) == (both.side == 0)).all()


def test_no_spread_is_one_layout():
    layout = _layouts("pick_onto_plate", range(20), Options(spread=0.0, arms="right"))
    assert (layout.position == layout.position[0]).all()
    assert (layout.yaw == 0).all()


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_solved_world_is_a_success(name):
    assert tasks.succeeded(*_solved(name)).all()


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize("flaw", ["aside", "above", "moving", "held"])
def test_anything_short_of_solved_is_not(name, flaw):
    ids, state, options = _solved(name)
    target = state.object_position[:, tasks.TARGET]
    if flaw == "aside":
        target[:, 0] += options.plate_radius if name == "pick_onto_plate" else 0.6 * options.object_size
    elif flaw == "above":
        target[:, 2] += 0.01
    elif flaw == "moving":
        state.object_speed[:, tasks.TARGET] = 0.2
    else:
        state.hand_position[:, 0] = target
        state.opening[:, 0] = options.object_size
    assert not tasks.succeeded(ids, state, options).any()


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_potential_rises_towards_the_goal(name):
    ids, state, options = _solved(name)
    at_goal = state.object_position[:, tasks.TARGET].copy()
    values = []
    for distance in (0.3, 0.2, 0.1, 0.0):
        state.object_position[:, tasks.TARGET] = at_goal + [0.0, 0.0, distance]
        near = np.tile(state.object_position[:, None, tasks.TARGET], (1, 2, 1))
        values.append(tasks.potential(ids, dataclasses.replace(state, hand_position=near), options)[0])
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0)


def test_proprioception_is_of_order_one_everywhere_in_the_workspace():
    _, state, _ = _solved("stack")
    for corner in (controller.WORKSPACE_LOW, controller.WORKSPACE_HIGH):
        felt = tasks.proprioception(dataclasses.replace(state, hand_position=corner[None]))
        assert felt.shape == (1, tasks.PROPRIO_DIM)
        assert felt.dtype == np.float32
        assert np.abs(felt).max() < 1.5


def test_the_scene_knows_every_object_it_places():
    options = Options(distractors=3)
    assert len(scene.object_names(tasks.cube_count(options))) == tasks.cube_count(options) + 1
