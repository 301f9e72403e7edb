"""The R1 Pro as BEHAVIOR drives it: its controllers in either action mode, its cameras and its resting pose.

The tables follow OmniGibson 3.7 (`robots/r1pro.py`, `learning/utils/eval_utils.py`) and 3.9 (`definitions/r1pro.yaml`).
"""

from __future__ import annotations

from typing import Any

NAME = "robot_r1"
EE_DELTA, JOINT = "ee_delta_14", "joint_23"
ACTION_DIM = {EE_DELTA: 14, JOINT: 23}
ORDER = ("base", "trunk", "arm_left", "gripper_left", "arm_right", "gripper_right")
"""The robot's controllers in the order of its action vector."""

POSITION_LIMIT, ROTATION_LIMIT = 0.05, 0.15
"""What the number 1 of a pose delta means: metres, and radians of an axis-angle vector."""

ARMS = ("left", "right")
TRUNK_JOINTS = slice(6, 10)
ARM_JOINTS = {"left": slice(10, 24, 2), "right": slice(11, 24, 2)}  # left and right take turns
FINGER_JOINTS = {"left": slice(24, 26), "right": slice(26, 28)}
FINGER_RANGE = 0.05  # metres, of one finger
REST = (*[0.0] * 6, 1.025, -1.45, -0.47, 0.0, *[0.0] * 14, *[0.05] * 4)
"""Joint angles after a reset: base, trunk, arms, fingers."""

HEAD, LEFT_WRIST, RIGHT_WRIST = "zed_link:Camera:0", "left_realsense_link:Camera:0", "right_realsense_link:Camera:0"
CAMERAS = (HEAD, LEFT_WRIST, RIGHT_WRIST)
"""What the names of the sensors end with."""
FOCAL_LENGTH, APERTURE, HEAD_APERTURE = 17.0, 20.995, 40.0
"""Of every camera when it is made; the head's aperture is widened afterwards, as the demonstrations have it."""

# Base speeds: the number 1 is 0.75 m/s, 0.75 m/s and 1 rad/s in the robot's frame.
_BASE: dict[str, Any] = {
    "name": "HolonomicBaseJointController",
    "motor_type": "velocity",
    "vel_kp": 150,
    "command_input_limits": [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]],
    "command_output_limits": [[-0.75, -0.75, -1.0], [0.75, 0.75, 1.0]],
    "use_impedances": False,
}
# Joint angles as they are, in radians.
_ANGLES: dict[str, Any] = {
    "name": "JointController",
    "motor_type": "position",
    "pos_kp": 150,
    "command_input_limits": None,
    "command_output_limits": None,
    "use_impedances": False,
    "use_delta_commands": False,
}
# 1 opens, -1 closes.
_GRIPPER: dict[str, Any] = {
    "name": "MultiFingerGripperController",
    "mode": "smooth",
    "command_input_limits": "default",
    "command_output_limits": "default",
}
_STILL: dict[str, Any] = {"name": "NullJointController"}  # takes no number and keeps the resting pose


def controllers(action_mode: str, trunk: str, position_limit: float, rotation_limit: float) -> dict[str, Any]:
    """The robot's `controller_config`.

    The base keeps its velocity controller in either mode, because the robot accepts no other. A pose delta is applied
    to the measured pose of the hand in the frame of the base: p + d and R(axis-angle) R.

    Args:
        action_mode: `ee_delta_14` or `joint_23`.
        trunk: what holds the trunk in ee_delta_14: `null_controller` or `joint_controller`.
        position_limit: metres that the number 1 moves a hand.
        rotation_limit: radians that the number 1 turns a hand.

    Returns:
        Group -> the keys of its controller, whole: OmniGibson refuses what is left of another one.
    """
    most = [position_limit] * 3 + [rotation_limit] * 3
    pose: dict[str, Any] = {
        "name": "InverseKinematicsController",
        "mode": "pose_delta_ori",
        "command_input_limits": "default",
        "command_output_limits": [[-number for number in most], most],
    }
    arm = pose if action_mode == EE_DELTA else _ANGLES
    held = action_mode == EE_DELTA and trunk == "null_controller"
    groups = {"base": _BASE, "trunk": _STILL if held else _ANGLES}
    for side in ARMS:
        groups |= {f"arm_{side}": arm, f"gripper_{side}": _GRIPPER}
    return {group: dict(groups[group]) for group in ORDER}


def command_dims(action_mode: str, trunk: str) -> dict[str, int]:
    """How many numbers each of those controllers takes; 17, 21 or 23 together."""
    arm = 6 if action_mode == EE_DELTA else 7
    held = action_mode == EE_DELTA and trunk == "null_controller"
    return {
        "base": 3,
        "trunk": 0 if held else 4,
        "arm_left": arm,
        "gripper_left": 1,
        "arm_right": arm,
        "gripper_right": 1,
    }
