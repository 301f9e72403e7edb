"""Shards of a stage taken together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards import EPISODES, pooled

SUCCESS = "rollout/success_rate"


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=5))
def test_success_is_that_of_all_episodes_together(shards):
    summaries = [{SUCCESS: sum(shard) / len(shard), EPISODES: float(len(shard))} for shard in shards]
    every = [episode for shard in shards for episode in shard]
    assert pooled(summaries) == pytest.approx({SUCCESS: sum(every) / len(every), EPISODES: len(every)})


def test_a_task_is_weighted_over_the_shards_that_have_it():
    task = "rollout/success_rate/open"
    shards = [{task: 1.0, EPISODES: 30.0}, {EPISODES: 50.0}, {task: 0.0, EPISODES: 10.0}]
    assert pooled(shards) == {task: 0.75, EPISODES: 90.0}


def test_shards_count_the_same_where_one_does_not_say_its_episodes():
    assert pooled([{SUCCESS: 1.0, EPISODES: 30.0}, {SUCCESS: 0.0}]) == {SUCCESS: 0.5, EPISODES: 30.0}


def test_over_no_episodes_there_is_no_rate():
    assert pooled([{SUCCESS: 0.0, EPISODES: 0.0}] * 2) == {EPISODES: 0.0}
