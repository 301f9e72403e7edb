"""The scripted expert: a closed-loop state machine over arrays with a leading world axis N.

It reads the true state at every step, so it recovers from whatever was done to the world since its last action.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.simulators.household import controller, tasks
from stages.simulators.household.options import Options

REACH, CLOSE, CARRY, OPEN, RETREAT = range(5)

_HOVER_REACH = 0.10  # height over the target while far from it, in metres
_HOVER_CARRY = 0.06
_FUNNEL_RADIUS = 0.012  # within this distance the hand descends all the way
_FUNNEL_SLOPE = 2.5  # metres up a metre aside beyond that
_ALIGNED = 0.010  # how far from the grasp point the fingers may close, in metres
_PLACED = 0.012
_HELD = 0.035  # a target further than this from the grip point was lost
_SPEED = 0.5  # of the fastest motion there is: unhurried, so that a policy has several decisions to see its error
_PATIENCE = 25  # steps in a phase before it starts over


@dataclasses.dataclass
class Memory:
    """What the expert remembers between steps.

    Attributes:
        phase: int [N], one of the phases above.
        timer: int [N], steps since the phase began.
        burst: int [N], steps left of a burst of random motion.
        motion: [N, 6], the burst's motion.
    """

    phase: np.ndarray
    timer: np.ndarray
    burst: np.ndarray
    motion: np.ndarray

    def take(self, rows: np.ndarray) -> Memory:
        """A copy of some worlds' memory."""
        return Memory(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def put(self, rows: np.ndarray, values: Memory) -> None:
        """Overwrite some worlds' memory."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


def fresh(count: int) -> Memory:
    """The memory of an expert that has not acted yet, for N = `count` worlds."""
    zeros = np.zeros(count, dtype=np.int64)
    return Memory(zeros, zeros.copy(), zeros.copy(), np.zeros((count, 6)))


def act(
    task_ids: np.ndarray,
    sides: np.ndarray,
    state: tasks.Snapshot,
    targets: controller.Targets,
    memory: Memory,
    options: Options,
) -> tuple[np.ndarray, Memory]:
    """The expert's next action.

    Args:
        task_ids: int [N].
        sides: int [N], the arm that acts.
        state: N worlds.
        targets: where the controller is sending the hands.
        memory: what the expert remembered.
        options: object sizes and control frequency.

    Returns:
        actions: float64 [N, 14] in [-1, 1]; exactly zero motion and an open gripper for the arm that does not act.
        memory: to pass at the next step.
    """
    rows = np.arange(len(task_ids))
    hand = state.hand_position[rows, sides]
    target = state.object_position[:, tasks.TARGET]
    goal = tasks.goal(task_ids, state, options)
    phase, timer = _next_phase(memory, hand, state.opening[rows, sides], target, goal, options)

    carrying = (phase == CARRY) | (phase == OPEN)
    grasp = target + np.array([0.0, 0.0, max(0.0, 0.02 - options.object_size / 2)])
    # The target may sit off centre between the fingers: aim the hand so that the target reaches the goal.
    point = np.where(carrying[:, None], goal + np.array([0.0, 0.0, 0.002]) + (hand - target), grasp)
    hover = np.where(carrying, _HOVER_CARRY, _HOVER_REACH)
    now = targets.position[rows, sides]
    motion = _through_funnel(now, point, hover)
    motion[phase == RETREAT] = [0.0, 0.0, 0.04]
    motion[(phase == CLOSE) | (phase == OPEN)] = 0.0

    turn = _turn(
        targets.orientation[rows, sides], state.object_rotation[:, tasks.TARGET], carrying | (phase == RETREAT)
    )
    turn[(phase == CLOSE) | (phase == OPEN)] = 0.0
    period = 1 / options.action_frequency
    moves = np.concatenate([motion / (controller.MAX_SPEED * period), turn / (controller.MAX_TURN * period)], axis=1)
    return _assemble(moves, (phase == CLOSE) | (phase == CARRY), sides), dataclasses.replace(
        memory, phase=phase, timer=timer
    )


def perturb(
    actions: np.ndarray, sides: np.ndarray, memory: Memory, generators: list[np.random.Generator], probability: float
) -> tuple[np.ndarray, np.ndarray, Memory]:
    """Now and then replace the acting arm's motion by a short burst of random motion; the gripper is left alone.

    Args:
        actions: [N, 14] the expert's actions.
        sides: int [N], the arm that acts.
        memory: holds the bursts under way.
        generators: N random streams.
        probability: that a burst starts at a step.

    Returns:
        actions: [N, 14].
        clean: bool [N], False where the action was replaced.
        memory: to pass at the next step.
    """
    burst, motion = memory.burst.copy(), memory.motion.copy()
    for row, stream in enumerate(generators):
        if burst[row] == 0 and stream.random() < probability:
            burst[row] = stream.integers(2, 6)
            motion[row] = np.clip(stream.normal(0, 0.6, 6), -1, 1)
    active = burst > 0
    changed = actions.copy()
    rows = np.flatnonzero(active)
    columns = sides[rows, None] * 7 + np.arange(6)
    changed[rows[:, None], columns] = motion[rows]
    return changed, ~active, dataclasses.replace(memory, burst=np.maximum(burst - 1, 0), motion=motion)


def _next_phase(
    memory: Memory, hand: np.ndarray, opening: np.ndarray, target: np.ndarray, goal: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Phase and steps in it, from what the world looks like now."""
    phase, timer = memory.phase, memory.timer
    offset = hand - target
    around = (np.linalg.norm(offset[:, :2], axis=1) < _ALIGNED) & (np.abs(offset[:, 2]) < 0.012)
    # Fingers that meet the target stop at its width (up to its diagonal); fingers that miss it shut.
    gripped = (opening > 0.7 * options.object_size) & (opening < 1.3 * options.object_size)
    lost = np.linalg.norm(offset, axis=1) > _HELD
    error = target - goal
    placed = (np.linalg.norm(error[:, :2], axis=1) < _PLACED) & (np.abs(error[:, 2]) < 0.006)
    late = timer >= _PATIENCE
    following = np.select(
        [
            (phase == REACH) & around,
            (phase == CLOSE) & (timer >= 1) & gripped,
            (phase == CLOSE) & (lost | (timer >= 6)),
            (phase == CARRY) & (lost | late),
            (phase == CARRY) & placed,
            (phase == OPEN) & ((opening > options.object_size + 0.03) | late),
            (phase == RETREAT) & (timer >= 3),
            (phase == REACH) & late,
        ],
        [CLOSE, CARRY, RETREAT, RETREAT, OPEN, RETREAT, REACH, RETREAT],
        default=phase,
    )
    return following, np.where(following == phase, timer + 1, 0)


def _through_funnel(now: np.ndarray, point: np.ndarray, hover: np.ndarray) -> np.ndarray:
    """Motion towards a point from above: high while far aside, descending as the hand comes over it.

    Args:
        now: [N, 3] where the hand is being sent.
        point: [N, 3] where it has to go.
        hover: [N] height over the point while far aside, in metres.

    Returns:
        [N, 3] in metres; longer than a step where the point is far.
    """
    aside = point[:, :2] - now[:, :2]
    distance = np.linalg.norm(aside, axis=1)
    height = point[:, 2] + np.clip(_FUNNEL_SLOPE * (distance - _FUNNEL_RADIUS), 0, hover)
    rise = height - now[:, 2]
    # Move sideways only as far as the hand has risen, lest it sweeps things off the table.
    free = np.clip(1 - rise / 0.04, 0, 1)
    return np.concatenate([aside * free[:, None], rise[:, None]], axis=1)


def _turn(orientation: np.ndarray, cube: np.ndarray, straight: np.ndarray) -> np.ndarray:
    """Rotation vector [N, 3] that squares the hand to the cube, or straight ahead where `straight`."""
    # Of a cube that tumbled, any level edge will do.
    level = np.abs(cube[:, 2]).argmin(axis=1)
    edge = cube[np.arange(len(cube)), :, level]
    yaw = np.arctan2(edge[:, 1], edge[:, 0])
    yaw = (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4  # a cube looks the same every quarter turn
    yaw = np.where(straight, 0.0, yaw)
    upright = np.stack([np.zeros_like(yaw), np.zeros_like(yaw), yaw], axis=-1)
    wanted = controller.rotation_of(upright) @ controller.HAND_DOWN
    return controller.rotation_vector(wanted @ np.swapaxes(orientation, -1, -2))


def _assemble(moves: np.ndarray, closed: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Actions [N, 14] of one acting arm: its six numbers of motion [N, 6] and its gripper."""
    actions = np.zeros((len(moves), 2, 7))
    actions[:, :, 6] = 1.0
    rows = np.arange(len(moves))
    # One factor for all of a motion's axes keeps it on a straight line.
    for part in (slice(0, 3), slice(3, 6)):
        largest = np.abs(moves[:, part]).max(axis=1, keepdims=True)
        actions[rows, sides, part] = moves[:, part] / np.maximum(largest / _SPEED, 1.0)
    actions[rows, sides, 6] = np.where(closed, -1.0, 1.0)
    return actions.reshape(len(moves), controller.ACTION_DIM)
