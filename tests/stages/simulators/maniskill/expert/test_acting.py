"""What ManiSkill's expert makes of what it sees: rows of worlds, signs and frames, mishaps, bursts of motion."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from stages.simulators.interface import Episode, SimulatorConfigError
from stages.simulators.maniskill import expert
from stages.simulators.maniskill.expert import motions
from stages.simulators.maniskill.expert.tables import tabulate
from stages.simulators.maniskill.expert.tasks import PLANS
from stages.simulators.maniskill.worlds import Worlds
from tests.stages.simulators.maniskill.stand_in import StandIn

PICK = "TwoRobotPickCube-v1"
DOWN = Rotation.from_euler("x", np.pi)


def sights(task, count, stream):
    """Random states: hands anywhere over the table, turned by up to 45 degrees, fingers at any width."""
    table = tabulate(PLANS[task])
    shape = (count, table.arms)
    turned = Rotation.from_rotvec(stream.uniform(-0.45, 0.45, (count * table.arms, 3)))
    return expert.Sight(
        hand=stream.uniform((-0.3, -0.4, 0.01), (0.3, 0.4, 0.4), (*shape, 3)),
        axes=(turned * DOWN).as_matrix().reshape(*shape, 3, 3),
        opening=stream.uniform(0, 0.08, shape),
        base=stream.uniform(-np.pi, np.pi, shape),
        object=stream.uniform((-0.2, -0.2, 0.0), (0.2, 0.2, 0.3), (count, 1 + len(table.names), 3)),
        yaw=stream.uniform(-np.pi, np.pi, (count, 1 + len(table.names))),
    )


def memories(task, count, stream):
    """Random places in the plan."""
    memory, table = expert.begin(count), tabulate(PLANS[task])
    memory.stage[:, : table.arms] = stream.integers(0, table.stages.kind.shape[1], (count, table.arms))
    for arm, plan in enumerate(PLANS[task]):
        memory.stage[:, arm] = np.minimum(memory.stage[:, arm], len(plan) - 1)
    memory.timer[:, : table.arms] = stream.integers(0, 12, (count, table.arms))
    return memory


@settings(max_examples=40, deadline=None)
@given(task=st.sampled_from(sorted(expert.TASKS)), seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_worlds_do_not_see_each_other_and_numbers_stay_in_bounds(task, seed, count):
    stream = np.random.default_rng(seed)
    sight, memory = sights(task, count, stream), memories(task, count, stream)
    actions, after = expert.act(task, sight, memory)
    assert actions.shape == (count, 7 * len(PLANS[task]))
    assert np.abs(actions).max() <= 1
    for row in range(count):
        alone, then = expert.act(task, sight.take(np.array([row])), memory.take(np.array([row])))
        assert np.array_equal(alone[0], actions[row])
        for field in dataclasses.fields(then):
            assert np.array_equal(getattr(then, field.name)[0], getattr(after, field.name)[row])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_hands_move_and_turn_the_right_way_in_the_frame_of_their_robots_base(seed):
    stream = np.random.default_rng(seed)
    sight, stages = sights(PICK, 1, stream), tabulate(PLANS[PICK]).stages.take(np.zeros((1, 2), dtype=int))
    way, turn = motions.way(stages, sight), motions.turn(stages, sight)
    numbers = motions.commands(way, turn, stages.shut, sight.base).reshape(2, 7)
    for arm in range(2):
        base = Rotation.from_euler("z", sight.base[0, arm])
        moved = base.apply(numbers[arm, :3])
        assert np.dot(moved, way[0, arm]) == pytest.approx(np.linalg.norm(moved) * np.linalg.norm(way[0, arm]))
        # ManiSkill turns a hand by its numbers times -0.1 about the axes of the base.
        turned = Rotation.from_rotvec(base.apply(-0.1 * numbers[arm, 3:6])) * Rotation.from_matrix(sight.axes[0, arm])
        after = dataclasses.replace(sight, axes=sight.axes.copy())
        after.axes[0, arm] = turned.as_matrix()
        off, less = np.linalg.norm(turn[0, arm]), np.linalg.norm(motions.turn(stages, after)[0, arm])
        assert less < off
    assert numbers[:, 6].tolist() == [1.0, 1.0]


def run(worlds, memory, steps, mishap=None):
    """Let the expert act in all worlds until each has succeeded: at which step, -1 for never."""
    solved = np.full(worlds.count, -1)
    for step in range(steps):
        if mishap is not None:
            mishap(step)
        actions, memory = expert.act(worlds.task, worlds.sight(), memory)
        success = worlds.step(torch.as_tensor(actions, dtype=torch.float32)).success.numpy()
        solved = np.where((solved < 0) & success, step, solved)
    return solved


def stand(count):
    worlds = Worlds(StandIn(count), PICK)
    for row in range(count):
        worlds.reset(row, row)
    return worlds


def test_a_cube_that_is_lost_on_the_way_is_fetched_again():
    worlds = stand(3)
    env, lost = worlds.env, np.zeros(3, dtype=bool)

    def drop(_step):
        on_the_way = ~lost & (env.held == 0).numpy() & (env.places[:, 0, 2] > 0.04).numpy()
        env.held[on_the_way] = -1.0
        env.places[on_the_way, 0] = torch.tensor([0.03, -0.12, 0.02])
        lost[on_the_way] = True

    assert (run(worlds, expert.begin(3), 99, drop) >= 0).all()
    assert lost.all()


def test_a_cube_that_is_knocked_off_where_it_was_put_is_put_there_again():
    worlds = stand(3)
    env, knocked = worlds.env, np.zeros(3, dtype=bool)

    def knock(_step):
        let_go = ~knocked & (env.held.numpy() < 0) & (env.places[:, 0, 1].abs() < 0.02).numpy()
        env.places[let_go, 0, 1] = -0.15
        knocked[let_go] = True

    assert (run(worlds, expert.begin(3), 99, knock) >= 0).all()
    assert knocked.all()


def test_bursts_last_two_to_five_steps_and_leave_grippers_alone():
    count, task = 40, PICK
    memory, streams = expert.begin(count), [expert.stream(Episode(task, seed)) for seed in range(count)]
    actions = np.tile(np.array([0.1] * 6 + [1.0] + [0.2] * 6 + [-1.0]), (count, 1))
    marks = []
    for _ in range(60):
        changed, clean, memory = expert.perturb(task, actions, memory, streams, 0.1)
        assert np.array_equal(changed[clean], actions[clean])
        assert (changed[~clean][:, :6] != actions[~clean][:, :6]).all()
        assert np.array_equal(changed[:, [6, 13]], actions[:, [6, 13]])
        assert np.abs(changed).max() <= 1
        marks.append(~clean)
    for row in np.array(marks).T:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        lengths = edges[1::2] - edges[::2]
        whole = lengths[:-1] if row[-1] else lengths
        assert ((whole >= 2).all()) or not len(whole)
    share = np.mean(marks)
    assert 0.1 < share < 0.4
    unchanged, clean, _ = expert.perturb(task, actions, expert.begin(count), streams, 0.0)
    assert clean.all()
    assert np.array_equal(unchanged, actions)


def test_memory_travels_and_rows_go_where_they_belong():
    memory = memories(PICK, 5, np.random.default_rng(0))
    rows = np.array([3, 1])
    copied = pickle.loads(pickle.dumps(memory.take(rows)))
    target = expert.begin(5)
    target.put(rows, copied)
    assert np.array_equal(target.stage[rows], memory.stage[rows])
    assert (target.stage[[0, 2, 4]] == 0).all()


def test_a_task_without_an_expert_is_refused_by_name():
    with pytest.raises(SimulatorConfigError) as refused:
        expert.require("PlaceSphere-v1")
    assert str(refused.value) == (
        "maniskill: PlaceSphere-v1 has no expert; tasks that have one: TwoRobotPickCube-v1, TwoRobotStackCube-v1, "
        "PickCube-v1, StackCube-v1, PushCube-v1, PullCube-v1"
    )
    expert.require(PICK)
