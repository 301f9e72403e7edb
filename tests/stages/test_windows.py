"""Demonstrations: pieces of an expert's episode become overlapping windows of K actions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.expert_actor import windows
from stages.lineup import Planned
from stages.play import Played


def episode_of(steps: int, stride: int, dirty: frozenset[int] = frozenset()) -> Played:
    """An episode of `steps` steps whose action at step t is t everywhere, in pieces of `stride`."""
    begin = np.arange(0, steps, stride)
    index = begin[:, None] + np.arange(stride)
    return Played(
        planned=Planned(index=0, task="pick", seed=3, group=0, noise=None),
        head=np.broadcast_to(begin[:, None, None, None], (len(begin), 3, 2, 2)).astype(np.uint8),
        wrist=np.broadcast_to(begin[:, None, None, None, None], (len(begin), 2, 3, 2, 2)).astype(np.uint8),
        proprio=begin[:, None].astype(np.float32),
        acted={
            "actions": np.minimum(index, steps - 1)[:, :, None].astype(np.float32),
            "clean": ~np.isin(index, list(dirty)),
        },
        rewards=(index == steps - 1).astype(np.float32),
        executed=index < steps,
        success=True,
        terminated=True,
        truncated=False,
        bootstrap_value=0.0,
        worker=0,
        faults=[],
    )


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 6))
def test_a_window_holds_the_actions_after_its_observation(steps, stride, longer):
    chunk = stride + longer
    episode = windows(episode_of(steps, stride), chunk)
    starts = np.arange(0, steps, stride)
    times = starts[:, None] + np.arange(chunk)[None]
    assert episode.proprio[:, 0].tolist() == starts.tolist()
    np.testing.assert_array_equal(episode.executed, times < steps)
    np.testing.assert_array_equal(episode.actions[episode.executed][:, 0], times[times < steps])
    assert episode.rewards.sum() == 1, "overlapping windows count a reward once"
    assert episode.clean.all()


def test_nothing_behind_a_burst_is_imitated():
    episode = windows(episode_of(12, 4, frozenset({5})), 8)
    assert episode.clean[0].tolist() == [True] * 5 + [False] * 3
    assert episode.clean[1].tolist() == [True] + [False] * 7
    assert episode.clean[2].all()
