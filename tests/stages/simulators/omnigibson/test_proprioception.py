"""The places of proprioception, and the lists of keys that have a name."""

from __future__ import annotations

import numpy as np
import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson.proprioception import (
    PRESETS,
    SLICES,
    SLICES_2026,
    Selection,
    keys_of,
    select,
    size,
    sources,
)

# PROPRIOCEPTION_INDICES["R1Pro"] as OmniGibson 3.7 has it.
TABLE = """
joint_qpos 0:28, joint_qpos_sin 28:56, joint_qpos_cos 56:84, joint_qvel 84:112, joint_qeffort 112:140,
robot_pos 140:143, robot_ori_cos 143:146, robot_ori_sin 146:149, robot_2d_ori 149:150, robot_2d_ori_cos 150:151,
robot_2d_ori_sin 151:152, robot_lin_vel 152:155, robot_ang_vel 155:158, arm_left_qpos 158:165,
arm_left_qpos_sin 165:172, arm_left_qpos_cos 172:179, arm_left_qvel 179:186, eef_left_pos 186:189,
eef_left_quat 189:193, gripper_left_qpos 193:195, gripper_left_qvel 195:197, arm_right_qpos 197:204,
arm_right_qpos_sin 204:211, arm_right_qpos_cos 211:218, arm_right_qvel 218:225, eef_right_pos 225:228,
eef_right_quat 228:232, gripper_right_qpos 232:234, gripper_right_qvel 234:236, trunk_qpos 236:240,
trunk_qvel 240:244, base_qpos 244:247, base_qpos_sin 247:250, base_qpos_cos 250:253, base_qvel 253:256
"""
TABLE_2026 = """
base_qvel 0:3, arm_left_qpos 3:10, arm_left_qvel 10:17, eef_left_pos 17:20, eef_left_quat 20:24,
gripper_left_qpos 24:26, gripper_left_qvel 26:28, arm_right_qpos 28:35, arm_right_qvel 35:42, eef_right_pos 42:45,
eef_right_quat 45:49, gripper_right_qpos 49:51, gripper_right_qvel 51:53, trunk_qpos 53:57, trunk_qvel 57:61
"""


def places(table: str) -> dict[str, tuple[int, int]]:
    entries = (entry.split() for entry in table.replace("\n", " ").split(","))
    return {key: tuple(map(int, place.split(":"))) for key, place in entries}


@pytest.mark.parametrize(("slices", "table", "length"), [(SLICES, TABLE, 256), (SLICES_2026, TABLE_2026, 61)])
def test_every_key_is_where_the_challenge_has_it(slices, table, length):
    assert slices == places(table)
    assert max(end for _, end in slices.values()) == length


def test_the_state_of_published_policies():
    """`behavior_policy.extract_state_from_proprio`: base velocity, trunk, arms, and both widths last."""
    state = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    wanted = [state[:, 253:256], state[:, 236:240], state[:, 158:165], state[:, 197:204]]
    wanted += [state[:, 193:195].sum(1, keepdims=True), state[:, 232:234].sum(1, keepdims=True)]
    np.testing.assert_array_equal(select(state, PRESETS["joints_23"]), np.concatenate(wanted, axis=1))
    assert size(PRESETS["joints_23"]) == 23


@pytest.mark.parametrize("name", PRESETS)
def test_what_the_robot_is_asked_for_is_what_is_taken(name):
    keys = PRESETS[name]
    state = np.arange(256.0)
    asked = np.concatenate([state[slice(*SLICES[key])] for key in sources(keys)])
    np.testing.assert_array_equal(Selection(keys).take(asked), select(state, keys))


def test_another_length_is_refused():
    with pytest.raises(SimulatorConfigError) as caught:
        Selection(["base_qvel", "trunk_qpos"]).take(np.zeros(8))
    assert str(caught.value) == (
        "omnigibson: the robot's proprioception has 8 numbers, expected 7 for base_qvel, trunk_qpos: this build of "
        "OmniGibson has other sizes; run `baton doctor`"
    )


def test_keys_are_checked():
    assert keys_of(["trunk_qpos"], "ee_delta_14") == ("trunk_qpos",)
    with pytest.raises(SimulatorConfigError) as caught:
        keys_of(["trunk"], "ee_delta_14")
    assert str(caught.value) == (
        f"omnigibson: proprio_keys has no 'trunk'; valid: {', '.join([*SLICES, 'gripper_width_left'])}, "
        "gripper_width_right"
    )


@pytest.mark.parametrize("build", ["b_fork", "c"])
def test_the_numbers_come_from_the_robot(make, build):
    from stages.simulators.interface import Episode

    simulator = make(build, 1, action_mode="joint_23")
    simulator.reset([0], [Episode("turning_on_radio", 0)], [False])
    action = np.zeros((1, 1, 23), np.float32)
    action[0, 0] = [0.5, 0, 0, *[0.1] * 4, *[0.2] * 7, 1, *[0.3] * 7, -1]
    simulator.step_chunk([0], action)
    told = simulator.observe([0]).proprio[0]
    np.testing.assert_allclose(told, [0.375, 0, 0, *[0.1] * 4, *[0.2] * 7, *[0.3] * 7, 0.1, 0], atol=1e-6)
