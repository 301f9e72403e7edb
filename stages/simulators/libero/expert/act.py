"""The expert's actions: what its stage comes to in the numbers that robosuite's OSC_POSE controller takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from stages.simulators.libero.expert import grasps, progress
from stages.simulators.libero.expert.progress import Memory, Stage
from stages.simulators.libero.expert.scene import Scene

_FULL_MOVE = 0.04  # metres to go from which on the hand moves as fast as it can
_FULL_TURN = 0.4  # radians
_STICKING = 0.15  # action that joint friction takes
_STUCK = 0.003  # metres to go at which that begins to matter
_FUNNEL_RADIUS = 0.01  # within this distance the hand descends all the way, in metres
_FUNNEL_SLOPE = 2.5  # metres up a metre aside beyond that
_ROOM_TO_RISE = 0.04  # metres too low at which a hand does not move aside at all
_OPEN, _SHUT = -1.0, 1.0


def act(env: Any, memory: Memory) -> tuple[np.ndarray, Memory]:
    """The expert's next action.

    Args:
        env: robosuite's environment of a LIBERO task; it is only read.
        memory: what the expert remembered of this world.

    Returns:
        action: float64 [7] in [-1, 1]: move, turn, gripper (-1 opens, 1 shuts).
        memory: to pass at the next step.
    """
    scene = Scene(env)
    memory = progress.advance(scene, memory)
    move, turn = _motion(scene, memory), grasps.turn(memory.opening, scene.hand)
    shut = memory.stage in (Stage.CLOSE, Stage.DRAW, Stage.CARRY)
    action = np.concatenate([_limited(_pushed(move)), _limited(turn / _FULL_TURN), [_SHUT if shut else _OPEN]])
    return action, memory


def perturb(
    action: np.ndarray, memory: Memory, generator: np.random.Generator, probability: float
) -> tuple[np.ndarray, bool, Memory]:
    """Now and then replace the motion by a short burst of random motion; the gripper is left alone.

    Args:
        action: [7] the expert's.
        memory: holds the burst under way.
        generator: random stream of this world.
        probability: that a burst starts at a step.

    Returns:
        action: [7].
        clean: False where the action was replaced.
        memory: to pass at the next step.
    """
    burst, motion = memory.burst, memory.motion
    if burst == 0 and generator.random() < probability:
        burst = int(generator.integers(2, 6))
        motion = np.clip(generator.normal(0, 0.6, 6), -1, 1)
        motion[3:] *= 0.5
    if burst == 0:
        return action, True, memory
    changed = np.concatenate([motion, action[6:]])
    return changed, False, dataclasses.replace(memory, burst=burst - 1, motion=motion)


def _motion(scene: Scene, memory: Memory) -> np.ndarray:
    """How far the hand goes, [3] in metres."""
    item = scene.item
    if memory.stage is Stage.REACH and memory.grasp is not None:
        return _through_funnel(scene.hand.position, memory.grasp.reached(item), memory.travel)
    if memory.stage is Stage.CARRY:
        return _through_funnel(item.position, scene.place(item), memory.travel)
    if memory.stage is Stage.BACK:
        return np.array([0.0, 0.0, _FULL_MOVE])
    return memory.anchor - scene.hand.position


def _through_funnel(now: np.ndarray, point: np.ndarray, travel: float) -> np.ndarray:
    """Motion [3] towards a point from above: at the height `travel` while far aside, descending on coming over it."""
    aside = point[:2] - now[:2]
    above = np.clip(_FUNNEL_SLOPE * (np.hypot(*aside) - _FUNNEL_RADIUS), 0, max(travel - point[2], 0.0))
    rise = point[2] + above - now[2]
    # Move sideways only as far as the hand has risen, lest it sweeps things off the table.
    free = np.clip(1 - rise / _ROOM_TO_RISE, 0, 1)
    return np.array([*(aside * free), rise])


def _pushed(move: np.ndarray) -> np.ndarray:
    """Action numbers of a motion [3]: proportional, and near its end enough more for the arm's joints not to stick."""
    return move / _FULL_MOVE + _STICKING * np.tanh(move / _STUCK)


def _limited(numbers: np.ndarray) -> np.ndarray:
    """One factor for all axes keeps a motion on a straight line."""
    return numbers / max(1.0, float(np.abs(numbers).max()))
