"""The delta-pose controller: kinematics that agree with the engine, targets that stay in reach."""

import mujoco
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.simulators.household import arm, controller, robot, scene
from stages.simulators.household.kit import Scene

PERIOD = 0.05


def _wander(seed: int, worlds: int, moves: int) -> controller.Targets:
    rng = np.random.default_rng(seed)
    targets = controller.home(worlds, robot.HOME_JOINTS)
    for _ in range(moves):
        action = np.clip(rng.normal(0, 0.8, (worlds, 14)), -1, 1)
        for _ in range(6):
            targets = controller.move(targets, action, PERIOD, robot.HOME_JOINTS)
    return targets


def test_kinematics_agree_with_the_engine():
    model = mujoco.MjModel.from_xml_string(scene.build(Scene(()), 200, 64))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    joints = rng.uniform(arm.JOINT_LOW, arm.JOINT_HIGH, (2, 7))
    for side, angles in zip(robot.SIDES, joints, strict=True):
        for i, angle in enumerate(angles):
            data.joint(f"{side}_joint{i + 1}").qpos = angle
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    position, orientation, jacobian = arm.forward(joints[None])
    for j, side in enumerate(robot.SIDES):
        site = data.site(f"{side}_grip")
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, data, linear, angular, site.id)
        columns = [model.joint(f"{side}_joint{i + 1}").dofadr[0] for i in range(7)]
        np.testing.assert_allclose(position[0, j], site.xpos, atol=1e-9)
        np.testing.assert_allclose(orientation[0, j].ravel(), site.xmat, atol=1e-9)
        np.testing.assert_allclose(jacobian[0, j], np.concatenate([linear, angular])[:, columns], atol=1e-9)


@given(st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3))
def test_rotation_vectors_and_matrices_are_each_others_inverse(vector):
    matrix = controller.rotation_of(np.array(vector))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(controller.rotation_vector(matrix), vector, atol=1e-6)


def test_a_full_action_moves_the_target_four_centimetres_and_a_quarter_radian():
    before = controller.home(1, robot.HOME_JOINTS)
    action = np.zeros((1, 14))
    action[0, 0] = action[0, 5] = 1.0
    after = controller.move(before, action, PERIOD, robot.HOME_JOINTS)
    np.testing.assert_allclose(after.position[0, 0] - before.position[0, 0], [0.04, 0, 0], atol=1e-9)
    turned = controller.rotation_vector(after.orientation[0, 0] @ before.orientation[0, 0].T)
    np.testing.assert_allclose(turned, [0, 0, 0.25], atol=1e-6)
    np.testing.assert_array_equal(after.position[0, 1], before.position[0, 1])


def test_the_gripper_opens_above_zero_closes_below_and_stays_at_zero():
    targets = controller.home(1, robot.HOME_JOINTS)
    action = np.zeros((1, 14))
    for command, expected in [(-0.1, controller.FINGER_CLOSED), (0.0, controller.FINGER_CLOSED), (0.1, 0.05)]:
        action[0, 6] = command
        targets = controller.move(targets, action, PERIOD, robot.HOME_JOINTS)
        assert targets.finger[0, 0] == expected
        assert targets.finger[0, 1] == controller.FINGER_OPEN


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_wherever_random_actions_lead_targets_stay_in_reach_and_every_place_in_reach_is_reached_again(seed):
    targets = _wander(seed, worlds=16, moves=12)
    reached, _, _ = arm.forward(targets.joints)
    assert np.abs(targets.position - reached).max() <= 0.02
    assert (targets.joints >= arm.JOINT_LOW).all()
    assert (targets.joints <= arm.JOINT_HIGH).all()

    low, high = controller.WORKSPACE_LOW, controller.WORKSPACE_HIGH
    place = np.random.default_rng(seed).uniform(low, high, targets.position.shape)
    place = np.where(arm.reaches(place)[..., None], place, [-0.05, 0.0, 0.1])
    for _ in range(60):
        upright = controller.rotation_vector(controller.HAND_DOWN @ np.swapaxes(targets.orientation, -1, -2))
        action = np.zeros((16, 2, 7))
        action[..., :3] = np.clip((place - targets.position) / 0.04, -0.6, 0.6)
        action[..., 3:6] = np.clip(upright / 0.25, -0.6, 0.6)
        targets = controller.move(targets, action.reshape(16, 14), PERIOD, robot.HOME_JOINTS)
    reached, _, _ = arm.forward(targets.joints)
    assert np.linalg.norm(reached - place, axis=-1).max() < 0.005
