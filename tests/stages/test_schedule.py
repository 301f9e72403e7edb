"""Which episodes are played: training and held-out states never meet, shards only cut what is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from stages import schedule


def config(**blocks) -> Config:
    return Config(name="test", **blocks)


def test_held_out_states_never_occur_in_training():
    made = config(
        rollout={"episodes": 64, "shards": 2}, demonstrate={"episodes": 100, "shards": 3}, evaluate={"episodes": 40}
    )
    held_out = {p.seed for p in schedule.evaluations(made)}
    training = {p.seed for epoch in range(1, 30) for shard in range(2) for p in schedule.rollouts(made, epoch, shard)}
    training |= {p.seed for shard in range(3) for p in schedule.demonstrations(made, shard)}
    assert len(held_out) == 40
    assert min(held_out) >= schedule.HELD_OUT > max(training)
    assert len(training) > 1900, "initial states of training hardly ever repeat"


def test_every_version_and_run_meets_the_same_held_out_states():
    first, second = config(seed=1), config(seed=2)
    assert [p.seed for p in schedule.evaluations(first)] == [p.seed for p in schedule.evaluations(second)]
    assert schedule.rollouts(first, 1, 0)[0].seed != schedule.rollouts(second, 1, 0)[0].seed


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_shards_do_not_change_the_episodes(shards, group_size, rounds, tasks):
    names = [f"task{i}" for i in range(tasks)]
    episodes = shards * group_size * rounds * tasks
    blocks = {"simulator": {"tasks": names}}
    one = config(rollout={"episodes": episodes, "group_size": group_size}, **blocks)
    cut = config(rollout={"episodes": episodes, "group_size": group_size, "shards": shards}, **blocks)
    whole = schedule.rollouts(one, 3, 0)
    parts = [p for shard in range(shards) for p in schedule.rollouts(cut, 3, shard)]

    def identity(p):
        return p.index, p.task, p.seed, p.group, p.film

    assert [identity(p) for p in parts] == [identity(p) for p in whole]
    assert [p.noise.random() for p in parts] == [p.noise.random() for p in whole]


def test_a_group_shares_its_initial_state_but_not_its_noise():
    plan = schedule.rollouts(config(rollout={"episodes": 8, "group_size": 4}), 1, 0)
    assert [p.group for p in plan] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len({p.seed for p in plan[:4]}) == 1
    assert plan[0].seed != plan[4].seed
    assert len({p.noise.random() for p in plan}) == 8


@given(st.integers(0, 40), st.integers(0, 60), st.integers(1, 12))
def test_films_are_as_many_as_asked_for_and_tasks_take_turns(films, episodes, tasks):
    chosen = schedule.filmed(films, episodes, tasks)
    assert len(chosen) <= films
    assert chosen <= set(range(episodes))
    of_task = [sum(index % tasks == task for index in chosen) for task in range(tasks)]
    there = [len(range(task, episodes, tasks)) for task in range(tasks)]
    assert of_task == [min(there[task], len(range(task, films, tasks))) for task in range(tasks)]


def test_films_lie_evenly_over_the_episodes_and_so_over_shards_and_workers():
    assert sorted(schedule.filmed(4, 100, 1)) == [0, 25, 50, 75]
    made = config(
        simulator={"tasks": ["a", "b"]},
        rollout={"episodes": 64, "shards": 4, "group_size": 2},
        video_cfg={"rollout_episodes": 8},
    )
    plans = [schedule.rollouts(made, 2, shard) for shard in range(4)]
    assert [sum(p.film for p in plan) for plan in plans] == [2, 2, 2, 2]
    assert all([p.task for p in plan if p.film] == ["a", "b"] for plan in plans)


def test_a_video_config_says_how_many_are_filmed_of_what():
    blocks = {"rollout": {"episodes": 8}, "demonstrate": {"episodes": 8}, "evaluate": {"episodes": 8}}

    def films(**video):
        made = config(video_cfg=video, **blocks)
        plans = schedule.demonstrations(made, 0), schedule.rollouts(made, 1, 0), schedule.evaluations(made)
        return [sum(p.film for p in plan) for plan in plans]

    assert films() == [1, 1, 1]
    assert films(demonstration_episodes=0, rollout_episodes=3, episodes=8) == [0, 3, 8]
    assert films(save_video=False) == [0, 0, 0]


@pytest.mark.parametrize(("episodes", "filmed"), [(1, 1), (50, 1), (51, 2), (100, 2), (500, 4)])
def test_unless_the_config_says_a_small_evaluation_is_filmed_less(episodes, filmed):
    assert sum(p.film for p in schedule.evaluations(config(evaluate={"episodes": episodes}))) == filmed
