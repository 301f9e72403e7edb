"""The adapter on every build of OmniGibson: episodes, clocks, pictures and instances."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError
from stages.simulators.omnigibson.robot import REST

BUILDS = ("b", "b_first_patch", "b_fork", "c_vector", "c")
RADIO = "turning_on_radio"
CHUNK = 8


def up(arms: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """A chunk that raises hands by 5 cm a step: [K, 14]."""
    chunk = np.zeros((CHUNK, 14), np.float32)
    for arm in arms:
        chunk[:, 7 * arm + 2] = 1
    return chunk


def hands(observation) -> np.ndarray:
    """Positions of both hands, [N, 2, 3]."""
    return observation.proprio.reshape(len(observation.proprio), 2, 9)[:, :, :3]


@pytest.mark.parametrize("build", BUILDS)
def test_an_episode_ends_with_the_task(make, build):
    simulator = make(build, 2)
    simulator.reset([0, 1], [Episode(RADIO, 3), Episode(RADIO, 4)], [False, False])  # instances 4 and 5
    result = simulator.step_chunk([1, 0], np.stack([up(), up((0,))]))
    # Instance 5 has to be raised by 6 cm, which takes two steps; half of the goal is the left hand alone.
    assert result.executed.sum(axis=1).tolist() == [2, CHUNK]
    assert result.success.tolist() == result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [False, False]
    assert result.rewards.sum(axis=1).tolist() == [1.0, 0.5]
    assert result.scores.tolist() == pytest.approx([1.0, 2 / 3])  # the second grounding counts the left hand twice


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("limit", [1, 8, 11])
def test_an_episode_is_cut_off_at_its_limit_and_not_a_step_later(make, build, limit):
    simulator = make(build, 1, max_episode_steps=limit)
    told, step = [], simulator.worlds.step
    simulator.worlds.step = lambda *arguments: told.append(step(*arguments)) or told[-1]
    simulator.reset([0], [Episode(RADIO, 0)], [False])
    steps = 0
    for _ in range(3):
        result = simulator.step_chunk([0], np.zeros((1, CHUNK, 14), np.float32))
        steps += int(result.executed.sum())
        assert result.truncated[0] == (steps == limit)
        if result.truncated[0]:
            break
    assert steps == limit
    assert not result.terminated[0]
    assert simulator.spec.max_episode_steps == limit
    # OmniGibson itself has told so in that very step, though it looks at its counter before it counts.
    assert [outcome.truncated for [outcome] in told] == [False] * (limit - 1) + [True]


@pytest.mark.parametrize("build", BUILDS)
def test_steps_in_which_a_world_is_held_are_none_of_its_episode(make, build):
    """OmniGibson's own counter goes on for it."""
    simulator = make(build, 2, max_episode_steps=CHUNK + 1)
    simulator.reset([0, 1], [Episode(RADIO, 0), Episode(RADIO, 0)], [False, False])
    still = np.zeros((1, CHUNK, 14), np.float32)
    for slot in (0, 1):
        result = simulator.step_chunk([slot], still)
        assert result.executed.all()
        assert not result.truncated[0]
    for slot in (1, 0):
        result = simulator.step_chunk([slot], still)
        assert (result.executed.sum(), result.truncated[0]) == (1, True)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("mode", ["ee_delta_14", "joint_23"])
def test_worlds_that_are_not_stepped_stay_where_they_are(make, build, mode):
    simulator = make(build, 3, action_mode=mode, max_episode_steps=500)
    simulator.reset([0, 1, 2], [Episode(RADIO, seed) for seed in range(3)], [False] * 3)
    width = simulator.spec.action_dim
    moving = np.random.default_rng(0).uniform(-1, 1, (3, CHUNK, width)).astype(np.float32)
    simulator.step_chunk([0, 1, 2], moving)  # in joint_23 the bases are at speed now
    before = [simulator.worlds.joints(slot) for slot in range(3)]
    for act in (
        lambda: simulator.reset([1], [Episode(RADIO, 7)], [False]),
        lambda: simulator.step_chunk([1], moving[:1]),
    ):
        act()
        after = [simulator.worlds.joints(slot) for slot in range(3)]
        for slot in (0, 2):
            np.testing.assert_allclose(after[slot], before[slot], atol=1e-6)
        assert np.abs(after[1] - before[1]).max() > 0.01


@pytest.mark.parametrize("build", BUILDS)
def test_an_observation_shows_what_is_there_now(make, build):
    """The fake's cameras lag by two frames, as the real ones do."""
    simulator = make(build, 2)
    simulator.reset([0, 1], [Episode(RADIO, 1), Episode(RADIO, 2)], [False, False])
    first = simulator.observe([0, 1])
    assert first.head.dtype == first.wrist.dtype == np.uint8
    assert first.head.shape == (2, 3, 32, 32)
    assert first.wrist.shape == (2, 2, 3, 32, 32)
    assert first.proprio.shape == (2, 18)
    simulator.step_chunk([0], up((0,))[None])
    second = simulator.observe([1, 0])
    assert np.array_equal(second.head[0], first.head[1])
    told = (hands(second)[1].reshape(-1) * 1000).astype(np.int64) % 256  # which the fake paints into the picture
    assert np.abs(second.head[1, 2, 0, :6].astype(int) - told).max() <= 1
    assert not np.array_equal(second.head[1], first.head[0])
    left, right = second.wrist[1]
    assert (left[2, -1, -1], right[2, -1, -1], second.head[1, 2, -1, -1]) == (60, 120, 180)


@pytest.mark.parametrize("build", BUILDS)
def test_nothing_is_drawn_or_read_inside_a_chunk(make, build):
    simulator = make(build, 2)
    fake_robot = importlib.import_module("fake_omnigibson.robot")
    simulator.reset([0, 1], [Episode(RADIO, 1), Episode(RADIO, 2)], [False, False])
    looks, look = [], fake_robot.R1Pro.get_obs
    fake_robot.R1Pro.get_obs = lambda robot: looks.append(robot) or look(robot)
    drawn = sys.modules["omnigibson"].sim.renders
    simulator.step_chunk([0, 1], np.zeros((2, CHUNK, 14), np.float32))
    assert (looks, sys.modules["omnigibson"].sim.renders) == ([], drawn)
    simulator.observe([0, 1])
    assert len(looks) == 2
    assert sys.modules["omnigibson"].sim.renders == drawn + 3


def test_both_switches_can_be_turned_off(make):
    for build in BUILDS:
        simulator = make(build, 1, observe_every_step=True, render_every_step=True)
        simulator.reset([0], [Episode(RADIO, 1)], [False])
        drawn = sys.modules["omnigibson"].sim.renders
        simulator.step_chunk([0], np.zeros((1, CHUNK, 14), np.float32))
        assert sys.modules["omnigibson"].sim.renders == drawn + CHUNK


@pytest.mark.parametrize("build", BUILDS)
def test_a_filmed_world_returns_a_frame_a_step(make, build):
    simulator = make(build, 2)
    simulator.reset([0, 1], [Episode(RADIO, 4), Episode(RADIO, 2)], [True, False])
    result = simulator.step_chunk([0, 1], np.stack([up(), up()]))
    assert [len(frames) for frames in result.frames] == [int(result.executed[0].sum()), 0]
    assert {(frame.shape, frame.dtype.name) for frame in result.frames[0]} == {((64, 96, 3), "uint8")}
    frame = result.frames[0][-1]
    assert (frame[31, 31, 2], frame[63, 31, 2], frame[63, 95, 2]) == (60, 120, 180)  # left, right, head


@pytest.mark.parametrize("build", BUILDS)
def test_the_same_seed_is_the_same_instance_in_any_world(make, build):
    simulator = make(build, 2)
    scene = simulator.worlds.scene
    simulator.reset([0, 1], [Episode(RADIO, 5), Episode(RADIO, 11)], [False, False])  # 5 = 11 modulo six instances
    # The file tells where things are in the frame of the first scene; the second stands 20 m beside it.
    assert (scene(1).thing.position - scene(0).thing.position).tolist() == pytest.approx([20, 0, 0])
    assert scene(0).robots[0].pose[0].tolist() == pytest.approx([1.6, 2.0, 0.0])
    simulator.reset([1], [Episode(RADIO, 1)], [False])
    assert scene(0).thing.position[2] != pytest.approx(scene(1).thing.position[2])
    simulator.reset([0], [Episode(RADIO, HELD_OUT + 1)], [False])
    assert scene(0).robots[0].pose[0][0] == pytest.approx(1.8)  # the second public test instance is 8
    for seed in (HELD_OUT + 1, HELD_OUT + 2):  # the instance that it is in, and one that is loaded
        simulator.step_chunk([0, 1], np.stack([up(), up()]))
        simulator.reset([0], [Episode(RADIO, seed)], [False])
        assert simulator.worlds.joints(0)[6:].tolist() == pytest.approx(list(REST)[6:])


def test_another_activity_is_entered_when_no_world_is_in_the_way(make):
    for build in BUILDS:
        simulator = make(build, 2, tasks=[RADIO, "picking_up_trash"])
        assert [task.name for task in simulator.spec.tasks] == [RADIO, "picking_up_trash"]
        simulator.reset([0, 1], [Episode("picking_up_trash", 1), Episode("picking_up_trash", 2)], [False, False])
        assert simulator.worlds.task(0).activity_name == "picking_up_trash"
        simulator.observe([0, 1])
        with pytest.raises(SimulatorConfigError) as caught:
            simulator.reset([1], [Episode(RADIO, 1)], [False])
        assert str(caught.value) == (
            "omnigibson: a process simulates one activity at a time, and its worlds are to be in picking_up_trash and "
            "turning_on_radio: give each world a process of its own (num_workers equal to num_envs) or train one task "
            "a run"
        )


def test_rewards_are_as_configured(make):
    episodes = [Episode(RADIO, 4)]
    for options, wanted in (({"reward": "sparse"}, [0, 1]), ({"reward_scale": 5}, [0, 5]), ({}, [0, 1])):
        simulator = make("b_fork", 1, **options)
        simulator.reset([0], episodes, [False])
        assert simulator.step_chunk([0], up()[None]).rewards[0, :3].tolist() == [*wanted, 0]


def test_what_it_cannot_do_is_said(make):
    simulator = make("b_fork", 1)
    for call in (lambda: simulator.observe([0]), lambda: simulator.step_chunk([0], np.zeros((1, 8, 14), np.float32))):
        with pytest.raises(ValueError, match="^world 0 was never reset$"):
            call()
    with pytest.raises(SimulatorConfigError) as caught:
        simulator.reset([0], [Episode("dance", 0)], [False])
    assert str(caught.value) == "omnigibson: no task 'dance' here; simulator.tasks are turning_on_radio"
    with pytest.raises(SimulatorConfigError) as caught:
        simulator.expert_chunk([0], 8)
    assert str(caught.value) == (
        "omnigibson: there is no scripted expert to demonstrate with; bring demonstrations in with "
        "`baton import PATH`, or start from a trained policy with sft.steps=0 and policy.checkpoint"
    )
    with pytest.raises(NotImplementedError, match="cannot be put back exactly"):
        simulator.save_state(0)
