"""The controller as a Warp kernel: the same targets as the controller's own, to the last digits."""

import numpy as np
import pytest
import warp as wp

from stages.simulators.household import controller, robot
from stages.simulators.household.warp import control
from stages.simulators.household.warp.device import Device

WORLDS, STEPS, PERIOD = 40, 30, 1 / 20


@pytest.fixture(scope="module")
def arms():
    with Device().current(None):
        yield control.arms(PERIOD)


def _moved(arms, targets, actions, ended):
    """Targets as rows, and servo commands, after the kernel carried out actions [N, K, 14]."""
    count = len(actions)
    rows, ctrl = wp.array(control.packed(targets), dtype=wp.float64), wp.zeros((count, 18), dtype=wp.float32)
    inputs = wp.array(actions, dtype=wp.float32), wp.zeros(1, dtype=wp.int32), wp.array(ended, dtype=wp.int32)
    for step in range(actions.shape[1]):
        inputs[1].fill_(step)
        wp.launch(control.move, dim=(count, 2), inputs=[arms, *inputs], outputs=[rows, ctrl])
    return rows.numpy(), ctrl.numpy()


# A random walk, a push against the ends of reach and of turning, and one beyond what an action may be.
@pytest.mark.parametrize(("drift", "spread"), [(0.0, 0.7), (1.0, 0.3), (-0.8, 0.8), (0.0, 3.0)])
def test_it_sends_the_hands_where_the_controller_does(arms, drift, spread):
    actions = np.random.default_rng(0).normal(drift, spread, (WORLDS, STEPS, 14)).astype(np.float32)
    targets = start = controller.home(WORLDS, robot.HOME_JOINTS)
    for step in range(STEPS):
        targets = controller.move(targets, actions[:, step], PERIOD, robot.HOME_JOINTS)
    rows, ctrl = _moved(arms, start, actions, np.zeros(WORLDS))
    np.testing.assert_allclose(rows, control.packed(targets), atol=1e-9)
    commands = np.concatenate([targets.joints, np.repeat(targets.finger[..., None], 2, axis=-1)], axis=-1)
    np.testing.assert_allclose(ctrl.reshape(WORLDS, 2, 9), commands, atol=1e-6)


def test_a_gripper_told_nothing_stays_as_it_is(arms):
    actions = np.zeros((1, 2, 14), np.float32)
    actions[0, 0, [6, 13]] = -0.1, 0.1
    rows, _ = _moved(arms, controller.home(1, robot.HOME_JOINTS), actions, np.zeros(1))
    np.testing.assert_array_equal(rows[0, :, -1], [controller.FINGER_CLOSED, controller.FINGER_OPEN])


def test_worlds_that_ended_are_left_alone(arms):
    start = controller.home(2, robot.HOME_JOINTS)
    rows, ctrl = _moved(arms, start, np.ones((2, 1, 14), np.float32), np.array([0, 1]))
    np.testing.assert_array_equal(rows[1], control.packed(start)[1])
    assert (ctrl[1] == 0).all()
    assert not np.allclose(rows[0], rows[1])


def test_targets_survive_being_packed():
    targets = controller.move(controller.home(3, robot.HOME_JOINTS), np.full((3, 14), 0.4), PERIOD, robot.HOME_JOINTS)
    again = control.unpacked(control.packed(targets))
    for name in ("position", "orientation", "joints", "finger", "reached", "turned", "jacobian"):
        np.testing.assert_array_equal(getattr(again, name), getattr(targets, name))
