"""Boxes, turns and grasps, which need no simulator."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero import catalogue, expert
from stages.simulators.libero.expert.grasps import pointing_down, turn
from stages.simulators.libero.expert.scene import Boxes, Hand

SEEDS = st.integers(0, 2**32 - 1)


def rotation(stream, most=np.pi):
    axis = stream.normal(size=3)
    return rotation_about(axis / np.linalg.norm(axis) * stream.uniform(0, most))


def rotation_about(vector):
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@given(SEEDS)
def test_a_box_reaches_to_its_corners_and_no_further(seed):
    stream = np.random.default_rng(seed)
    boxes = Boxes(
        stream.normal(size=(2, 3)), np.stack([rotation(stream), rotation(stream)]), stream.uniform(0.1, 1, (2, 3))
    )
    corners = boxes.corners().reshape(2, 8, 3)
    low, high = boxes.bounds()
    np.testing.assert_allclose(low, corners.min(axis=1), atol=1e-12)
    np.testing.assert_allclose(high, corners.max(axis=1), atol=1e-12)
    assert boxes.distance(corners.reshape(-1, 3)) <= 1e-9


@given(SEEDS)
def test_the_distance_of_a_box_is_that_of_its_nearest_side(seed):
    stream = np.random.default_rng(seed)
    center, turned, half = stream.normal(size=3), rotation(stream), stream.uniform(0.1, 1, 3)
    boxes = Boxes(center[None], turned[None], half[None])
    axis, side, away = stream.integers(3), stream.choice([-1.0, 1.0]), stream.uniform(-0.1, 2)
    local = stream.uniform(-0.5, 0.5, 3) * half
    local[axis] = side * (half[axis] + away)
    others = np.delete(half - np.abs(local), axis).min()
    expected = away if away > 0 else -min(-away, others)
    assert boxes.distance((center + turned @ local)[None]) == pytest.approx(expected, abs=1e-9)


def test_nothing_is_near_where_nothing_stands():
    nothing = Boxes(np.empty((0, 3)), np.empty((0, 3, 3)), np.empty((0, 3)))
    assert nothing.distance(np.zeros((1, 3))) == float("inf")


@given(SEEDS)
def test_a_turned_hand_points_down_and_opens_as_asked(seed):
    stream = np.random.default_rng(seed)
    across = stream.normal(size=3)
    across[2] *= 0.1
    # The hand is a little off from where it is to be, up to a good right angle.
    before = rotation(stream, most=2.0) @ pointing_down(across)
    hand = Hand(position=np.zeros(3), rotation=before, opening=0.08, closing=0.0)
    after = rotation_about(turn(across, hand)) @ before
    np.testing.assert_allclose(after[:, 2], [0, 0, -1], atol=1e-6)
    assert after[:2, 0] @ across[:2] == pytest.approx(np.linalg.norm(across[:2]), rel=1e-6)


def test_tasks_of_other_suites_are_refused_by_name():
    task = "turn_on_the_stove"
    message = (
        "libero: no scripted expert for turn_on_the_stove of libero_goal; the suites that have one: libero_spatial, "
        "libero_object"
    )
    with pytest.raises(SimulatorConfigError, match=f"^{re.escape(message)}$"):
        expert.check(task, catalogue.entries()[task].suite)


def test_every_task_of_a_suite_with_an_expert_is_accepted():
    suites = [entry.suite for entry in catalogue.entries().values() if entry.suite in expert.SUITES]
    assert len(suites) == 20
    for entry in catalogue.entries().values():
        if entry.suite in expert.SUITES:
            expert.check(entry.name, entry.suite)
