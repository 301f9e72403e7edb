"""The ways of the hand past what stands around: how high it passes, and how a thing comes out from under another."""

from __future__ import annotations

import numpy as np

from stages.simulators.libero.expert.scene import Body, Boxes, Scene

_MARGIN = 0.02  # metres kept above what is passed over
_FINGERTIP = 0.013  # metres that the fingers reach below the grip
_HAND_RADIUS = 0.07  # metres around the grip that the open hand takes up
_DIRECTIONS = 2 * np.pi * np.arange(16) / 16  # in which a thing may be drawn out
_LENGTHS = (0.0, 0.015, 0.03, 0.045, 0.06)  # metres that it is drawn
_LIFTS = np.linspace(0.004, 0.08, 8)  # metres that it rises without touching anything
_TOP = 0.01  # metres below a thing's highest point that may touch what is above it
_GAP = 0.002  # metres kept from that


def height_to(scene: Scene, grip: np.ndarray) -> float:
    """How high the open hand passes on its way to a grip [3] on the item, in metres."""
    top = max(_highest(scene.others, scene.hand.position, grip, _HAND_RADIUS), _top(scene.item))
    return float(max(top + _MARGIN + _FINGERTIP, grip[2]))


def height_with(scene: Scene) -> float:
    """How high the item's origin passes on its way to its place, in metres."""
    item = scene.item
    low, high = item.boxes.bounds()
    radius = float(np.max(high[:, :2].max(axis=0) - low[:, :2].min(axis=0)) / 2)
    place = scene.place(item)
    top = _highest(scene.others, item.position, place, radius)
    return float(max(top + _MARGIN + item.position[2] - low[:, 2].min(), place[2]))


def way_out(scene: Scene) -> np.ndarray:
    """The shortest level way [3] from under what is above the item, zeros where it can be lifted as it is."""
    item, others = scene.item, scene.others
    corners = item.boxes.corners()
    top = corners[corners[:, 2] > _top(item) - _TOP]
    outwards = np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS), np.zeros(len(_DIRECTIONS))], axis=1)
    outline = top[np.unique((outwards @ top.T).argmax(axis=1))]
    column = (outline + np.array([0.0, 0.0, 1.0]) * _LIFTS[:, None, None]).reshape(-1, 3)
    for length in _LENGTHS:
        for direction in outwards:
            if others.distance(column + length * direction) > _GAP:
                return length * direction
    return np.zeros(3)


def _top(item: Body) -> float:
    return float(item.boxes.bounds()[1][:, 2].max())


def _highest(boxes: Boxes, start: np.ndarray, end: np.ndarray, radius: float) -> float:
    """Height of the highest box within a radius of the straight way from `start` to `end`, seen from above."""
    low, high = boxes.bounds()
    way = start[:2] + np.linspace(0, 1, 24)[:, None] * (end - start)[:2]
    aside = np.maximum(np.maximum(low[:, :2] - way[:, None], way[:, None] - high[:, :2]), 0.0)
    passed = (np.hypot(aside[..., 0], aside[..., 1]) < radius).any(axis=0)
    return float(high[passed, 2].max()) if passed.any() else float("-inf")
