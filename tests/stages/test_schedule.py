"""Which episodes are played: training and held-out states never meet, shards only cut what is there."""

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
        return p.index, p.task, p.seed, p.group

    assert [identity(p) for p in parts] == [identity(p) for p in whole]
    assert [p.noise.random() for p in parts] == [p.noise.random() for p in whole]


def test_a_group_shares_its_initial_state_but_not_its_noise():
    plan = schedule.rollouts(config(rollout={"episodes": 8, "group_size": 4}), 1, 0)
    assert [p.group for p in plan] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len({p.seed for p in plan[:4]}) == 1
    assert plan[0].seed != plan[4].seed
    assert len({p.noise.random() for p in plan}) == 8


def test_films_are_the_first_of_each_task_in_turn():
    plan = schedule.evaluations(config(simulator={"tasks": ["a", "b"]}, video_cfg={"episodes": 3}))
    assert [(p.task, p.film) for p in plan[:4]] == [("a", True), ("b", True), ("a", True), ("b", False)]
    off = schedule.evaluations(config(video_cfg={"save_video": False}))
    assert not any(p.film for p in off)
