"""ManiSkill itself, behind the interface: worlds of two arms in two processes, whose pictures lavapipe draws."""

import numpy as np
import pytest

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError, Task
from stages.simulators.maniskill import expert

PICK, STACK = "TwoRobotPickCube-v1", "TwoRobotStackCube-v1"
SIZE = 64
LIMIT = 12


@pytest.fixture(scope="module")
def processes(remote):
    """`worlds`: three in both tasks; `alone`: one with another limit, rewards and expert. Both have taken a picture."""
    worlds, alone = remote(), remote()
    worlds.send("make", 3, {"tasks": [PICK, STACK], "image_size": SIZE, "rendering_frequency": 5})
    other = {"max_episode_steps": LIMIT, "reward": "dense", "expert_perturbation": 0.2}
    alone.send("make", 1, {"tasks": [STACK], "image_size": SIZE, **other})
    specs = [worlds.receive(), alone.receive()]
    for one in (worlds, alone):  # at once, because the first takes seconds
        one.send("reset", [0], [Episode(STACK, 0)], [False])
        one.send("observe", [0])
    for one in (worlds, alone):
        one.receive(), one.receive()
    return worlds, alone, specs


@pytest.fixture(scope="module")
def worlds(processes):
    return processes[0]


@pytest.fixture(scope="module")
def alone(processes):
    return processes[1]


def moves(count, length, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, length, 14)).astype(np.float32)


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("head", "wrist", "proprio"))


def test_it_introduces_itself(processes):
    spec, other = processes[2]
    assert (spec.name, spec.action_dim, spec.proprio_dim, spec.wrist_cameras) == ("maniskill", 14, 32, 2)
    assert spec.version == "mani_skill 3.0.1, SAPIEN 3.0.3, physx_cpu"
    assert "llvmpipe" in spec.renderer
    assert spec.image_size == (SIZE, SIZE)
    assert (spec.max_episode_steps, other.max_episode_steps) == (100, LIMIT)
    assert spec.tasks[1] == Task(STACK, "put the green cube on the target and stack the blue cube on it")
    assert spec.deterministic
    assert not spec.one_clock


def test_an_episode_is_the_same_in_any_process_and_company(worlds, alone):
    actions = moves(3, 8)
    episode = Episode(STACK, HELD_OUT + 3)
    worlds.reset([2, 0, 1], [episode, Episode(STACK, 5), Episode(PICK, HELD_OUT + 3)], [True, False, False])
    alone.reset([0], [episode], [False])
    assert same(worlds.observe([2]), alone.observe([0]))
    worlds.step_chunk([1, 2, 0], actions[[0, 2, 1], :3])
    worlds.reset([0], [Episode(PICK, 6)], [False])
    worlds.step_chunk([0, 2], actions[[1, 2], 3:])
    alone.step_chunk([0], actions[2:])
    seen, lonely = worlds.observe([0, 2]), alone.observe([0])
    for name in ("head", "wrist", "proprio"):
        assert np.array_equal(getattr(seen, name)[1:], getattr(lonely, name))
        assert not np.array_equal(getattr(seen, name)[:1], getattr(lonely, name))


def test_another_seed_is_another_start(worlds):
    worlds.reset([0, 1, 2], [Episode(PICK, seed) for seed in (1, 2, HELD_OUT + 1)], [False] * 3)
    seen = worlds.observe([0, 1, 2])
    assert seen.head.shape == (3, 3, SIZE, SIZE)
    assert seen.wrist.shape == (3, 2, 3, SIZE, SIZE)
    assert seen.proprio.shape == (3, 32)
    assert len(np.unique(seen.proprio, axis=0)) == 3
    assert len({one.tobytes() for one in seen.wrist[:, 0]}) == 3


def test_arms_are_told_apart(worlds):
    """Up and shut for the left arm, to the side and open for the right one; each feels it in its own numbers."""
    worlds.reset([0], [Episode(PICK, 0)], [False])
    before = worlds.observe([0]).proprio[0].reshape(2, 16)
    action = np.zeros((1, 4, 14), np.float32)
    action[..., 2], action[..., 6], action[..., 7 + 1], action[..., 13] = 1, -1, 1, 1
    worlds.step_chunk([0], action)
    after = worlds.observe([0]).proprio[0].reshape(2, 16)
    hands, fingers = (after - before)[:, 9:12], (after - before)[:, 7:9].sum(1)
    assert hands[0, 2] > 0.1
    assert hands[1, 1] > 0.1
    assert abs(hands[0, 1]) < 0.05
    assert abs(hands[1, 2]) < 0.05
    assert fingers[0] < -0.05
    assert abs(fingers[1]) < 0.005
    assert np.allclose(np.linalg.norm(after[:, 12:], axis=1), 1, atol=1e-5)


def test_a_world_is_put_back_to_the_last_bit(worlds):
    actions = moves(1, 6, seed=3)
    worlds.reset([0, 1], [Episode(PICK, 9), Episode(STACK, 4)], [True, False])
    worlds.step_chunk([0], actions)
    kept = worlds.save_state(0)
    first = worlds.step_chunk([0], actions)
    seen = worlds.observe([0])
    worlds.restore_state(1, kept)
    second = worlds.step_chunk([1], actions)
    assert same(worlds.observe([1]), seen)
    assert np.array_equal(first.frames, second.frames)


def test_the_expert_succeeds_on_film(worlds):
    """Its chunk ends with the step that succeeds, which pays 1; of four frames one is drawn."""
    worlds.reset([0, 1], [Episode(PICK, HELD_OUT), Episode(STACK, HELD_OUT)], [True, False])
    frames, lengths = [], [0, 0]
    paid = np.zeros(2)
    for _ in range(7):
        actions, clean, result = worlds.expert_chunk([0, 1], 16)
        assert clean.all()
        assert (abs(actions) <= 1).all()
        frames += result.frames[0]
        lengths += result.executed.sum(1)
        paid += result.rewards.sum(1)
        if result.terminated.all() or not result.executed.any():
            break
    assert paid.tolist() == [1, 1]
    assert (lengths < 100).all()
    assert not result.truncated.any()
    assert len(frames) == lengths[0]
    assert frames[0].shape == (448, 672, 3)
    drawn = [not np.array_equal(a, b) for a, b in zip(frames, frames[1:], strict=False)]
    assert drawn[:8] == [False, False, False, True] * 2
    red, green, blue = np.moveaxis(frames[0][:, 224:].astype(int), 2, 0)
    assert ((green > 100) & (red < 60) & (blue < 60)).any()  # the marker of the goal


def test_nothing_is_drawn_inside_a_chunk(worlds):
    worlds.reset([0], [Episode(STACK, 1)], [False])
    worlds.taken()
    worlds.step_chunk([0], moves(1, 8))
    assert worlds.taken() == 0
    worlds.observe([0])
    assert worlds.taken() == 3


def test_an_episode_is_cut_off_at_its_limit_and_dense_rewards_grow_with_progress(alone):
    alone.reset([0], [Episode(STACK, 2)], [False])
    result = alone.step_chunk([0], moves(1, LIMIT + 4))
    assert result.executed.sum() == LIMIT
    assert result.truncated.tolist() == [True]
    assert result.terminated.tolist() == [False]
    assert ((result.rewards[0] > 0) == result.executed[0]).all()
    assert result.rewards.max() < 1
    assert not alone.step_chunk([0], moves(1, 4)).executed.any()
    alone.reset([0], [Episode(STACK, 2)], [False])
    assert alone.expert_chunk([0], LIMIT)[2].rewards.sum() > result.rewards.sum()


def test_bursts_of_the_expert_are_marked_and_the_same_again(alone):
    twice = []
    for _ in range(2):
        alone.reset([0], [Episode(STACK, 3)], [False])
        twice.append(alone.expert_chunk([0], LIMIT))
    (actions, clean, _), (again, marked, _) = twice
    assert np.array_equal(actions, again)
    assert np.array_equal(clean, marked)
    assert 0 < clean.sum() < LIMIT


def test_what_there_is_not_is_refused_by_name(worlds):
    with pytest.raises(SimulatorConfigError, match=f"^maniskill: no task 'Lift' here; tasks: {PICK}, {STACK}$"):
        worlds.reset([0], [Episode("Lift", 0)], [False])
    with pytest.raises(SimulatorConfigError, match="^maniskill: no seed 4294967296; seeds are from 0 to 4294967295$"):
        worlds.reset([0], [Episode(PICK, 2**32)], [False])
    with pytest.raises(ValueError, match=r"^actions are \[1, 2, 7\], not \[1, K, 14\]$"):
        worlds.step_chunk([0], np.zeros((1, 2, 7), np.float32))
    with pytest.raises(ValueError, match="^an action is not a finite number$"):
        worlds.step_chunk([0], np.full((1, 2, 14), np.nan, np.float32))


def test_a_task_that_would_download_or_lacks_the_reward_is_refused_without_a_prompt(worlds):
    told = "maniskill: PickSingleYCB-v1 needs files that are not here: ycb; download them with `python -m "
    told += "mani_skill.utils.download_asset PickSingleYCB-v1` in ManiSkill's interpreter, or leave the task out"
    assert worlds.refusal(["PickSingleYCB-v1"], "sparse") == told
    told = "maniskill: reward is 'dense', which PlugCharger-v1 does not have; set reward: sparse"
    assert worlds.refusal([PICK, "PlugCharger-v1"], "dense") == told
    assert worlds.refusal([PICK, "PlugCharger-v1"], "sparse") == ""


def test_tasks_of_one_arm_begin_and_go_on(remote):
    single = remote()
    spec = single.make(1, {"tasks": ["single_arm"]})
    assert (spec.action_dim, spec.proprio_dim, spec.wrist_cameras, len(spec.tasks)) == (7, 16, 1, 13)
    for task in spec.tasks:
        if task.name in expert.TASKS:  # as the experts' tests see
            continue
        single.reset([0], [Episode(task.name, HELD_OUT)], [False])
        result = single.step_chunk([0], np.zeros((1, 2, 7), np.float32))
        assert result.executed.all(), task
        assert not result.success.any(), task


def test_the_probe_passes_what_is_sound(worlds):
    found = worlds.probe(20)
    assert [(name, verdict) for name, verdict, _ in found] == [
        ("pictures", "pass"),
        ("motion", "pass"),
        ("repeated", "pass"),
        ("speed", "pass"),
    ]
