"""From 14 and 23 numbers to the robot's 17, 21 and 23, and what holding still takes."""

from __future__ import annotations

import numpy as np
import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import robot
from stages.simulators.omnigibson.actions import ActionMapping, gripper_commands

# The joints in their order: 6 base, 4 trunk, arms taking turns, two fingers a hand.
JOINTS = np.arange(28) / 100
FOURTEEN = np.arange(1, 15) / 100


@pytest.mark.parametrize(
    ("mode", "trunk", "wanted"),
    [
        ("ee_delta_14", "null_controller", [0, 0, 0, *FOURTEEN]),
        ("ee_delta_14", "joint_controller", [0, 0, 0, 1.025, -1.45, -0.47, 0, *FOURTEEN]),
        ("joint_23", "null_controller", np.arange(23) / 10),
    ],
)
def test_a_policys_numbers_go_where_they_belong(mode, trunk, wanted):
    mapping = ActionMapping(mode, trunk)
    action = np.arange(23) / 10 if mode == "joint_23" else FOURTEEN
    command = mapping.command(action)
    assert command.dtype == np.float32
    np.testing.assert_allclose(command, wanted, rtol=1e-6)
    grippers = (action[14], action[22]) if mode == "joint_23" else (action[6], action[13])
    assert tuple(mapping.grippers(action)) == grippers


def test_holding_still_in_joint_23_is_where_the_joints_are():
    held = ActionMapping("joint_23", "null_controller").hold(JOINTS, np.array([0.5, -1]))
    left, right = JOINTS[[10, 12, 14, 16, 18, 20, 22]], JOINTS[[11, 13, 15, 17, 19, 21, 23]]
    np.testing.assert_allclose(held, [0, 0, 0, *JOINTS[6:10], *left, 0.5, *right, -1], rtol=1e-6)


@pytest.mark.parametrize(("trunk", "rest"), [("null_controller", []), ("joint_controller", [1.025, -1.45, -0.47, 0])])
def test_holding_still_in_ee_delta_14_is_no_delta_and_the_grip_it_had(trunk, rest):
    held = ActionMapping("ee_delta_14", trunk).hold(JOINTS, np.array([0.5, -1]))
    np.testing.assert_allclose(held, [0, 0, 0, *rest, *[0] * 6, 0.5, *[0] * 6, -1], rtol=1e-6)


def test_fingers_tell_the_command_that_holds_them():
    joints = JOINTS.copy()
    joints[24:] = [0, 0, 0.05, 0.05]
    assert gripper_commands(joints).tolist() == [-1, 1]


@pytest.mark.parametrize(("fault", "found"), [
    ("action_dim", "18 numbers (base 3, trunk 0, arm_left 6, gripper_left 1, arm_right 6, gripper_right 1)"),
    ("controller_order", "17 numbers (base 3, trunk 0, arm_right 6, gripper_right 1, arm_left 6, gripper_left 1)"),
])  # fmt: skip
def test_a_robot_that_is_driven_otherwise_is_refused(make, monkeypatch, fault, found):
    monkeypatch.setenv("FAKE_OMNIGIBSON_FAULT", fault)
    with pytest.raises(SimulatorConfigError) as caught:
        make("b", 1)
    assert str(caught.value) == (
        f"omnigibson: the robot takes {found}, expected 17 (base 3, trunk 0, arm_left 6, gripper_left 1, arm_right 6, "
        "gripper_right 1) for action_mode ee_delta_14: set simulator.options.trunk=joint_controller, or run "
        "`baton doctor --simulator omnigibson CONFIG`"
    )


@pytest.mark.parametrize(("options", "dimension"), [
    ({}, 17), ({"trunk": "joint_controller"}, 21), ({"action_mode": "joint_23"}, 23),
])  # fmt: skip
def test_the_robot_takes_as_many_numbers_as_expected(make, options, dimension):
    assert make("b_fork", 1, **options).worlds.robots[0].action_dim == dimension


def test_a_pose_delta_moves_the_hand_by_its_limit_in_the_bases_frame(make):
    from stages.simulators.interface import Episode

    simulator = make("b_fork", 1, position_limit=0.02, rotation_limit=0.1)
    simulator.reset([0], [Episode("turning_on_radio", 0)], [False])
    before = simulator.observe([0]).proprio[0]
    action = np.zeros((1, 1, 14), np.float32)
    action[0, 0, 0], action[0, 0, 8], action[0, 0, 12] = 1, -0.5, 1  # left x, right y, right turns about z
    simulator.step_chunk([0], action)
    after = simulator.observe([0]).proprio[0]
    moved = after - before
    np.testing.assert_allclose(moved[:3], [0.02, 0, 0], atol=1e-6)
    np.testing.assert_allclose(moved[9:12], [0, -0.01, 0], atol=1e-6)
    np.testing.assert_allclose(after[12:16], [0, 0, np.sin(0.05), np.cos(0.05)], atol=1e-6)  # xyzw
    np.testing.assert_allclose(after[7:9], [0.025, 0.025], atol=1e-6)  # 0 is half open
    assert robot.REST[24] == 0.05
