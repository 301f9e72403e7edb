"""Every task of the household: its line in the catalogue, its start, its expert, its determinism."""

import numpy as np
import pytest

from stages.simulators.household import catalogue, suites
from stages.simulators.household.options import Options
from stages.simulators.interface import HELD_OUT, Episode, Simulator, make

ALL = tuple(catalogue.entries())
SEEDS = range(HELD_OUT, HELD_OUT + 3)


def _make(num_envs: int, tasks, **options) -> Simulator:
    return make("household", num_envs, {"renderer": "raycast", "image_size": 32, "tasks": list(tasks), **options})


@pytest.fixture(scope="module")
def everything() -> Simulator:
    """Two worlds that may be asked for any task."""
    return _make(2, ALL)


def test_the_catalogue_lists_what_is_defined():
    for suite, names in catalogue.suites().items():
        entries = [catalogue.entries()[name] for name in names]
        assert list(suites.SUITES[suite](Options())) == list(names)
        assert [entry.index for entry in entries] == list(range(len(names)))
        assert len({entry.instruction for entry in entries}) == len(names)
        assert all(entry.instruction == entry.instruction.strip().lower() for entry in entries)
    assert list(catalogue.suites()) == list(suites.SUITES)


@pytest.mark.parametrize("suite", ["spatial", "object", "goal", "long"])
def test_a_suite_has_at_least_ten_tasks(suite):
    assert len(catalogue.suites()[suite]) >= 10


@pytest.mark.parametrize("name", ALL)
def test_the_expert_solves_held_out_states_and_the_reward_says_so(name):
    simulator = _make(len(SEEDS), [name], reward="dense")
    slots = range(len(SEEDS))
    simulator.reset(slots, [Episode(name, seed) for seed in SEEDS], [False] * len(SEEDS))
    rewards, success = np.zeros(len(SEEDS)), np.zeros(len(SEEDS), dtype=bool)
    while True:
        actions, clean, result = simulator.expert_chunk(slots, 8)
        if not result.executed.any():
            break
        assert clean.all()
        assert np.abs(actions).max() <= 1
        rewards += result.rewards.sum(axis=1)
        success |= result.success
    assert success.all()
    # The potential starts below zero and ends at zero.
    assert (rewards > 1).all()


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_solved_or_moves_at_the_start(name):
    worlds = 12
    simulator = _make(worlds, [name], reward="dense")
    episodes = [Episode(name, HELD_OUT + seed) for seed in range(worlds)]
    simulator.reset(range(worlds), episodes, [False] * worlds)
    idle = np.zeros((worlds, 8, 14), np.float32)
    result = simulator.step_chunk(range(worlds), idle)
    assert result.executed.all()
    assert not result.success.any()
    # Things settle by a hair and stay where they are.
    assert np.abs(result.rewards).max() < 0.02


@pytest.mark.parametrize("name", ALL)
def test_an_episode_is_the_same_alone_and_among_all_tasks(everything, name):
    alone = _make(1, [name])
    alone.reset([0], [Episode(name, 5)], [False])
    everything.reset([0, 1], [Episode("stack", 1), Episode(name, 5)], [False, False])
    for _ in range(3):
        expected, _, _ = alone.expert_chunk([0], 8)
        actions, _, _ = everything.expert_chunk([1, 0], 8)
        np.testing.assert_array_equal(actions[0], expected[0])
    np.testing.assert_array_equal(everything.observe([1]).proprio, alone.observe([0]).proprio)


@pytest.mark.parametrize("name", ALL)
def test_a_state_restored_into_another_world_goes_on_the_same(everything, name):
    everything.reset([0, 1], [Episode(name, 3), Episode("pick_onto_plate", 4)], [False, False])
    everything.expert_chunk([0], 17)
    state = everything.save_state(0)
    actions, _, result = everything.expert_chunk([0], 16)
    after = everything.save_state(0)
    everything.restore_state(1, state)
    repeated, _, again = everything.expert_chunk([1], 16)
    np.testing.assert_array_equal(repeated, actions)
    np.testing.assert_array_equal(again.rewards, result.rewards)
    assert everything.save_state(1) == after


@pytest.mark.parametrize("suite", list(catalogue.suites()))
def test_the_expert_recovers_from_being_perturbed(suite):
    names = catalogue.suites()[suite]
    worlds = len(names)
    simulator = _make(worlds, names, expert_perturbation=0.03, max_episode_steps=400)
    episodes = [Episode(name, 0) for name in names]
    simulator.reset(range(worlds), episodes, [False] * worlds)
    _, clean, result = simulator.expert_chunk(range(worlds), 400)
    assert 0 < (~clean & result.executed).sum() < 0.4 * result.executed.sum()
    assert result.success.mean() >= 0.75
