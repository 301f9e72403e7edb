"""A recorded episode as the scripted expert's are stored: a decision every few frames, each with the next K actions."""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.expert_actor import windows
from stages.imports import episode as recorded
from stages.imports import robot
from stages.imports.layout import DataSet, Episode
from stages.imports.recipe import Recipe
from stages.lineup import Planned
from stages.play import Played
from stages.simulators.omnigibson.proprioception import select
from stages.trajectories import NO_GROUP, EpisodeRecord


def demonstration(data: DataSet, episode: Episode, recipe: Recipe) -> tuple[EpisodeRecord | None, dict[str, float]]:
    """Read an episode.

    Args:
        data: the data set.
        episode: one of its episodes.
        recipe: what becomes of it.

    Returns:
        The episode, None if nothing of it can be learnt from; its numbers for the manifest.

    Raises:
        UserError: a file is missing or damaged.
    """
    commands, states = recorded.numbers(data, episode)
    limits = (recipe.position_limit, recipe.rotation_limit)
    actions, usable = robot.convert(commands, states, recipe.action_dim, limits)
    record = windows(_as_played(episode, actions, usable, recipe.stride), recipe.chunk)
    assert record.clean is not None
    # A decision of which nothing can be learnt would only cost room.
    kept = np.flatnonzero((record.executed & record.clean).any(axis=1))
    numbers = {
        "import/episodes": float(len(kept) > 0),
        "import/frames": float(len(usable)),
        "import/frames_left_out": float((~usable).sum()),
        "import/decisions": float(len(kept)),
    }
    if not len(kept):
        return None, numbers
    rows = kept * recipe.stride
    head, wrist = recorded.pictures(data, episode, rows, recipe.image_size)
    parts = {name: getattr(record, name)[kept] for name in ("actions", "rewards", "executed", "clean")}
    proprio = select(states[rows], recipe.proprio_keys)
    return dataclasses.replace(record, head=head, wrist=wrist, proprio=proprio, **parts), numbers


def _as_played(episode: Episode, actions: np.ndarray, usable: np.ndarray, stride: int) -> Played:
    """The episode without its observations, as if an expert had acted `stride` steps at a time."""
    frames = len(actions)
    steps = np.arange(-(-frames // stride) * stride).reshape(-1, stride)
    row, nothing = np.minimum(steps, frames - 1), np.zeros(0, np.uint8)
    return Played(
        planned=Planned(index=0, task=episode.task, seed=episode.number, group=NO_GROUP, noise=None),
        head=nothing,
        wrist=nothing,
        proprio=nothing,
        acted={"actions": actions[row], "clean": usable[row]},
        rewards=np.zeros(steps.shape, np.float32),  # none are recorded
        executed=steps < frames,
        success=True,  # the data set has no other episodes
        terminated=True,
        truncated=False,
        bootstrap_value=0.0,
        worker=0,
        faults=[],
    )
