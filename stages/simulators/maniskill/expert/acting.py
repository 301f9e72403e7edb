"""The expert's actions: which stage each arm is in, and what that comes to in the numbers that ManiSkill takes."""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.simulators.maniskill.expert import motions
from stages.simulators.maniskill.expert.plan import NOBODY, Kind
from stages.simulators.maniskill.expert.sight import Sight
from stages.simulators.maniskill.expert.tables import Stages, Table

ARMS_AT_MOST = 2
_HELD = 0.03  # a thing further than this from between the fingers was lost, in metres
_WIDTH = 0.04  # of the cubes, in metres
_GRIPPED = 0.005  # fingers further apart than the cube by no more than this hold it
_LET_GO = 0.02  # fingers further apart than the cube by this let go of it
_ASTRAY = 0.03  # a thing further than this from where it was put was lost, in metres
_OFF = 0.04  # metres over where it was put at which a hand is nearly off a thing
_SQUARE = 0.25  # radians off square at which a hand may close
_PATIENCE = 8  # steps in which fingers close, or a grip is tried again
_PUSH = 0.35  # spread of the numbers of a burst of random motion


@dataclasses.dataclass
class Memory:
    """What the expert remembers of n worlds between steps.

    Attributes:
        stage: int [n, 2], the number of each arm's stage.
        timer: int [n, 2], steps since it began.
        burst: int [n], steps left of a burst of random motion.
        push: [n, 2, 6], the burst's motion of each arm.
    """

    stage: np.ndarray
    timer: np.ndarray
    burst: np.ndarray
    push: np.ndarray

    def take(self, rows: np.ndarray) -> Memory:
        """A copy of some worlds' memory."""
        return Memory(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def put(self, rows: np.ndarray, values: Memory) -> None:
        """Overwrite some worlds' memory."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


def begin(count: int) -> Memory:
    """The memory of an expert that has not acted yet in n = `count` worlds."""
    numbers = np.zeros((count, ARMS_AT_MOST), dtype=np.int64)
    return Memory(numbers, numbers.copy(), np.zeros(count, dtype=np.int64), np.zeros((count, ARMS_AT_MOST, 6)))


def act(table: Table, sight: Sight, memory: Memory) -> tuple[np.ndarray, Memory]:
    """The expert's next action.

    Args:
        table: the task's plan.
        sight: n worlds.
        memory: what it remembered of them.

    Returns:
        actions: float64 [n, M * 7] in [-1, 1].
        memory: to pass at the next step.
    """
    number = memory.stage[:, : table.arms]
    timer = memory.timer[:, : table.arms]
    stages = table.stages.take(number)
    following = _next(stages, sight, number, timer)
    timer = np.where(following == number, timer + 1, 0)
    stages = table.stages.take(following)
    way, turn = motions.way(stages, sight), motions.turn(stages, sight)
    stage, clock = memory.stage.copy(), memory.timer.copy()
    stage[:, : table.arms], clock[:, : table.arms] = following, timer
    actions = motions.commands(way, turn, stages.shut, sight.base)
    return actions, dataclasses.replace(memory, stage=stage, timer=clock)


def perturb(
    table: Table, actions: np.ndarray, memory: Memory, generators: list[np.random.Generator], probability: float
) -> tuple[np.ndarray, np.ndarray, Memory]:
    """Now and then replace the arms' motion by a short burst of random motion; grippers are left alone.

    Args:
        table: the task's plan.
        actions: [n, M * 7] the expert's actions.
        memory: holds the bursts under way.
        generators: n random streams.
        probability: that a burst starts at a step.

    Returns:
        actions: [n, M * 7].
        clean: bool [n], False where the action was replaced.
        memory: to pass at the next step.
    """
    burst, push = memory.burst.copy(), memory.push.copy()
    for row, stream in enumerate(generators):
        if burst[row] == 0 and stream.random() < probability:
            burst[row] = stream.integers(2, 6)
            push[row] = np.clip(stream.normal(0, _PUSH, push[row].shape), -1, 1)
    active = burst > 0
    changed = actions.reshape(len(actions), table.arms, 7).copy()
    changed[active, :, :6] = push[active, : table.arms]
    following = dataclasses.replace(memory, burst=np.maximum(burst - 1, 0), push=push)
    return changed.reshape(actions.shape), ~active, following


def _next(stages: Stages, sight: Sight, number: np.ndarray, timer: np.ndarray) -> np.ndarray:
    """The stages [n, M] that arms are in from here on."""
    rows = np.arange(len(number))[:, None]
    kind = stages.kind
    item = sight.object[rows, stages.item]
    end = sight.object[rows, stages.to] + stages.offset
    error = end - np.where((kind == Kind.CARRY)[..., None], item, sight.hand)
    off = _length(motions.turn(stages, sight))
    there = _length(error) < stages.near
    gripped = (sight.opening < _WIDTH + _GRIPPED) & (timer >= 1)
    done = np.select(
        [kind == Kind.REACH, kind == Kind.CLOSE, kind == Kind.OPEN, kind == Kind.RISE],
        [there & (off < _SQUARE), gripped, sight.opening > _WIDTH + _LET_GO, -error[..., 2] > _OFF],
        default=there,
    )
    other = number[:, ::-1]
    done &= ~stages.last & ((stages.until == NOBODY) | (other >= stages.until))
    far = _length(item - sight.hand) > _HELD
    holding = (kind == Kind.CLOSE) | (kind == Kind.CARRY)
    missed = holding & (far | (sight.opening < _WIDTH / 2) | ((kind == Kind.CLOSE) & (timer > _PATIENCE)))
    astray = (kind == Kind.RISE) & (_length(end - item) > _ASTRAY)
    following: np.ndarray = np.select([missed, astray, done], [number - 1, 0, number + 1], default=number)
    return following


def _length(vector: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt(np.sum(vector * vector, axis=-1))
    return length
