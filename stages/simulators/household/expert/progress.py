"""How far the expert is in its plan: which stage of which skill, and what happens when one is done or fails."""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.simulators.household import controller
from stages.simulators.household.expert import motions as moving
from stages.simulators.household.expert.plan import Kind, Turn
from stages.simulators.household.expert.tables import NEAREST, NONE, Motions, Plans
from stages.simulators.household.goals import Goals
from stages.simulators.household.state import Snapshot

_HELD = 0.035  # a thing further than this from the grip point was lost, in metres
_RECOVERY = 4  # steps for which hands back off after a failure
_UP = (0.0, 0.0, 0.04)


@dataclasses.dataclass
class Memory:
    """What the expert remembers between steps.

    Attributes:
        stage: int [N], number of the stage.
        timer: int [N], steps since it began.
        recovering: bool [N], it failed and hands are backing off.
        side: int [N, K], which arm plays `main` in each skill: 0 left, 1 right.
        burst: int [N], steps left of a burst of random motion.
        motion: [N, 2, 6], the burst's motion of each role; zeros where it leaves the arm alone.
    """

    stage: np.ndarray
    timer: np.ndarray
    recovering: np.ndarray
    side: np.ndarray
    burst: np.ndarray
    motion: np.ndarray

    def take(self, rows: np.ndarray) -> Memory:
        """A copy of some worlds' memory."""
        return Memory(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def put(self, rows: np.ndarray, values: Memory) -> None:
        """Overwrite some worlds' memory."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


def blank(count: int, plans: Plans) -> Memory:
    """Room for the memory of N = `count` worlds."""
    zeros = np.zeros(count, dtype=np.int64)
    sides = np.zeros((count, plans.first.shape[1]), dtype=np.int64)
    return Memory(zeros, zeros.copy(), zeros > 0, sides, zeros.copy(), np.zeros((count, 2, 6)))


def begin(plans: Plans, goals: Goals, tasks: np.ndarray, state: Snapshot) -> Memory:
    """The memory of an expert that has not acted yet.

    Args:
        plans: those of T tasks.
        goals: what their skills are for.
        tasks: int [N].
        state: N worlds at their start.
    """
    memory = blank(len(tasks), plans)
    for skill in range(plans.first.shape[1]):
        memory.side[:, skill] = _side(plans, tasks, np.full(len(tasks), skill), state, np.full(len(tasks), NONE))
    memory.stage = plans.first[tasks, 0]
    return _enter(plans, goals, tasks, state, memory, np.ones(len(tasks), dtype=bool))


def arms_of(plans: Plans, memory: Memory) -> np.ndarray:
    """Which arm plays which role: int [N, 2]."""
    main = memory.side[np.arange(len(memory.stage)), plans.skill[memory.stage]]
    return np.stack([main, 1 - main], axis=1)


def current(plans: Plans, memory: Memory) -> Motions:
    """What the arms of N worlds are to do, backing off included."""
    motions = plans.motions.take(memory.stage)
    if memory.recovering.any():
        after = plans.motions.take(plans.retry[memory.stage])
        moved = (motions.kind != Kind.STILL) & (motions.kind != Kind.REST)
        off = memory.recovering[:, None] & moved & ~after.shut
        motions.kind = np.where(off, Kind.BACK, np.where(memory.recovering[:, None], Kind.STILL, motions.kind))
        motions.shut = np.where(memory.recovering[:, None], after.shut, motions.shut)
        motions.direction[off] = _UP
        motions.steps = np.where(off, _RECOVERY, motions.steps)
        motions.turn = np.where(off, Turn.AHEAD, motions.turn)
        motions.yaw = np.where(off, 0.0, motions.yaw)
        motions.speed = np.where(off, 0.5, motions.speed)
    return motions


def advance(
    plans: Plans, goals: Goals, tasks: np.ndarray, state: Snapshot, targets: controller.Targets, memory: Memory
) -> tuple[Memory, Motions, moving.Sight]:
    """Go on to the next stage, or back, where it is time to.

    Args:
        plans: those of T tasks.
        goals: what their skills are for.
        tasks: int [N].
        state: N worlds.
        targets: where the controller is sending the hands.
        memory: what the expert remembered.

    Returns:
        What it remembers, what the arms do and what that is about.
    """
    motions = plans.motions.take(memory.stage)
    sight = moving.see(motions, arms_of(plans, memory), state, targets)
    each_done, each_failed = _outcome(motions, sight, memory.timer)
    done, failed = np.all(each_done, axis=1), np.any(each_failed, axis=1)
    rows = np.arange(len(tasks))[:, None]
    if len(state.drawer[0]):
        failed |= (state.drawer[rows, plans.drawer[memory.stage]] < plans.least[memory.stage]).any(axis=1)
    recovered = memory.recovering & (memory.timer >= _RECOVERY - 1)
    failed &= ~memory.recovering
    done &= ~memory.recovering & ~failed
    changed = recovered | failed | done
    stage = np.where(recovered, plans.retry[memory.stage], np.where(done, plans.following[memory.stage], memory.stage))
    following = dataclasses.replace(
        memory,
        stage=stage,
        timer=np.where(changed, 0, memory.timer + 1),
        recovering=(memory.recovering & ~recovered) | failed,
    )
    entered = (recovered | done) & plans.begins[stage]
    if entered.any():
        following = _enter(plans, goals, tasks, state, following, entered)
    if changed.any() or following.recovering.any():
        motions = current(plans, following)
        sight = moving.see(motions, arms_of(plans, following), state, targets)
    return following, motions, sight


def _outcome(motions: Motions, sight: moving.Sight, timer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each arm's motion is done, and whether it failed: bool [N, 2] each."""
    kind, timer = motions.kind, timer[:, None]
    late = timer >= motions.patience
    lost = _length(sight.hand - sight.grip) > _HELD
    error = np.where((kind == Kind.CARRY)[..., None], sight.item, sight.hand) - sight.aim
    there = (_length(error[..., :2]) < motions.near) & (np.abs(error[..., 2]) < motions.level)
    gripped = (sight.opening > motions.gripped[..., 0]) & (sight.opening < motions.gripped[..., 1])
    done = np.select(
        [
            (kind == Kind.MOVE) | (kind == Kind.CARRY),
            kind == Kind.CLOSE,
            kind == Kind.OPEN,
            kind == Kind.BACK,
        ],
        [there, gripped & (timer >= 1), (sight.opening > motions.let_go) | late, timer >= motions.steps - 1],
        default=True,
    )
    late_kinds = (kind == Kind.MOVE) | (kind == Kind.CARRY) | (kind == Kind.CLOSE)
    failed = (motions.holds & lost) | (~done & ((late & late_kinds) | (lost & (kind == Kind.CLOSE))))
    return done, failed


def _enter(
    plans: Plans, goals: Goals, tasks: np.ndarray, state: Snapshot, memory: Memory, entered: np.ndarray
) -> Memory:
    """Begin a skill where `entered` [N]: pass over the ones that are superfluous, settle which arm acts."""
    rows = np.flatnonzero(entered)
    tasks, state = tasks[rows], state.take(rows)
    skill = plans.skill[memory.stage[rows]]
    count = (plans.first[tasks] != NONE).sum(axis=1)
    for _ in range(plans.first.shape[1]):
        unless = plans.unless[tasks, skill]
        superfluous = (goals.holds(unless, state) & (unless != NONE)).any(axis=1)
        skill = np.where(superfluous, (skill + 1) % count, skill)
    side = memory.side.copy()
    side[rows, skill] = _side(plans, tasks, skill, state, side[rows, skill])
    stage = memory.stage.copy()
    stage[rows] = plans.first[tasks, skill]
    return dataclasses.replace(memory, stage=stage, side=side)


def _side(plans: Plans, tasks: np.ndarray, skill: np.ndarray, state: Snapshot, before: np.ndarray) -> np.ndarray:
    """Which arm plays `main`: int [N]; the one `before` if it still can."""
    rows = np.arange(len(tasks))
    asked = plans.arm[tasks, skill]
    item = state.frame_position[rows, plans.item[tasks, skill]]
    ends = plans.to[tasks, skill]
    middle = state.frame_position[rows[:, None], ends].mean(axis=1) + plans.to_offset[tasks, skill]
    to = np.where(ends[:, :1] == NONE, item, middle)
    within = controller.in_workspace(item) & controller.in_workspace(to)
    nearer = np.where(item[:, 1] > 0, 0, 1)
    chosen = np.where(before == NONE, nearer, before)
    chosen = np.where(~within[rows, chosen] & within[rows, 1 - chosen], 1 - chosen, chosen)
    result: np.ndarray = np.where(asked == NEAREST, chosen, asked)
    return result


def _length(vector: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt(np.sum(vector * vector, axis=-1))
    return length
