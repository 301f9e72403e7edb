"""Success, potential and looks as Warp kernels: what the tasks' own predicates say of the same states."""

import numpy as np
import pytest
import warp as wp

from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.options import parse
from stages.simulators.household.physics import Physics
from stages.simulators.household.warp import judging
from stages.simulators.household.warp import sight as seeing
from stages.simulators.household.warp.device import Device

WORLDS = 2_000


@pytest.fixture(scope="module")
def device():
    with Device().current(None):
        yield


def _near_success(benchmark, tasks, random):
    """States of which some are solved: most things near where a goal wants them, hands anywhere."""
    kit = benchmark.kit
    count, objects, drawers = len(tasks), len(kit.props), len(kit.drawers)
    state = kit.empty(count)
    state.object_position[:] = random.uniform(-0.2, 0.2, (count, objects, 3)) * [1, 1, 0.2]
    turn = random.uniform(-np.pi, np.pi, (count, objects))
    cos, sin, zero = np.cos(turn), np.sin(turn), np.zeros_like(turn)
    state.object_rotation[:] = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], -1).reshape(
        count, objects, 3, 3
    )
    state.object_speed[:] = random.uniform(0, 0.12, (count, objects))
    state.hand_position[:] = random.uniform(-0.3, 0.3, (count, 2, 3))
    state.opening[:] = random.uniform(0, 0.1, (count, 2))
    state.drawer[:] = random.uniform(0, 0.18, (count, drawers))
    kit.locate(state)
    tables = benchmark.goals.tables()
    for numbers in tables["tasks"][tasks].T:  # one atom of each world's task after the other
        rows = np.flatnonzero((numbers >= 0) & (tables["slid"][numbers] == 0) & (random.random(count) < 0.8))
        atoms = numbers[rows]
        first, second = (state.frame_position[rows, ends] for ends in tables["ends"][atoms].T)
        slack = random.uniform(-0.6, 0.6, (len(rows), 3)) * [0.05, 0.05, 0.008]
        state.object_position[rows, tables["item"][atoms]] = (first + second) / 2 + tables["offset"][atoms] + slack
        kit.locate(state)
    return state


@pytest.mark.parametrize("suite", ["practice", "spatial", "object", "goal", "long"])
def test_worlds_are_judged_as_the_goals_judge_them(device, suite):
    benchmark = Benchmark(parse({"tasks": [suite]}))
    random = np.random.default_rng(3)
    tasks = random.integers(0, len(benchmark.tasks), WORLDS)
    state = _near_success(benchmark, tasks, random)
    solved, potential = benchmark.goals.succeeded(tasks, state), benchmark.goals.potential(tasks, state)
    physics = Physics(benchmark.scenes[0], benchmark.kit, 200, 64)
    sight = seeing.room(benchmark.kit, WORLDS)
    seeing.write(sight, state)
    holds, left = wp.zeros(WORLDS, dtype=wp.int32), wp.zeros(WORLDS, dtype=wp.float32)
    goals, places = judging.compiled(benchmark), seeing.places(physics, benchmark.kit)
    wp.launch(
        judging.value,
        dim=WORLDS,
        inputs=[goals, places, sight, wp.array(tasks, dtype=wp.int32)],
        outputs=[holds, left],
    )
    assert 0.02 < solved.mean() < 0.98
    np.testing.assert_array_equal(holds.numpy().astype(bool), solved)
    np.testing.assert_allclose(left.numpy(), potential, atol=1e-5)
