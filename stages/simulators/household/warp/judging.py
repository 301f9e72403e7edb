"""Success, reward and the ends of episodes as Warp kernels: `goals.Goals` and the step limits, a thread a world."""

import warp as wp

from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.goals import HAND_NEAR, REST_SPEED
from stages.simulators.household.warp import sight as seeing
from stages.simulators.household.warp.sight import Places, Sight

wp.set_module_options({"enable_backward": False})

# How a world of a chunk is: it goes on, or it ended in one of these ways.
GOES_ON, SUCCESS, TRUNCATED, BROKEN = range(4)

_SUCCESS, _TRUNCATED, _BROKEN = wp.constant(SUCCESS), wp.constant(TRUNCATED), wp.constant(BROKEN)
_REST_SPEED, _HAND_NEAR = wp.constant(REST_SPEED), wp.constant(HAND_NEAR)
_LARGEST = wp.constant(1e10)  # mjMAXVAL: larger numbers of a state count as broken


@wp.struct
class Goals:
    """The goals of T tasks; see `goals.Goals`, whose arrays these are, and `tasks` with the numbers of their atoms."""

    tasks: wp.array2d[wp.int32]
    limit: wp.array[wp.int32]
    slid: wp.array[wp.int32]
    turned: wp.array[wp.int32]
    item: wp.array[wp.int32]
    drawer: wp.array[wp.int32]
    handle: wp.array[wp.int32]
    ends: wp.array2d[wp.int32]
    offset: wp.array[wp.vec3]
    half: wp.array[wp.vec3]
    points: wp.array2d[wp.vec3]
    radius: wp.array[wp.float32]
    released: wp.array[wp.float32]
    least: wp.array[wp.float32]
    most: wp.array[wp.float32]
    best: wp.array[wp.float32]


def compiled(benchmark: Benchmark) -> Goals:
    """The goals of a benchmark on the current device."""
    made = Goals()
    made.limit = wp.array(benchmark.step_limit, dtype=wp.int32)
    for name, values in benchmark.goals.tables().items():
        kind = wp.vec3 if name in ("offset", "half", "points") else wp.float32 if values.dtype.kind == "f" else wp.int32
        setattr(made, name, wp.array(values, dtype=kind))
    return made


@wp.func
def _gap(goals: Goals, places: Places, sight: Sight, row: int, atom: int) -> wp.vec3:
    """See `Goals._gap`."""
    first = seeing.frame_position(places, sight, row, goals.ends[atom, 0])
    second = seeing.frame_position(places, sight, row, goals.ends[atom, 1])
    gap = sight.object_position[row, goals.item[atom]] - (0.5 * (first + second) + goals.offset[atom])
    frame = goals.ends[atom, 0]
    # Only objects turn; the axes of all other frames are the world's.
    if goals.turned[atom] != 0 and frame < places.body.shape[0]:
        gap = wp.transpose(sight.object_rotation[row, frame]) * gap
    return gap


@wp.func
def _hand_distance(goals: Goals, sight: Sight, row: int, atom: int, side: int) -> float:
    """See `Goals._hand_distance`."""
    item = goals.item[atom]
    nearest = wp.float32(wp.inf)
    for i in range(goals.points.shape[1]):
        point = sight.object_position[row, item] + sight.object_rotation[row, item] * goals.points[atom, i]
        nearest = wp.min(nearest, wp.length(sight.hand_position[row, side] - point))
    return nearest


@wp.func
def _holds(goals: Goals, places: Places, sight: Sight, row: int, atom: int) -> bool:
    """See `Goals.holds`."""
    if goals.slid[atom] != 0:
        opening = sight.drawer[row, goals.drawer[atom]]
        return opening >= goals.least[atom] and opening <= goals.most[atom]
    gap = _gap(goals, places, sight, row, atom)
    half = goals.half[atom]
    there = wp.abs(gap[0]) < half[0] and wp.abs(gap[1]) < half[1] and wp.abs(gap[2]) < half[2]
    there = there and wp.length(wp.vec2(gap[0], gap[1])) < goals.radius[atom]
    there = there and sight.object_speed[row, goals.item[atom]] < _REST_SPEED
    for side in range(2):
        near = _hand_distance(goals, sight, row, atom, side) < _HAND_NEAR
        there = there and (not near or sight.opening[row, side] > goals.released[atom])
    return there


@wp.func
def _left(goals: Goals, places: Places, sight: Sight, row: int, atom: int) -> float:
    """How far an atom is from holding; see `Goals.potential`."""
    carry = wp.float32(0.0)
    reach = wp.float32(0.0)
    if goals.slid[atom] != 0:
        carry = wp.abs(sight.drawer[row, goals.drawer[atom]] - goals.best[atom])
        handle = seeing.frame_position(places, sight, row, goals.handle[atom])
        left = wp.length(handle - sight.hand_position[row, 0])
        reach = wp.min(left, wp.length(handle - sight.hand_position[row, 1]))
    else:
        carry = wp.length(_gap(goals, places, sight, row, atom))
        left = _hand_distance(goals, sight, row, atom, 0)
        reach = wp.min(left, _hand_distance(goals, sight, row, atom, 1))
    return -0.5 * wp.tanh(4.0 * reach) - wp.tanh(4.0 * carry)


@wp.func
def _state(goals: Goals, places: Places, sight: Sight, row: int, task: int) -> tuple[bool, float]:
    """Whether a task is solved, and its potential."""
    solved = wp.bool(True)
    potential = wp.float32(0.0)
    for i in range(goals.tasks.shape[1]):
        atom = goals.tasks[task, i]
        if atom >= 0 and not _holds(goals, places, sight, row, atom):
            solved = False
            potential += _left(goals, places, sight, row, atom)
    return solved, potential


@wp.kernel
def keep(
    qpos: wp.array2d[wp.float32],
    qvel: wp.array2d[wp.float32],
    warmstart: wp.array2d[wp.float32],
    step: wp.array[wp.int32],
    ended: wp.array[wp.int32],
    steps: wp.array[wp.int32],
    executed: wp.array2d[wp.int32],
    state: wp.array2d[wp.float32],
) -> None:
    """Keep the states of the worlds that made a step; one whose physics broke down ends, and keeps the state before."""
    row = wp.tid()
    if ended[row] != 0:
        return
    executed[row, step[0]] = 1
    steps[row] += 1
    positions = qpos.shape[1]
    velocities = qvel.shape[1]
    for i in range(positions):
        if not wp.abs(qpos[row, i]) <= _LARGEST:
            ended[row] = _BROKEN
    for i in range(velocities):
        if not (wp.abs(qvel[row, i]) <= _LARGEST and wp.abs(warmstart[row, i]) <= _LARGEST):
            ended[row] = _BROKEN
    if ended[row] != 0:
        return
    for i in range(positions):
        state[row, i] = qpos[row, i]
    for i in range(velocities):
        state[row, positions + i] = qvel[row, i]
        state[row, positions + velocities + i] = warmstart[row, i]


@wp.kernel
def judge(
    goals: Goals,
    places: Places,
    sight: Sight,
    task: wp.array[wp.int32],
    dense: bool,
    step: wp.array[wp.int32],
    steps: wp.array[wp.int32],
    ended: wp.array[wp.int32],
    potential: wp.array[wp.float32],
    rewards: wp.array2d[wp.float32],
) -> None:
    """Say what a step was worth in the worlds that have not ended before it, and which end by it."""
    row = wp.tid()
    if ended[row] != 0:
        return
    solved, value = _state(goals, places, sight, row, task[row])
    reward = wp.float32(0.0)
    if solved:
        reward = 1.0
    if dense:
        reward += value - potential[row]
    potential[row] = value
    rewards[row, step[0]] = reward
    if solved:
        ended[row] = _SUCCESS
    elif steps[row] >= goals.limit[task[row]]:
        ended[row] = _TRUNCATED


@wp.kernel
def value(
    goals: Goals,
    places: Places,
    sight: Sight,
    task: wp.array[wp.int32],
    solved: wp.array[wp.int32],
    potential: wp.array[wp.float32],
) -> None:
    """Whether worlds are solved, and their potentials."""
    row = wp.tid()
    holds, left = _state(goals, places, sight, row, task[row])
    potential[row] = left
    if holds:
        solved[row] = 1
