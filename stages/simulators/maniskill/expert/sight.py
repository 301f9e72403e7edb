"""What the expert sees: the true state of b worlds as numpy arrays, read off ManiSkill's environment."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Sight:
    """The state of n worlds with M arms and P objects; the first object is the world's origin.

    Attributes:
        hand: [n, M, 3] the points between the fingers, in metres along the world's axes.
        axes: [n, M, 3, 3] the hands' rotations: their columns are across the palm, along which fingers close, and
            where fingers point.
        opening: [n, M] how far the fingers are apart, in metres.
        base: [n, M] which way the robots look, as angles about the world's z, in radians.
        object: [n, P, 3] where things are.
        yaw: [n, P] how they are turned about z, in radians.
    """

    hand: np.ndarray
    axes: np.ndarray
    opening: np.ndarray
    base: np.ndarray
    object: np.ndarray
    yaw: np.ndarray

    def take(self, rows: np.ndarray) -> Sight:
        """A copy of some worlds."""
        return Sight(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def look(env: Any, names: tuple[str, ...]) -> Sight:
    """Read the state of all worlds of an environment.

    Args:
        env: ManiSkill's `BaseEnv` of b worlds.
        names: its attributes that hold the objects, behind the world's origin: P - 1 of them.
    """
    agents = getattr(env.agent, "agents", [env.agent])
    hands = [_pose(agent.tcp.pose) for agent in agents]
    bases = [_pose(agent.robot.pose) for agent in agents]
    fingers = [_numpy(agent.robot.get_qpos())[:, -2:].sum(axis=1) for agent in agents]
    things = [_pose(getattr(env, name).pose) for name in names]
    origin = np.zeros((env.num_envs, 1, 3))
    return Sight(
        hand=np.stack([position for position, _ in hands], axis=1),
        axes=np.stack([rotation for _, rotation in hands], axis=1),
        opening=np.stack(fingers, axis=1),
        base=np.stack([_heading(rotation) for _, rotation in bases], axis=1),
        object=np.concatenate([origin, *(position[:, None] for position, _ in things)], axis=1),
        yaw=np.concatenate([origin[..., 0], *(_heading(rotation)[:, None] for _, rotation in things)], axis=1),
    )


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4], w first."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _pose(pose: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions [b, 3] and rotations [b, 3, 3]."""
    return _numpy(pose.p), rotation_of(_numpy(pose.q))


def _heading(rotation: np.ndarray) -> np.ndarray:
    heading: np.ndarray = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return heading


def _numpy(tensor: Any) -> np.ndarray:
    """The float64 array of a torch tensor on any device."""
    array: np.ndarray = tensor.detach().cpu().numpy().astype(np.float64)
    return array
