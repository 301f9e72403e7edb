"""Kinematics of one seven-joint arm: what the scene is built from and the controller inverts.

The dimensions are those that the maker of the Panda arm publishes (its Denavit-Hartenberg table and joint limits).
"""

from __future__ import annotations

import math

import numpy as np

JOINTS = 7
_R = math.sqrt(0.5)

# Pose of each link in the frame of the one before it, at joint angle zero: position in metres, quaternion (w, x, y, z).
LINK_POSITIONS = np.array(
    [[0, 0, 0.333], [0, 0, 0], [0, -0.316, 0], [0.0825, 0, 0], [-0.0825, 0.384, 0], [0, 0, 0], [0.088, 0, 0]]
)
LINK_QUATERNIONS = np.array(
    [[1, 0, 0, 0], [_R, -_R, 0, 0], [_R, _R, 0, 0], [_R, _R, 0, 0], [_R, -_R, 0, 0], [_R, _R, 0, 0], [_R, _R, 0, 0]]
)
JOINT_LOW = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
JOINT_HIGH = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])

# The hand is turned by -45 degrees on the last link, so that at q7 = 45 degrees its fingers open sideways.
HAND_POSITION = np.array([0.0, 0.0, 0.107])
HAND_QUATERNION = np.array([math.cos(math.pi / 8), 0, 0, -math.sin(math.pi / 8)])
GRIP_HEIGHT = 0.105  # from the hand's origin to the point between the finger tips

# Where the two arms stand, left then right: the robot looks along +x, the table top is z = 0.
BASES = np.array([[-0.58, 0.18, 0.0], [-0.58, -0.18, 0.0]])

# With the hand pointing straight down, grip points within this distance of a point over the base are in reach.
_REACH, _REACH_CENTRE = 0.80, np.array([0.0, 0.0, 0.121])


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4] (w, x, y, z)."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _transforms(positions: np.ndarray, quaternions: np.ndarray) -> np.ndarray:
    """Homogeneous transforms [..., 4, 4] of positions [..., 3] and quaternions [..., 4]."""
    out = np.zeros((*positions.shape[:-1], 4, 4))
    out[..., :3, :3] = rotation(quaternions)
    out[..., :3, 3] = positions
    out[..., 3, 3] = 1
    return out


LINKS = _transforms(LINK_POSITIONS, LINK_QUATERNIONS)  # [7, 4, 4]
GRIP = _transforms(HAND_POSITION, HAND_QUATERNION) @ _transforms(np.array([0, 0, GRIP_HEIGHT]), np.array([1, 0, 0, 0]))


def reaches(position: np.ndarray) -> np.ndarray:
    """Whether the left and the right arm can bring a hand that points down to grip points.

    Args:
        position: [..., 2, 3] in metres, one grip point an arm.

    Returns:
        bool [..., 2].
    """
    away = position - (BASES + _REACH_CENTRE)
    result: np.ndarray = np.sum(away * away, axis=-1) <= _REACH**2
    return result


def forward(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose of the grip points and how the joints move them.

    Args:
        joints: [N, 2, 7] joint angles of the left and the right arm, in radians.

    Returns:
        position: [N, 2, 3] in metres, in the world.
        orientation: [N, 2, 3, 3] rotation matrices in the world.
        jacobian: [N, 2, 6, 7], linear velocity then angular velocity of the grip point by joint velocities.
    """
    cos, sin = np.cos(joints)[..., None], np.sin(joints)[..., None]
    frames = np.empty((*joints.shape, 4, 4))  # of each link relative to the one before it, then to the base
    frames[...] = LINKS
    frames[..., 0] = LINKS[..., 0] * cos + LINKS[..., 1] * sin
    frames[..., 1] = LINKS[..., 1] * cos - LINKS[..., 0] * sin
    for i in range(1, JOINTS):
        frames[..., i, :, :] = frames[..., i - 1, :, :] @ frames[..., i, :, :]
    grip = frames[..., -1, :, :] @ GRIP
    axes = frames[..., :3, 2]  # [N, 2, 7, 3]: every joint turns about its link's z
    arms = grip[..., None, :3, 3] - frames[..., :3, 3]
    jacobian = np.empty((*joints.shape[:-1], 6, JOINTS))
    jacobian[..., 0, :] = axes[..., 1] * arms[..., 2] - axes[..., 2] * arms[..., 1]
    jacobian[..., 1, :] = axes[..., 2] * arms[..., 0] - axes[..., 0] * arms[..., 2]
    jacobian[..., 2, :] = axes[..., 0] * arms[..., 1] - axes[..., 1] * arms[..., 0]
    jacobian[..., 3:, :] = np.swapaxes(axes, -1, -2)
    return grip[..., :3, 3] + BASES, grip[..., :3, :3], jacobian
