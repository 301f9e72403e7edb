"""How hands move: proportional control towards where a stage leads, over arrays [n worlds, M arms]."""

from __future__ import annotations

import numpy as np

from stages.simulators.maniskill.expert.plan import Kind
from stages.simulators.maniskill.expert.sight import Sight
from stages.simulators.maniskill.expert.tables import Stages

REACH = 0.1  # metres and radians of an action of 1, `pos_upper` and `rot_upper` of ManiSkill's pd_ee_delta_pose
CLEAR = 0.07  # metres over where it was put at which a hand is off a thing
_GAIN = 1.2  # share of the way that an action asks for
_FASTEST = 0.8  # the largest number of a translation
_FASTEST_TURN = 1.0
_FUNNEL_RADIUS = 0.012  # within this distance the hand descends all the way, in metres
_FUNNEL_SLOPE = 2.0  # metres up a metre aside beyond that
_ROOM_TO_RISE = 0.05  # metres too low at which a hand does not move aside at all


def way(stages: Stages, sight: Sight) -> np.ndarray:
    """Where hands are to go from where they are: [n, M, 3] in metres along the world's axes."""
    rows = np.arange(len(sight.hand))[:, None]
    end = sight.object[rows, stages.to] + stages.offset
    carried = (stages.kind == Kind.CARRY)[..., None]
    end = np.where(carried, end + sight.hand - sight.object[rows, stages.item], end)
    motion = _through_funnel(sight.hand, end, stages.hover)
    rising = stages.kind == Kind.RISE
    motion[rising] = np.array([0.0, 0.0, 1.0]) * (motion[rising, 2:] + CLEAR)
    motion[(stages.kind == Kind.CLOSE) | (stages.kind == Kind.OPEN)] = 0.0
    return motion


def turn(stages: Stages, sight: Sight) -> np.ndarray:
    """How hands are to turn: rotation vectors [n, M, 3] about the world's axes, in radians.

    A hand that reaches for a thing, or closes around it, squares itself to its nearest side, one that goes to a place
    to the robot; others stay turned as they are. All keep their fingers down, or tilted away from the robot.
    """
    rows = np.arange(len(sight.hand))[:, None]
    # The palm's axis looks ahead when fingers point down.
    now = np.arctan2(sight.axes[..., 1, 0], sight.axes[..., 0, 0])
    square = np.select(
        [(stages.kind == Kind.REACH) | (stages.kind == Kind.CLOSE), stages.kind == Kind.GO],
        [sight.yaw[rows, stages.item], sight.base],
        default=now,
    )
    heading = now + _quarter(square - now)
    ahead = np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=-1)
    down = np.array([0.0, 0.0, -1.0])
    sine, cosine = np.sin(stages.tilt)[..., None], np.cos(stages.tilt)[..., None]
    pointing = sine * ahead + cosine * down
    closing = np.cross(down, ahead)
    wanted = np.stack([np.cross(closing, pointing), closing, pointing], axis=-1)
    return _rotation_vector(wanted @ np.swapaxes(sight.axes, -1, -2))


def commands(motion: np.ndarray, turning: np.ndarray, shut: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The numbers of ManiSkill's pd_ee_delta_pose: per arm a translation, a rotation and the gripper.

    Both are in the frame of the robot's base; ManiSkill multiplies rotations by their lower bound, so the robot turns
    against the sign that it is told.

    Args:
        motion: [n, M, 3] metres.
        turning: [n, M, 3] radians.
        shut: bool [n, M], fingers closed.
        base: [n, M] which way the robots look, in radians.

    Returns:
        [n, M * 7] in [-1, 1].
    """
    parts = [_limited(_into_base(motion, base), _FASTEST), -_limited(_into_base(turning, base), _FASTEST_TURN)]
    gripper = np.where(shut, -1.0, 1.0)[..., None]
    return np.concatenate([*parts, gripper], axis=-1).reshape(len(motion), -1)


def _through_funnel(now: np.ndarray, end: np.ndarray, hover: np.ndarray) -> np.ndarray:
    """Motion [n, M, 3] towards ends from above: high while far aside, descending as hands come over them."""
    aside = end[..., :2] - now[..., :2]
    distance = np.sqrt(np.sum(aside * aside, axis=-1))
    height = end[..., 2] + np.clip(_FUNNEL_SLOPE * (distance - _FUNNEL_RADIUS), 0, hover)
    rise = height - now[..., 2]
    # Move sideways only as far as the hand has risen, lest it sweeps things off the table.
    free = np.where(hover > 0, np.clip(1 - rise / _ROOM_TO_RISE, 0, 1), 1.0)
    return np.concatenate([aside * free[..., None], rise[..., None]], axis=-1)


def _limited(wanted: np.ndarray, most: float) -> np.ndarray:
    """Actions [n, M, 3]; one factor for all axes keeps a motion on a straight line."""
    numbers = _GAIN * wanted / REACH
    largest = np.abs(numbers).max(axis=-1, keepdims=True)
    limited: np.ndarray = numbers / np.maximum(largest / most, 1.0)
    return limited


def _into_base(vector: np.ndarray, base: np.ndarray) -> np.ndarray:
    cosine, sine = np.cos(base), np.sin(base)
    x, y, z = np.moveaxis(vector, -1, 0)
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, z], axis=-1)


def _quarter(angle: np.ndarray) -> np.ndarray:
    """Angles brought within an eighth of a turn of zero by quarter turns."""
    nearest: np.ndarray = (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4
    return nearest


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle [..., 3] of rotations [..., 3, 3] by less than half a turn."""
    skew = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    double_sine = np.sqrt(np.sum(skew * skew, axis=-1, keepdims=True))
    trace = np.trace(rotation, axis1=-2, axis2=-1)[..., None]
    angle = np.arctan2(double_sine, trace - 1)
    vector: np.ndarray = skew * np.where(double_sine > 1e-9, angle / np.maximum(double_sine, 1e-9), 0.5)
    return vector
