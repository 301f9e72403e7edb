"""How far the expert is with a thing: which stage it is in, and what happens when one is done or fails."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from stages.simulators.libero.expert import grasps, routes
from stages.simulators.libero.expert.grasps import Grasp
from stages.simulators.libero.expert.scene import Scene

_NEAR = 0.008  # metres aside within which a place is reached
_LEVEL = 0.007  # metres above or below
_SQUARE = 0.08  # radians
_STOPPED = 0.004  # metres a second below which fingers have come to rest
_GRIPPED = 0.0015  # metres between the pads of fingers that hold something
_LET_GO = 0.075  # metres between the pads of fingers that let go
_HELD = 0.03  # a thing further than this from its grip was lost, in metres
_PROGRESS = 0.005  # metres nearer that count as progress
# Steps that a stage takes at most, or goes on without progress.
_PATIENCE = 25
_DRAWN = 15
_CLOSED = 16
_BACKING = 6
_CLOSING = 4  # steps from which on closing fingers may have stopped


class Stage(enum.IntEnum):
    """What the hand is doing."""

    PLAN = 0  # about to choose a grasp
    REACH = 1  # goes to the grasp, from above
    CLOSE = 2  # closes the fingers
    DRAW = 3  # draws the thing out from under something
    CARRY = 4  # brings the thing to its place, from above
    OPEN = 5  # lets go
    BACK = 6  # rises with open fingers, then begins again


@dataclasses.dataclass(frozen=True)
class Memory:
    """What the expert remembers of one world between steps.

    Attributes:
        stage: what the hand is doing.
        timer: steps since that began, or on the way to somewhere since there was progress.
        nearest: how near it came on that way, in metres.
        attempt: how often it began to grip.
        grasp: how it grips; None before the first choice.
        opening: [3] where the first finger opens, in the world.
        anchor: [3] where the hand stays while its fingers move, or goes while it draws.
        travel: height of the hand (REACH) or of the thing's origin (CARRY) on the way, in metres.
        burst: steps left of a burst of random motion.
        motion: [6] that motion.
    """

    stage: Stage = Stage.PLAN
    timer: int = 0
    nearest: float = float("inf")
    attempt: int = 0
    grasp: Grasp | None = None
    opening: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    anchor: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    travel: float = 0.0
    burst: int = 0
    motion: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(6))


def advance(scene: Scene, memory: Memory) -> Memory:
    """Go on to the next stage, or back, where it is time to.

    Args:
        scene: the world.
        memory: what the expert remembered.
    """
    stage, timer, grasp = memory.stage, memory.timer, memory.grasp
    if grasp is None or (stage is Stage.BACK and timer >= _BACKING):
        return _reach(scene, memory)
    if stage is Stage.REACH and scene.restless and scene.hand.position[2] > memory.travel:
        # What still falls is gripped differently once it lies.
        return dataclasses.replace(_reach(scene, memory), attempt=memory.attempt)
    hand, item = scene.hand, scene.item
    memory = dataclasses.replace(memory, timer=timer + 1)
    if stage is Stage.REACH:
        memory = dataclasses.replace(memory, opening=grasp.opening(item, hand))
        if abs(memory.opening[2]) > grasps.STEEP:  # it has tumbled
            return _next(memory, Stage.BACK)
        square = np.linalg.norm(grasps.turn(memory.opening, hand)) < _SQUARE
        error = grasp.reached(item) - hand.position
        if square and _at(error):
            return _next(memory, Stage.CLOSE, anchor=grasp.reached(item))
        return _next(memory, Stage.BACK) if timer >= _PATIENCE else _nearer(memory, error)
    if stage is Stage.OPEN:
        return _next(memory, Stage.BACK) if hand.opening > _LET_GO or timer >= _CLOSED else memory
    if stage is Stage.BACK:
        return memory

    lost = np.linalg.norm(hand.position - grasp.held(item)) > _HELD + grasp.aside
    missed = hand.opening <= _GRIPPED and (stage is not Stage.CLOSE or timer >= _CLOSED)
    if lost or missed:
        return _next(memory, Stage.BACK)
    if stage is Stage.CLOSE:
        stopped = timer >= _CLOSING and abs(hand.closing) < _STOPPED and hand.opening > _GRIPPED
        return _lift(scene, memory) if stopped or timer >= _CLOSED else memory
    if stage is Stage.DRAW:
        return _carry(scene, memory) if _at(memory.anchor - hand.position) or timer >= _DRAWN else memory
    error = scene.place(item) - item.position
    if _at(error) or timer >= _PATIENCE:
        return _next(memory, Stage.OPEN, anchor=hand.position)
    return _nearer(memory, error)


def _at(error: np.ndarray) -> bool:
    """Whether a place that is `error` [3] away counts as reached."""
    return bool(np.hypot(error[0], error[1]) < _NEAR and abs(error[2]) < _LEVEL)


def _nearer(memory: Memory, error: np.ndarray) -> Memory:
    """Begin to count again where the way has become shorter."""
    distance = float(np.linalg.norm(error))
    if distance > memory.nearest - _PROGRESS:
        return memory
    return dataclasses.replace(memory, timer=0, nearest=distance)


def _next(memory: Memory, stage: Stage, anchor: np.ndarray | None = None) -> Memory:
    anchor = memory.anchor if anchor is None else anchor
    return dataclasses.replace(memory, stage=stage, timer=0, nearest=float("inf"), anchor=anchor)


def _reach(scene: Scene, memory: Memory) -> Memory:
    """Choose a grasp and how the hand goes there."""
    grasp = grasps.choose(scene, memory.attempt)
    return dataclasses.replace(
        _next(memory, Stage.REACH),
        attempt=memory.attempt + 1,
        grasp=grasp,
        opening=grasp.opening(scene.item, scene.hand),
        travel=routes.height_to(scene, grasp.reached(scene.item)),
    )


def _lift(scene: Scene, memory: Memory) -> Memory:
    """Carry the thing, or first draw it out from under something."""
    way = routes.way_out(scene)
    return _next(memory, Stage.DRAW, scene.hand.position + way) if way.any() else _carry(scene, memory)


def _carry(scene: Scene, memory: Memory) -> Memory:
    return dataclasses.replace(_next(memory, Stage.CARRY), travel=routes.height_with(scene))
