"""What the robot is asked to do: layouts, goals, success and reward, over arrays with a leading world axis N.

O objects are ordered as `scene.object_names` says: the red target first, the blue cube second, the plate last.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from stages.simulators.household import scene
from stages.simulators.household.options import TASK_NAMES, Options
from stages.simulators.interface import Task

TARGET, BLUE, PLATE = 0, 1, -1
INSTRUCTIONS = {
    "pick_onto_plate": "put the red cube on the plate",
    "stack": "stack the red cube on the blue cube",
}

# Nominal place and half range of a layout's members, (x, y) in metres; y is on the target's side where positive.
_TARGET_SPOT = ((-0.05, 0.19), (0.06, 0.06))
_GOAL_SPOT = {"pick_onto_plate": ((-0.06, 0.0), (0.03, 0.03)), "stack": ((-0.04, 0.0), (0.04, 0.04))}
_DISTRACTOR_SPOTS = (
    ((0.11, 0.02), (0.03, 0.10)),
    ((-0.02, -0.22), (0.05, 0.03)),
    ((0.12, -0.20), (0.03, 0.04)),
)
_YAW_RANGE = 0.3  # radians
_CANDIDATES = 64  # layouts drawn at once; the first valid one is taken
_CLEARANCE = 0.035  # room between two objects for a finger and its error, in metres

_REST_SPEED = 0.08  # metres a second
_REST_HEIGHT = 0.008  # metres off the height of lying on the goal
_HAND_NEAR = 0.12  # a hand closer than this to the target has to be open


@dataclasses.dataclass
class Snapshot:
    """The true state of N worlds that tasks, expert and proprioception are functions of.

    Attributes:
        hand_position: [N, 2, 3] grip points of the left and the right hand, in metres.
        hand_rotation: [N, 2, 3, 3].
        opening: [N, 2] distance between a hand's fingers, in metres.
        object_position: [N, O, 3] centres, in metres.
        object_rotation: [N, O, 3, 3].
        object_speed: [N, O] in metres a second.
    """

    hand_position: np.ndarray
    hand_rotation: np.ndarray
    opening: np.ndarray
    object_position: np.ndarray
    object_rotation: np.ndarray
    object_speed: np.ndarray


@dataclasses.dataclass
class Layout:
    """Where the objects of N worlds start.

    Attributes:
        position: [N, O, 3] in metres.
        yaw: [N, O] in radians.
        side: int [N], the arm on whose side the target lies: 0 left, 1 right.
    """

    position: np.ndarray
    yaw: np.ndarray
    side: np.ndarray


def described(names: tuple[str, ...]) -> tuple[Task, ...]:
    """The tasks called `names` with their instructions."""
    return tuple(Task(name, INSTRUCTIONS[name]) for name in names)


def generator(task: str, seed: int, stream: int) -> np.random.Generator:
    """The random stream of an episode: the same task, seed and stream number give the same numbers in any process."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(task.encode()), stream])))


def cube_count(options: Options) -> int:
    """How many cubes the scene holds: the target, the one to stack on and the distractors."""
    return 2 + options.distractors


def sample_layouts(names: list[str], generators: list[np.random.Generator], options: Options) -> Layout:
    """Draw where everything starts: all objects of a world together, so that no world can wait for ever.

    Args:
        names: N task names.
        generators: N random streams.
        options: object sizes, spread, arms and distractors.

    Returns:
        The first of a fixed number of candidates that keeps its objects apart; the roomiest one if none does.
    """
    objects = cube_count(options) + 1
    draws = np.stack([stream.uniform(-1, 1, (_CANDIDATES, objects, 3)) for stream in generators])
    left = np.array([stream.random() < 0.5 for stream in generators]) & (options.arms == "both")
    sign = np.where(left, 1.0, -1.0)

    spots = np.zeros((len(names), objects, 2, 2))
    present = np.zeros((len(names), objects), dtype=bool)
    for row, name in enumerate(names):
        for index, spot in _members(name, options).items():
            spots[row, index] = spot
            present[row, index] = True
    spots[:, :, :, 1] *= sign[:, None, None]
    xy = spots[:, None, :, 0] + options.spread * spots[:, None, :, 1] * draws[..., :2]

    room = _room(xy, present, options)  # [N, candidates]
    valid = room >= 0
    chosen = np.where(valid.any(axis=1), valid.argmax(axis=1), room.argmax(axis=1))
    rows = np.arange(len(names))
    half_heights = np.full(objects, options.object_size / 2)
    half_heights[PLATE] = scene.PLATE_HEIGHT / 2
    position = np.concatenate([xy[rows, chosen], np.tile(half_heights, (len(names), 1))[..., None]], axis=-1)
    # What a task does not use waits on the floor behind the head camera.
    parked = np.stack([np.full(objects, 3.0), np.arange(objects) * 0.4, half_heights + scene.FLOOR], axis=-1)
    yaw = np.where(present, draws[rows, chosen, :, 2] * _YAW_RANGE * options.spread, 0.0)
    return Layout(np.where(present[..., None], position, parked), yaw, np.where(left, 0, 1))


def _members(name: str, options: Options) -> dict[int, tuple[tuple[float, float], tuple[float, float]]]:
    """Which objects a task puts on the table, and where."""
    goal = PLATE if name == "pick_onto_plate" else BLUE
    members = {TARGET: _TARGET_SPOT, goal: _GOAL_SPOT[name]}
    spare = [index for index in range(1, cube_count(options)) if index != goal]
    members.update(zip(spare, _DISTRACTOR_SPOTS[: options.distractors], strict=False))
    return members


def _room(xy: np.ndarray, present: np.ndarray, options: Options) -> np.ndarray:
    """Least clearance between any two present objects, negative where they are too close.

    Args:
        xy: [N, C, O, 2] for C candidate layouts.
        present: bool [N, O].
        options: object sizes.

    Returns:
        [N, C] in metres.
    """
    objects = xy.shape[2]
    radius = np.full(objects, options.object_size * np.sqrt(0.5))
    radius[PLATE] = options.plate_radius
    first, second = np.triu_indices(objects, k=1)
    distance = np.linalg.norm(xy[:, :, first] - xy[:, :, second], axis=-1)
    room = distance - radius[first] - radius[second] - _CLEARANCE
    both = present[:, None, first] & present[:, None, second]
    result: np.ndarray = np.where(both, room, np.inf).min(axis=-1)
    return result


def task_ids(names: list[str]) -> np.ndarray:
    """Task numbers [N] as the functions below take them."""
    return np.array([TASK_NAMES.index(name) for name in names])


def goal(tasks: np.ndarray, state: Snapshot, options: Options) -> np.ndarray:
    """Where the target's centre comes to rest when the task is done.

    Args:
        tasks: int [N].
        state: N worlds.
        options: object sizes.

    Returns:
        [N, 3] in metres.
    """
    on_plate = tasks == TASK_NAMES.index("pick_onto_plate")
    below = np.where(on_plate[:, None], state.object_position[:, PLATE], state.object_position[:, BLUE])
    lift = np.where(on_plate, scene.PLATE_HEIGHT, options.object_size) / 2 + options.object_size / 2
    below[:, 2] += lift
    return below


def succeeded(tasks: np.ndarray, state: Snapshot, options: Options) -> np.ndarray:
    """Whether the target lies on its goal, at rest, let go of by open grippers.

    Args:
        tasks: int [N].
        state: N worlds.
        options: object sizes.

    Returns:
        bool [N].
    """
    target = state.object_position[:, TARGET]
    gap = target - goal(tasks, state, options)
    on_plate = tasks == TASK_NAMES.index("pick_onto_plate")
    reach = np.where(on_plate, options.plate_radius, 0.6 * options.object_size)
    there = (np.linalg.norm(gap[:, :2], axis=1) < reach) & (np.abs(gap[:, 2]) < _REST_HEIGHT)
    at_rest = state.object_speed[:, TARGET] < _REST_SPEED
    near = np.linalg.norm(state.hand_position - target[:, None], axis=-1) < _HAND_NEAR
    released = (~near | (state.opening > options.object_size + 0.02)).all(axis=1)
    result: np.ndarray = there & at_rest & released
    return result


def potential(tasks: np.ndarray, state: Snapshot, options: Options) -> np.ndarray:
    """How close a world is to success: the nearer hand to the target, the target to its goal.

    The dense reward pays differences of it, which leaves the best policy unchanged (Ng, Harada and Russell, 1999).

    Args:
        tasks: int [N].
        state: N worlds.
        options: object sizes.

    Returns:
        [N], 0 at best.
    """
    target = state.object_position[:, TARGET]
    reach = np.linalg.norm(state.hand_position - target[:, None], axis=-1).min(axis=1)
    carry = np.linalg.norm(target - goal(tasks, state, options), axis=1)
    result: np.ndarray = -np.tanh(4 * reach) * 0.5 - np.tanh(4 * carry)
    return result


def proprioception(state: Snapshot) -> np.ndarray:
    """What the robot feels of itself, every number of order one.

    Args:
        state: N worlds.

    Returns:
        float32 [N, 16], per arm: grip point scaled to the workspace (3), first column of the hand's rotation (3), the
        rotation's last diagonal number plus one (0 when the hand points down), finger opening from -1 shut to 1 open.
    """
    position = (state.hand_position - _CENTRE) / _HALF_EXTENT
    heading = state.hand_rotation[..., :, 0]
    tilt = state.hand_rotation[..., 2, 2:] + 1
    opening = state.opening[..., None] / _FULL_OPENING * 2 - 1
    parts = np.concatenate([position, heading, tilt, opening], axis=-1)
    return parts.reshape(len(parts), -1).astype(np.float32)


_CENTRE = np.array([[-0.04, 0.13, 0.15], [-0.04, -0.13, 0.15]])
_HALF_EXTENT = np.array([0.24, 0.27, 0.15])
_FULL_OPENING = 0.1
PROPRIO_DIM = 16
