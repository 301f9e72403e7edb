"""The expert's actions: what its motions come to in the numbers that the controller takes, now and then perturbed."""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.simulators.household import controller
from stages.simulators.household.expert import motions as moving
from stages.simulators.household.expert import progress
from stages.simulators.household.expert.plan import Kind
from stages.simulators.household.expert.progress import Memory
from stages.simulators.household.expert.tables import Motions, Plans
from stages.simulators.household.goals import Goals
from stages.simulators.household.state import Snapshot

_FULL_PUSH = 0.5  # the speed of motions from which on pushes are as strong as they get


def act(
    plans: Plans,
    goals: Goals,
    tasks: np.ndarray,
    state: Snapshot,
    targets: controller.Targets,
    memory: Memory,
    period: float,
) -> tuple[np.ndarray, Memory]:
    """The expert's next action.

    Args:
        plans: those of T tasks.
        goals: what their skills are for.
        tasks: int [N].
        state: N worlds.
        targets: where the controller is sending the hands.
        memory: what the expert remembered.
        period: seconds a control step.

    Returns:
        actions: float64 [N, 14] in [-1, 1]; exactly zero motion and an open gripper for an arm that has nothing to do.
        memory: to pass at the next step.
    """
    memory, motions, sight = progress.advance(plans, goals, tasks, state, targets, memory)
    move, turn = moving.moves(motions, sight, memory.timer)
    together = plans.together[memory.stage] & ~memory.recovering
    if together.any():
        move[together] = move[together].mean(axis=1, keepdims=True)
        turn[together] = 0.0
    parts = [move / (controller.MAX_SPEED * period), turn / (controller.MAX_TURN * period)]
    actions = np.empty((len(tasks), 2, 7))
    # One factor for all of a motion's axes keeps it on a straight line.
    for columns, part in zip((slice(0, 3), slice(3, 6)), parts, strict=True):
        largest = np.abs(part).max(axis=-1)
        actions[..., columns] = part / np.maximum(largest / motions.speed, 1.0)[..., None]
    actions[..., 6] = np.where(motions.shut, -1.0, 1.0)
    return _by_arm(actions, plans, memory), memory


def perturb(
    plans: Plans, actions: np.ndarray, memory: Memory, generators: list[np.random.Generator], probability: float
) -> tuple[np.ndarray, np.ndarray, Memory]:
    """Now and then replace the acting arms' motion by a short burst of random motion; grippers are left alone.

    Args:
        plans: those of T tasks.
        actions: [N, 14] the expert's actions.
        memory: holds the bursts under way.
        generators: N random streams.
        probability: that a burst starts at a step.

    Returns:
        actions: [N, 14].
        clean: bool [N], False where the action was replaced.
        memory: to pass at the next step.
    """
    motions = progress.current(plans, memory)
    acting = _acting(motions)
    together = plans.together[memory.stage]
    burst, motion = memory.burst.copy(), memory.motion.copy()
    for row, stream in enumerate(generators):
        if burst[row] == 0 and stream.random() < probability:
            burst[row] = stream.integers(2, 6)
            motion[row] = 0.0
            for role in np.flatnonzero(acting[row]):
                # Slow motions, of what must not be spilled, are pushed less.
                share = min(1.0, motions.speed[row, role] / _FULL_PUSH)
                motion[row, role] = np.clip(stream.normal(0, 0.6, 6), -1, 1) * share
            if together[row]:
                # Hands that hold one thing are pushed as one, and not turned.
                motion[row, 1] = motion[row, 0]
                motion[row, :, 3:] = 0.0
    active = burst > 0
    arms = progress.arms_of(plans, memory)
    changed = actions.reshape(-1, 2, 7).copy()
    pushed = active[:, None] & acting & motion.any(axis=-1)
    rows, roles = np.nonzero(pushed)
    changed[rows, arms[rows, roles], :6] = motion[rows, roles]
    following = dataclasses.replace(memory, burst=np.maximum(burst - 1, 0), motion=motion)
    return changed.reshape(actions.shape), ~active, following


def _acting(motions: Motions) -> np.ndarray:
    """Which roles have something to do that survives a push: bool [N, 2]."""
    acting: np.ndarray = (motions.kind != Kind.STILL) & (motions.kind != Kind.REST)
    return acting


def _by_arm(actions: np.ndarray, plans: Plans, memory: Memory) -> np.ndarray:
    """Actions [N, 14], left then right, of those by role [N, 2, 7]."""
    arms = progress.arms_of(plans, memory)
    sided = np.take_along_axis(actions, arms[..., None], axis=1)  # swapping two is its own inverse
    return sided.reshape(len(actions), controller.ACTION_DIM)
