"""ManiSkill's worlds stepped together: who moves, who rests, what an episode depends on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.expert_actor import ExpertActor
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Player
from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError
from stages.simulators.maniskill.options import parse
from stages.simulators.maniskill.parallel import check
from stages.simulators.pool import SimulatorPool
from tests.stages.simulators.maniskill import stand_in
from tests.stages.simulators.maniskill.stand_in import PICK, SIZE, make

STACK = "TwoRobotStackCube-v1"
ROOT = Path(__file__).parents[4]


def build(count, limit=None, **options):
    simulator = make(count, {"max_episode_steps": limit, **options})
    return simulator, simulator._worlds.env


def begin(simulator, slots, seeds, film=False):
    simulator.reset(slots, [Episode(PICK, seed) for seed in seeds], [film] * len(slots))


def moves(count, length=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, length, 14)).astype(np.float32)


def where(env, slot):
    return [part[slot].clone() for part in (env.hand, env.opening, env.places, env.held)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_episode_begins_the_same_way_in_any_world_whoever_is_reset_with_it():
    alone, env = build(1)
    begin(alone, [0], [7])
    start = where(env, 0)
    many, env = build(4)
    begin(many, [0, 1, 2, 3], [3, 9, 7, 5])
    assert same(where(env, 2), start)
    begin(many, [3, 0], [7, 7])
    assert same(where(env, 0), start)
    assert same(where(env, 3), start)
    begin(many, [1], [8])
    assert not same(where(env, 1), start)


def test_a_reset_leaves_the_other_worlds_and_takes_them_one_by_one():
    simulator, env = build(3)
    begin(simulator, [0, 1, 2], [1, 2, 3])
    simulator.step_chunk([0, 1, 2], moves(3))
    before, noted = [where(env, slot) for slot in (0, 2)], env.left_init_qpos.clone()
    env.resets.clear()
    begin(simulator, [1], [4])
    assert env.resets == [[1]]
    assert [same(where(env, slot), was) for slot, was in zip((0, 2), before, strict=True)] == [True, True]
    assert torch.equal(env.left_init_qpos[[0, 2]], noted[[0, 2]])
    assert torch.equal(env.left_init_qpos[1], env.agent.agents[0].get_qpos()[1])


def test_a_reset_takes_no_random_numbers_from_anyone_else():
    simulator, _ = build(2)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    begin(simulator, [0, 1], [1, 2])
    assert torch.equal(torch.rand(4), expected)


def test_worlds_act_alike_alone_and_together_and_in_any_order():
    alone, env = build(1)
    begin(alone, [0], [7])
    actions = moves(3)
    single = alone.step_chunk([0], actions[1:2])
    expected = where(env, 0)
    many, env = build(4)
    begin(many, [3, 1, 2], [5, 7, 6])
    together = many.step_chunk([3, 1, 2], actions)
    assert same(where(env, 1), expected)
    assert np.array_equal(together.rewards[1], single.rewards[0])
    assert together.executed.all()


def test_worlds_that_are_not_asked_for_or_are_done_rest_where_they_are():
    simulator, env = build(4, limit=12)
    begin(simulator, [0, 1, 2, 3], [1, 2, 3, 4])
    simulator.step_chunk([0, 1], moves(2, 4))
    rested = [where(env, slot) for slot in (2, 3)]
    result = simulator.step_chunk([0, 1], moves(2, 8, seed=1))
    assert result.executed.all()
    assert result.truncated.all()
    assert not result.terminated.any()
    assert [same(where(env, slot), was) for slot, was in zip((2, 3), rested, strict=True)] == [True, True]
    over = [where(env, slot) for slot in (0, 1)]
    result = simulator.step_chunk([0, 1, 2], moves(3, 8, seed=2))
    assert result.executed.tolist() == [[False] * 8, [False] * 8, [True] * 8]
    assert [same(where(env, slot), was) for slot, was in zip((0, 1), over, strict=True)] == [True, True]
    assert not same(where(env, 2), rested[0])


def test_a_world_stops_in_the_middle_of_a_chunk_where_its_limit_is():
    simulator, env = build(2, limit=5)
    begin(simulator, [0, 1], [1, 2])
    actions = moves(2)
    result = simulator.step_chunk([0, 1], actions)
    assert result.executed.sum(axis=1).tolist() == [5, 5]
    assert result.truncated.all()
    other, there = build(2, limit=100)
    begin(other, [0, 1], [1, 2])
    other.step_chunk([0, 1], actions[:, :5])
    assert same(where(env, 0), where(there, 0))
    assert same(where(env, 1), where(there, 1))


def test_a_world_that_succeeds_stays_where_it_did_while_others_go_on():
    simulator, env = build(3)
    begin(simulator, [0, 1, 2], [1, 2, 3])
    env.places[0, 0] = env.places[0, 1]
    kept = where(env, 1)
    result = simulator.step_chunk([0, 1, 2], moves(3))
    assert result.success.tolist() == [True, False, False] == result.terminated.tolist()
    assert result.executed.sum(axis=1).tolist() == [1, 8, 8]
    assert result.rewards[0].tolist() == [1.0] + [0.0] * 7
    assert torch.linalg.norm(env.places[0, 0] - env.places[0, 1]) <= 0.025
    assert not same(where(env, 1), kept)


def test_the_expert_solves_all_worlds_at_once():
    simulator, _ = build(5)
    begin(simulator, range(5), range(HELD_OUT, HELD_OUT + 5))
    solved, last = np.zeros(5, bool), None
    for _ in range(13):
        actions, clean, result = simulator.expert_chunk(range(5), 8)
        assert clean.all()
        assert np.abs(actions).max() <= 1
        for row in range(5):
            count = int(result.executed[row].sum())
            if 0 < count < 8:
                assert (actions[row, count:] == actions[row, count - 1]).all()
        solved |= result.success
        last = result
    assert solved.all()
    assert not last.executed.any()


def test_the_experts_bursts_are_those_of_the_episode_wherever_it_is_played():
    def play(count, slot):
        simulator, _ = build(count, expert_perturbation=0.2)
        begin(simulator, range(count), [11] * count)
        chunks = [simulator.expert_chunk(range(count), 8) for _ in range(5)]
        return np.concatenate([a[slot] for a, *_ in chunks]), np.concatenate([c[slot] for _, c, _ in chunks])

    actions, clean = play(1, 0)
    again, marked = play(3, 2)
    assert np.array_equal(actions, again)
    assert np.array_equal(clean, marked)
    assert 0 < (~clean).sum() < clean.size


def test_a_world_is_saved_and_put_back_without_touching_the_others():
    simulator, env = build(3)
    begin(simulator, [0, 1, 2], [1, 2, 3])
    simulator.expert_chunk([0, 1, 2], 8)
    saved, there = simulator.save_state(1), where(env, 1)
    expected = simulator.expert_chunk([0, 1, 2], 8)[0][1]
    others = [where(env, slot) for slot in (0, 2)]
    simulator.restore_state(1, saved)
    assert same(where(env, 1), there)
    assert [same(where(env, slot), was) for slot, was in zip((0, 2), others, strict=True)] == [True, True]
    assert np.array_equal(simulator.expert_chunk([1], 8)[0][0], expected)


def test_what_is_seen_is_of_the_worlds_asked_for_in_their_order():
    simulator, env = build(3)
    begin(simulator, [0, 1, 2], [1, 2, 3])
    seen = simulator.observe([2, 0])
    assert (seen.head.shape, seen.wrist.shape, seen.proprio.shape) == (
        (2, 3, SIZE, SIZE),
        (2, 2, 3, SIZE, SIZE),
        (2, 32),
    )
    assert (seen.head.dtype, seen.wrist.dtype, seen.proprio.dtype) == (np.uint8, np.uint8, np.float32)
    heights = [int(env.hand[slot, 0, 2] * 500) for slot in (2, 0)]
    assert seen.head[:, 0, 0, 0].tolist() == heights
    assert seen.wrist[:, 1, 2, 3, 4].tolist() == heights
    assert seen.proprio[:, 2].tolist() == [float(env.hand[slot, 0, 2]) for slot in (2, 0)]


def test_nothing_is_drawn_in_a_chunk_but_for_films_whose_frames_repeat_between_the_drawn_ones():
    simulator, _ = build(3, rendering_frequency=5)
    worlds = simulator._worlds
    begin(simulator, [0, 1], [1, 2])
    begin(simulator, [2], [3], film=True)
    assert simulator.step_chunk([0, 1], moves(2)).frames == [[], []]
    assert worlds.drawn == 0
    result = simulator.step_chunk([0, 2], moves(2))
    assert [len(frames) for frames in result.frames] == [0, 8]
    assert worlds.drawn == 2
    first = result.frames[1][0]
    assert first.shape == (448, 672, 3)
    assert first.dtype == np.uint8
    assert [frame is first for frame in result.frames[1]] == [True] * 4 + [False] * 4


def test_episodes_played_through_the_pool_do_not_depend_on_what_plays_beside_them(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def play(num_envs, groups):
        plan = [Planned(i, PICK, seed=20 + i, group=i, noise=None) for i in range(5)]
        options = {"expert_perturbation": 0.05}
        with SimulatorPool(stand_in.__name__, options, num_envs, 1) as pool:
            played = list(Player(pool, ExpertActor(pool, 8), groups=groups, phases=Phases()).play(plan))
        return {each.planned.index: each for each in played}

    alone, together = play(1, 1), play(3, 2)
    assert sorted(alone) == sorted(together) == list(range(5))
    for index, one in alone.items():
        other = together[index]
        assert one.success == other.success
        for name in ("head", "wrist", "proprio", "rewards", "executed"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert np.array_equal(one.acted["actions"], other.acted["actions"])


def test_closing_frees_the_scene():
    simulator, env = build(1)
    simulator.close()
    assert env.closed


def test_what_cannot_be_done_is_refused_by_name():
    simulator, _ = build(2)
    with pytest.raises(SimulatorConfigError, match=f"^maniskill: no task '{STACK}' here; tasks: {PICK}$"):
        simulator.reset([0], [Episode(STACK, 1)], [False])
    with pytest.raises(SimulatorConfigError, match="^maniskill: no seed 4294967296; seeds are from 0 to 4294967295$"):
        begin(simulator, [0], [2**32])
    begin(simulator, [0], [1])
    with pytest.raises(ValueError, match=r"^worlds \[1\] were never reset$"):
        simulator.step_chunk([0, 1], moves(2))
    with pytest.raises(ValueError, match=r"^actions are \[1, 8, 14\], not \[2, K, 14\]$"):
        simulator.step_chunk([0, 1], moves(1))
    with pytest.raises(ValueError, match="^an action is not a finite number$"):
        simulator.step_chunk([0], np.full((1, 8, 14), np.nan, np.float32))


@pytest.mark.parametrize(
    ("options", "drawn_by", "message"),
    [
        (
            {"tasks": [PICK], "renderer": "auto"},
            "cpu",
            "maniskill: renderer is 'auto', which draws on the CPU here; physx_cuda draws on the GPU: "
            "set renderer: gpu, or take physx_cpu",
        ),
        (
            {"tasks": ["PegInsertionSide-v1"]},
            "gpu",
            "maniskill: the worlds of PegInsertionSide-v1 differ from each other, whatever their seeds, on physx_cuda; "
            "take physx_cpu",
        ),
    ],
)
def test_options_that_a_gpu_cannot_serve_are_refused(options, drawn_by, message):
    with pytest.raises(SimulatorConfigError) as refused:
        check(parse({**options, "backend": "physx_cuda"}), drawn_by)
    assert str(refused.value) == message
