"""Worlds that MuJoCo Warp moves, in its CPU mode: the same as MuJoCo's, and held to the same interface."""

import copy

import numpy as np
import pytest

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError, make

from .conftest import OPTIONS, TASKS, WORLDS

CHUNK = 8
# Metres that worlds may be apart after a chunk of the same actions. Single precision against double, measured over all
# suites: hands 1e-7 at the median and 4e-7 at most, objects 2e-6 and 1.6e-4.
HANDS, OBJECTS = 2e-6, 5e-4
SLOTS = np.arange(WORLDS)


def _episodes(first: int = 0) -> list[Episode]:
    return [Episode(TASKS[i % len(TASKS)], HELD_OUT + first + i) for i in range(WORLDS)]


def _actions(seed: int, count: int = WORLDS, length: int = CHUNK) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(0, 0.5, (count, length, 14)), -1, 1).astype(np.float32)


def _begin(*simulators, first: int = 0, film: bool = False):
    for simulator in simulators:
        simulator.reset(SLOTS, _episodes(first), [film] * WORLDS)


def _expert(simulator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Success [N], steps [N] and actions, chunk by chunk, of the expert until all worlds are done."""
    success, steps, taken = np.zeros(WORLDS, bool), np.zeros(WORLDS, int), []
    while True:
        actions, _, result = simulator.expert_chunk(SLOTS, CHUNK)
        if not result.executed.any():
            return success, steps, taken
        success |= result.success
        steps += result.executed.sum(axis=1)
        taken.append(actions)


def test_episodes_begin_where_those_of_mujoco_do(warp, plain):
    _begin(warp, plain)
    ours, theirs = warp.observe(SLOTS), plain.observe(SLOTS)
    np.testing.assert_allclose(ours.proprio, theirs.proprio, atol=2e-6)
    for name in ("head", "wrist"):
        assert np.mean(getattr(ours, name) == getattr(theirs, name)) > 0.999


def test_after_a_chunk_of_the_same_actions_worlds_are_where_those_of_mujoco_are(warp, plain):
    _begin(warp, plain, first=10)
    ours, theirs = (simulator.step_chunk(SLOTS, _actions(0)) for simulator in (warp, plain))
    np.testing.assert_allclose(ours.rewards, theirs.rewards, atol=OBJECTS)
    np.testing.assert_array_equal(ours.executed, theirs.executed)
    ours, theirs = (simulator.engine.snapshot(SLOTS) for simulator in (warp, plain))
    np.testing.assert_allclose(ours.hand_position, theirs.hand_position, atol=HANDS)
    np.testing.assert_allclose(ours.object_position, theirs.object_position, atol=OBJECTS)
    np.testing.assert_allclose(ours.drawer, theirs.drawer, atol=OBJECTS)


def test_the_expert_solves_its_tasks_and_stops_at_the_step_that_does(warp, plain):
    _begin(warp, plain, first=20)
    (solved, steps, _), (_, theirs, _) = _expert(warp), _expert(plain)
    assert solved.all()
    assert np.abs(steps - theirs).max() <= 3
    assert not warp.step_chunk(SLOTS, _actions(0)).executed.any()


def test_a_chunk_is_what_its_steps_are_and_a_world_that_is_done_stays_as_it_was(warp):
    _begin(warp, first=30)
    _, steps, taken = _expert(warp)
    actions = np.concatenate(taken, axis=1)
    alone = [warp.save_state(slot) for slot in SLOTS]  # after the expert, step by step
    _begin(warp, first=30)
    whole = warp.step_chunk(SLOTS, actions)
    np.testing.assert_array_equal(whole.executed.sum(axis=1), steps)
    assert whole.success.all()
    assert (whole.terminated == whole.success).all()
    assert not whole.truncated.any()
    assert (whole.rewards[~whole.executed] == 0).all()
    for slot in SLOTS:
        once, again = (warp.engine.snapshot(np.array([slot])) for _ in range(2))
        warp.restore_state(slot, alone[slot])
        for name, values in vars(warp.engine.snapshot(np.array([slot]))).items():
            np.testing.assert_array_equal(getattr(once, name), values)
            np.testing.assert_array_equal(getattr(again, name), values)


def test_an_episode_is_the_same_alone_in_a_crowd_and_whatever_was_there_before(warp):
    actions = _actions(1, length=12)
    _begin(warp, first=40)
    warp.step_chunk(SLOTS, actions)
    expected = copy.deepcopy(warp.observe([2]))
    _begin(warp, first=50)
    warp.step_chunk([2, 0], _actions(2, count=2, length=3))
    warp.reset([1], [_episodes(40)[2]], [False])
    warp.step_chunk([3, 1], actions[[3, 2]])
    found = warp.observe([1])
    for name in ("head", "wrist", "proprio"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_restored_world_goes_on_exactly_as_the_saved_one_did(warp):
    _begin(warp, first=60)
    warp.expert_chunk([0, 1], 13)
    state = warp.save_state(0)
    actions, _, result = warp.expert_chunk([0], 10)
    after = copy.deepcopy(warp.observe([0]))
    warp.expert_chunk([3], 9)
    warp.restore_state(3, state)  # a world of another scene
    again, _, repeated = warp.expert_chunk([3], 10)
    np.testing.assert_array_equal(again, actions)
    np.testing.assert_array_equal(repeated.rewards, result.rewards)
    np.testing.assert_array_equal(warp.observe([3]).head, after.head)


def test_a_filmed_world_returns_a_frame_a_step_and_takes_the_same_steps(warp):
    _begin(warp, first=70)
    warp.step_chunk(SLOTS, _actions(3, length=3))
    expected = warp.observe([1]).proprio
    warp.reset([1], [_episodes(70)[1]], [True])
    result = warp.step_chunk([1, 2], _actions(3, length=3)[1:3])
    assert [len(frames) for frames in result.frames] == [3, 0]
    assert result.frames[0][0].shape == (448, 672, 3)
    np.testing.assert_array_equal(warp.observe([1]).proprio, expected)


def test_worlds_beside_a_filmed_one_make_their_chunk_in_one_go(warp, monkeypatch):
    _begin(warp, first=80)
    warp.reset([1], [_episodes(80)[1]], [True])
    run, asked = warp.engine.run, []

    def noted(slots, actions):
        asked.append((slots.tolist(), actions.shape[1]))
        return run(slots, actions)

    monkeypatch.setattr(warp.engine, "run", noted)
    result = warp.step_chunk(SLOTS, _actions(4, length=3))
    assert asked == [([0, 2, 3], 3), ([1], 1), ([1], 1), ([1], 1)]
    assert result.executed.all()


def test_it_says_what_it_is(warp):
    assert warp.spec.version.endswith("the CPU")
    assert "mujoco_warp 4.0.0" in warp.spec.version
    assert warp.spec.renderer == "raycast"
    assert warp.spec.deterministic


def test_a_world_stops_at_its_step_limit(compiled):
    simulator = make("household", 1, {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp", "max_episode_steps": 5})
    simulator.reset([0], [Episode("stack", 0)], [False])
    result = simulator.step_chunk([0], np.zeros((1, CHUNK, 14), np.float32))
    np.testing.assert_array_equal(result.executed[0], np.arange(CHUNK) < 5)
    assert result.truncated[0]
    assert not result.terminated[0]
    simulator.close()


@pytest.mark.parametrize("task", ["fold", "practice"])
def test_an_unknown_task_is_refused(warp, task):
    with pytest.raises(SimulatorConfigError, match=f"^household: no task '{task}' here; tasks: {', '.join(TASKS)}$"):
        warp.reset([0], [Episode(task, 0)], [False])
