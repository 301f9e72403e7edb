"""Demonstrations: pieces of an expert's episode become overlapping windows of K actions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.play import Planned
from stages.rollout import windows

PLANNED = Planned(index=0, task="pick", seed=3, group=0, noise=None)


def pieces(steps: int, stride: int, dirty: frozenset[int] = frozenset()):
    """An episode of `steps` steps whose action at step t is t everywhere, cut into pieces of `stride`."""
    parts = []
    for begin in range(0, steps, stride):
        index = np.arange(begin, begin + stride)
        executed = index < steps
        parts.append(
            {
                "head": np.full((3, 2, 2), begin, np.uint8),
                "wrist": np.full((2, 3, 2, 2), begin, np.uint8),
                "proprio": np.full(1, begin, np.float32),
                "actions": np.minimum(index, steps - 1)[:, None].astype(np.float32),
                "clean": np.array([t not in dirty for t in index]),
                "rewards": (index == steps - 1).astype(np.float32),
                "executed": executed,
            }
        )
    return parts


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 6))
def test_a_window_holds_the_actions_after_its_observation(steps, stride, longer):
    chunk = stride + longer
    episode = windows(PLANNED, pieces(steps, stride), True, True, chunk)
    starts = np.arange(0, steps, stride)
    times = starts[:, None] + np.arange(chunk)[None]
    assert episode.proprio[:, 0].tolist() == starts.tolist()
    np.testing.assert_array_equal(episode.executed, times < steps)
    np.testing.assert_array_equal(episode.actions[episode.executed][:, 0], times[times < steps])
    assert episode.rewards.sum() == 1, "overlapping windows count a reward once"
    assert episode.clean.all()


def test_nothing_behind_a_burst_is_imitated():
    episode = windows(PLANNED, pieces(12, 4, frozenset({5})), True, True, 8)
    assert episode.clean[0].tolist() == [True] * 5 + [False] * 3
    assert episode.clean[1].tolist() == [True] + [False] * 7
    assert episode.clean[2].all()
