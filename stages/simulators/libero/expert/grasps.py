"""How a thing is best gripped from above: across a side that fits between the fingers, or by its rim."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from stages.simulators.libero.expert.scene import Body, Boxes, Hand, Scene

STEEP = 0.8  # sine of the tilt from which on fingers that open level do not fit what they are to grip
_WIDEST = 0.07  # metres between the pads that a thing may fill; they open 0.08
_RIM = 0.004  # metres from a rim's outside to the middle of its wall
_RIM_DEPTH = 0.008  # metres below a rim at which the pads hold it
_ROUND = 0.9  # ratio of the sides of what counts as round
_FINGER_LENGTH = 0.025  # metres of a thing that fit between its grip and the palm
_FLOOR = 0.014  # metres that the grip stays above what the thing stands on, for the fingertips
_ENDS = 0.015  # metres from a thing's ends that the middle of the pads stays
_ROOM = 0.012  # metres wanted between the open hand and what stands around
_EASY = (0.46, 0.68)  # metres from the arm's base, seen from above, between which it is neither folded nor stretched
_DIRECTIONS = 24  # of a rim's sides that are considered
_ASIDE = (0.0, 0.025)  # metres that the hand may come inside of a rim, where there is no room outside

# Points of the open hand, in its frame (fingers open along x and point along z): fingertips, their roots, the palm.
_TIPS = [(x, y, 0.0125) for x in (-0.055, -0.039, 0.039, 0.055) for y in (-0.009, 0.009)]
_ROOTS = [(x, y, -0.022) for x in (-0.064, -0.045, 0.045, 0.064) for y in (-0.01, 0.01)]
_PALM = [(x, y, -0.034) for x in (-0.1, -0.05, 0.0, 0.05, 0.1) for y in (-0.019, 0.019)]
_OPEN_HAND = np.array(_TIPS + _ROOTS + _PALM)


@dataclasses.dataclass(frozen=True)
class Grasp:
    """Where and how a thing is gripped.

    Attributes:
        point: [3] between the shut pads, in the thing's frame.
        across: [3] where the fingers open, in the thing's frame; outwards at a rim.
        aside: metres against `across` that the open hand comes down beside the point.
    """

    point: np.ndarray
    across: np.ndarray
    aside: float = 0.0

    def held(self, item: Body) -> np.ndarray:
        """The point [3] in the world."""
        place: np.ndarray = item.position + item.rotation @ self.point
        return place

    def reached(self, item: Body) -> np.ndarray:
        """Where the open hand goes, [3] in the world."""
        place: np.ndarray = item.position + item.rotation @ (self.point - self.aside * self.across)
        return place

    def opening(self, item: Body, hand: Hand) -> np.ndarray:
        """Where the first finger opens, [3] in the world: of the two ways, the one nearer to how the hand is turned."""
        across: np.ndarray = item.rotation @ self.across
        return across if across @ hand.rotation[:, 0] >= 0 else -across


def pointing_down(across: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] of a hand that points down and opens along the level part of `across` [3]."""
    opening = np.array([across[0], across[1], 0.0])
    opening /= np.linalg.norm(opening)
    down = np.array([0.0, 0.0, -1.0])
    return np.stack([opening, np.cross(down, opening), down], axis=1)


def turn(opening: np.ndarray, hand: Hand) -> np.ndarray:
    """Rotation vector [3] that lets the hand point down and its first finger open towards `opening` [3]."""
    rotation = pointing_down(opening) @ hand.rotation.T
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1.0, 1.0))
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    vector: np.ndarray = axis * (0.5 if angle < 1e-6 else angle / (2 * np.sin(angle)))
    return vector


def choose(scene: Scene, attempt: int) -> Grasp:
    """The grasp that takes little turning and keeps clear of what stands around.

    Args:
        scene: the world.
        attempt: how often the thing was gripped in vain; further attempts take the next best grasp in turn.
    """
    item, hand, others, base = scene.item, scene.hand, scene.others, scene.base
    grasps = list(_grasps(item))
    costs = [_cost(grasp, item, hand, others, base) for grasp in grasps]
    order = np.argsort(costs, kind="stable")
    return grasps[order[attempt % min(3, len(order))]]


def _grasps(item: Body) -> Iterator[Grasp]:
    """Ways to grip a thing as it lies."""
    local = (item.boxes.corners() - item.position) @ item.rotation
    low, high = local.min(axis=0), local.max(axis=0)
    for axis in range(3):
        sides = np.delete(high - low, axis)
        if sides.min() > _WIDEST and sides.min() > _ROUND * sides.max():
            yield from _by_rim(item, low, high, axis)
            return
    yield from _across(item, low, high)


def _across(item: Body, low: np.ndarray, high: np.ndarray) -> Iterator[Grasp]:
    """Across the level sides of a box that are narrow enough."""
    size = high - low
    up = int(np.abs(item.rotation[2]).argmax())
    upwards = np.sign(item.rotation[2, up])
    # Fingers reach down to the middle of what is low, and as far as the palm lets them down what is high.
    height = max(size[up] / 2, size[up] - _FINGER_LENGTH, min(_FLOOR, size[up] - 0.004))
    point = (low + high) / 2
    point[up] += upwards * (height - size[up] / 2)
    level = [axis for axis in range(3) if axis != up]
    narrow = [axis for axis in level if size[axis] <= _WIDEST] or [min(level, key=lambda axis: size[axis])]
    for axis in narrow:
        along = next(other for other in level if other != axis)
        room = max(size[along] / 2 - _ENDS, 0.0)
        for shift in (0.0, 0.5 * room, -0.5 * room, room, -room):
            yield Grasp(point + shift * np.eye(3)[along], np.eye(3)[axis])


def _by_rim(item: Body, low: np.ndarray, high: np.ndarray, up: int) -> Iterator[Grasp]:
    """By the wall of a round vessel that is open along its axis `up`, all around."""
    level = [axis for axis in range(3) if axis != up]
    for angle in 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS:
        outwards = np.zeros(3)
        outwards[level] = np.cos(angle), np.sin(angle)
        if abs(item.rotation[2] @ outwards) > STEEP:
            continue
        point = (low + high) / 2 + outwards * ((high - low)[level].min() / 2 - _RIM)
        point[up] = high[up] - _RIM_DEPTH
        for aside in _ASIDE:
            yield Grasp(point, outwards, aside)


def _cost(grasp: Grasp, item: Body, hand: Hand, others: Boxes, base: np.ndarray) -> float:
    """Radians to turn, and what all that speaks against a grasp is worth in those."""
    across, place = grasp.opening(item, hand), grasp.reached(item)
    turned = pointing_down(across)
    turn = np.arccos(np.clip(turned[:, 0] @ hand.rotation[:, 0], -1.0, 1.0))
    tilt = abs(across[2])
    reach = float(np.hypot(*(place - base)[:2]))
    strain = max(0.0, _EASY[0] - reach, 2 * (reach - _EASY[1]))  # a straight elbow is the worse
    crowd = max(0.0, _ROOM - others.distance(_OPEN_HAND @ turned.T + place))
    return float(turn + 3 * tilt + 30 * strain + 250 * crowd + 20 * grasp.aside)
