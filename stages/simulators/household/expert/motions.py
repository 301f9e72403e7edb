"""How hands move: what each motion of a plan makes of the true state, over arrays [N worlds, 2 roles]."""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.simulators.household import arm, controller, robot
from stages.simulators.household.expert.plan import Kind, Turn
from stages.simulators.household.expert.tables import Motions
from stages.simulators.household.props import ANY_TURN, QUARTER_TURN
from stages.simulators.household.state import Snapshot

_FUNNEL_RADIUS = 0.012  # within this distance the hand descends all the way, in metres
_FUNNEL_SLOPE = 2.5  # metres up a metre aside beyond that
_ROOM_TO_RISE = 0.04  # metres too low at which a hand does not move aside at all
_CLEAR = 0.002  # what is carried is brought this far above its place, in metres
_LYING = 0.7  # sine of the tilt beyond which a round thing lies on its side

_HOME = arm.forward(robot.HOME_JOINTS[None])[0][0]  # [2, 3] of the left and the right hand


@dataclasses.dataclass
class Sight:
    """What the motions of a stage are about; hands by role, not by side.

    Attributes:
        hand: [N, 2, 3] grip points.
        opening: [N, 2] of the fingers, in metres.
        target: [N, 2, 3] where the controller is sending the hands.
        orientation: [N, 2, 3, 3] how it is turning them.
        item: [N, 2, 3] origin of what is held or about to be.
        axes: [N, 2, 3, 3] its rotation.
        grip: [N, 2, 3] where it is held.
        aim: [N, 2, 3] where the motion leads.
        home: [N, 2, 3] where the hands rest.
    """

    hand: np.ndarray
    opening: np.ndarray
    target: np.ndarray
    orientation: np.ndarray
    item: np.ndarray
    axes: np.ndarray
    grip: np.ndarray
    aim: np.ndarray
    home: np.ndarray


def see(motions: Motions, arms: np.ndarray, state: Snapshot, targets: controller.Targets) -> Sight:
    """Look up what motions are about.

    Args:
        motions: those of N worlds.
        arms: int [N, 2], which arm plays which role.
        state: N worlds.
        targets: where the controller is sending the hands.
    """
    rows = np.arange(len(arms))[:, None]
    hand = state.hand_position[rows, arms]
    count = state.frame_position.shape[1]
    points = np.concatenate([state.frame_position, hand], axis=1)
    upright = np.broadcast_to(np.eye(3), (len(arms), 2, 3, 3))
    turned = np.concatenate([state.frame_rotation, upright], axis=1)

    def frame(numbers: np.ndarray) -> np.ndarray:
        """Numbers in `points`: a plan's last two frames are the hand of the role itself and that of the other one."""
        role = np.arange(2)
        hands = np.where(numbers == count, count + role, count + 1 - role)
        return np.where(numbers < count, numbers, hands)

    held = frame(motions.held)
    item, axes = points[rows, held], turned[rows, held]
    grip = item + _turned(axes, motions.grip_at) + motions.grip_lift
    first, second = frame(motions.ends[..., 0]), frame(motions.ends[..., 1])
    outwards = np.where(arms == 0, 1.0, -1.0)
    offset = motions.offset.copy()
    offset[..., 1] *= np.where(motions.mirrored, outwards, 1.0)
    place = 0.5 * (points[rows, first] + points[rows, second])
    place = place + _turned(turned[rows, first], motions.local) + offset
    return Sight(
        hand=hand,
        opening=state.opening[rows, arms],
        target=targets.position[rows, arms],
        orientation=targets.orientation[rows, arms],
        item=item,
        axes=axes,
        grip=grip,
        aim=np.where(motions.aimed[..., None], place, grip),
        home=_HOME[arms],
    )


def moves(motions: Motions, sight: Sight, timer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where hands go and how they turn in the next step.

    Args:
        motions: those of N worlds.
        sight: what they are about.
        timer: int [N], steps since the stage began.

    Returns:
        Translations and rotation vectors [N, 2, 3], in metres and radians; longer than a step where the way is far.
    """
    kind = motions.kind
    carried = sight.aim + np.array([0.0, 0.0, _CLEAR]) + (sight.hand - sight.item)
    point = np.where((kind == Kind.CARRY)[..., None], carried, sight.aim)
    point = np.where((kind == Kind.REST)[..., None], sight.home, point)
    motion = _through_funnel(sight.target, point, motions.hover)
    backing = kind == Kind.BACK
    motion[backing] = motions.direction[backing]
    still = (kind == Kind.STILL) | (kind == Kind.CLOSE) | (kind == Kind.OPEN)
    motion[still | (backing & (timer[:, None] >= motions.steps))] = 0.0

    outwards = np.sign(sight.home[..., 1])
    yaw = np.where(motions.turn == Turn.GRIP, _grip_yaw(motions, sight.axes), motions.yaw * outwards)
    wanted = controller.rotation_of(_upright(yaw)) @ controller.HAND_DOWN
    turn = controller.rotation_vector(wanted @ np.swapaxes(sight.orientation, -1, -2))
    turn[still | (motions.turn == Turn.KEEP)] = 0.0
    return motion, turn


def _through_funnel(now: np.ndarray, point: np.ndarray, hover: np.ndarray) -> np.ndarray:
    """Motion [N, 2, 3] towards points from above: high while far aside, descending as hands come over them."""
    aside = point[..., :2] - now[..., :2]
    distance = np.sqrt(np.sum(aside * aside, axis=-1))
    height = point[..., 2] + np.clip(_FUNNEL_SLOPE * (distance - _FUNNEL_RADIUS), 0, hover)
    rise = height - now[..., 2]
    # Move sideways only as far as the hand has risen, lest it sweeps things off the table.
    free = np.where(hover > 0, np.clip(1 - rise / _ROOM_TO_RISE, 0, 1), 1.0)
    return np.concatenate([aside * free[..., None], rise[..., None]], axis=-1)


def _grip_yaw(motions: Motions, axes: np.ndarray) -> np.ndarray:
    """Yaw [N, 2] that squares hands to their grips, the nearest of those that look the same."""
    # Of a cube that tumbled, any level edge will do; of a round thing on its side, its axis.
    level = np.where(motions.turns == QUARTER_TURN, np.abs(axes[..., 2, :]).argmin(axis=-1), 0)
    level = np.where(motions.turns == ANY_TURN, 2, level)
    edge = np.take_along_axis(axes, level[..., None, None], axis=-1)[..., 0]
    upright = (motions.turns == ANY_TURN) & (np.abs(edge[..., 2]) > _LYING)
    yaw = np.arctan2(edge[..., 1], edge[..., 0]) + motions.grip_yaw
    period = np.where(motions.turns == QUARTER_TURN, np.pi / 2, np.pi)
    yaw = (yaw + period / 2) % period - period / 2
    result: np.ndarray = np.where(upright, 0.0, yaw)
    return result


def _upright(yaw: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(yaw), np.zeros_like(yaw), yaw], axis=-1)


def _turned(axes: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors [N, 2, 3] in frames' axes, along the world's."""
    result: np.ndarray = np.squeeze(axes @ vector[..., None], -1)
    return result
