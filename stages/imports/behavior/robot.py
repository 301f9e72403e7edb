"""The R1 Pro's recorded commands as actions of a policy: 23 numbers as they are, or 14 of the arms alone.

A recorded action is a command: base velocity, absolute angles of trunk and arms, grippers in [-1, 1]. Moves of the
hands are therefore taken from the measured poses of two frames, which are relative to the base; they tell what the
arms did only while base and trunk stand still.

Shapes: T frames.
"""

from __future__ import annotations

import numpy as np

from stages.simulators.omnigibson.proprioception import SLICES
from stages.simulators.omnigibson.robot import ARMS

HAND_POSITIONS = tuple(slice(*SLICES[f"eef_{arm}_pos"]) for arm in ARMS)  # metres in the base's frame
HAND_ROTATIONS = tuple(slice(*SLICES[f"eef_{arm}_quat"]) for arm in ARMS)  # quaternions x, y, z, w
TRUNK_VELOCITY, BASE_VELOCITY = slice(*SLICES["trunk_qvel"]), slice(*SLICES["base_qvel"])
GRIPPERS = (14, 22)  # of an action, left and right, +1 open
STILL = 0.02  # m/s and rad/s; the drives of base and trunk never rest altogether
RECORDED = 23


def convert(
    actions: np.ndarray, states: np.ndarray, action_dim: int, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Recorded actions as a policy of so many numbers would give them.

    Args:
        actions: float32 [T, 23].
        states: float32 [T, 256].
        action_dim: 23: the recorded numbers; 14: for each arm how the hand moves until the next frame (3 positions,
            3 rotations as an axis times an angle in the base's frame, in units of the limits) and its gripper.
        limits: metres and radians that the number 1 stands for.

    Returns:
        float32 [T, action_dim] and bool [T], which of them can be learnt from: all of 23 numbers; of 14 those between
        frames at which base and trunk stand still, within the limits.
    """
    if action_dim == RECORDED:
        return actions.astype(np.float32), np.ones(len(actions), bool)
    following = np.append(np.arange(1, len(states)), len(states) - 1)
    velocities = np.concatenate([states[:, TRUNK_VELOCITY], states[:, BASE_VELOCITY]], axis=1)
    still = (np.abs(velocities) <= STILL).all(axis=1)
    usable = still & still[following]
    usable[-1] = False  # nothing tells where its action led
    parts = []
    for position, rotation, gripper in zip(HAND_POSITIONS, HAND_ROTATIONS, GRIPPERS, strict=True):
        move = (states[following, position] - states[:, position]) / limits[0]
        turn = rotation_between(states[:, rotation], states[following, rotation]) / limits[1]
        parts += [move, turn, actions[:, gripper : gripper + 1]]
    moves = np.concatenate(parts, axis=1).astype(np.float32)
    usable &= (np.abs(moves) <= 1).all(axis=1)
    return np.clip(moves, -1, 1), usable


def rotation_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The rotation R of after = R before, in the frame that both are in.

    Args:
        before: quaternions [T, 4] as x, y, z, w.
        after: the same.

    Returns:
        [T, 3], the axis times the angle, which is at most pi.
    """
    before, after = (one.astype(np.float64) / np.linalg.norm(one, axis=1, keepdims=True) for one in (before, after))
    inverse, w0 = -before[:, :3], before[:, 3:]
    vector, w1 = after[:, :3], after[:, 3:]
    # Hamilton's product of `after` and the conjugate of `before`.
    axis = w1 * inverse + w0 * vector + np.cross(vector, inverse)
    real = w1 * w0 - (vector * inverse).sum(axis=1, keepdims=True)
    axis, real = np.where(real < 0, -axis, axis), np.abs(real)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    # For small angles the angle is twice the sine of its half.
    scale = np.where(sine > 1e-9, 2 * np.arctan2(sine, real) / np.maximum(sine, 1e-9), 2.0)
    return axis * scale
