"""What is told of a shard of demonstrations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.demonstrations import Attempt, metrics

attempts = st.builds(
    lambda task, success, only, steps: Attempt(task, success, success or not only, -(-steps // 4), steps),
    st.sampled_from(["open", "close", "stack"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 100),
)


@given(st.lists(attempts, min_size=1).filter(lambda them: any(each.kept for each in them)))
def test_the_numbers_of_the_tasks_add_up_to_the_whole(them):
    told = metrics(them)
    tasks = {each.task for each in them}
    assert {name.rpartition("/")[2] for name in told if name.count("/") == 2} == tasks
    assert told["rollout/decisions"] == sum(each.decisions for each in them if each.kept)
    for name in ("rollout/played", "rollout/episodes"):
        assert told[name] == sum(told[f"{name}/{task}"] for task in tasks)
    for name, weight in (("success_rate", "played"), ("episode_length", "episodes")):
        parts = [(told.get(f"rollout/{name}/{task}", 0.0), told[f"rollout/{weight}/{task}"]) for task in tasks]
        values, weights = zip(*parts, strict=True)
        assert told[f"rollout/{name}"] == pytest.approx(np.average(values, weights=weights))


def test_a_task_of_which_nothing_was_kept_has_no_mean():
    told = metrics([Attempt("open", True, True, 3, 12), Attempt("close", False, False, 20, 80)])
    assert told["rollout/episode_length"] == told["rollout/episode_length/open"] == 12
    assert "rollout/episode_length/close" not in told
    assert (told["rollout/success_rate/close"], told["rollout/played/close"]) == (0, 1)
