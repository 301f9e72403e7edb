"""A recorded episode as the scripted expert's are stored: a decision every few frames, each with the next K actions."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.config import Config
from pipeline.errors import UserError
from stages import expert_actor
from stages.imports.source import Episode
from stages.lineup import Planned
from stages.play import Played
from stages.trajectories import NO_GROUP, EpisodeRecord


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What an episode did, T frames.

    Attributes:
        actions: float32 [T, A].
        usable: bool [T], which actions can be learnt from.
        rewards: float32 [T].
    """

    actions: np.ndarray
    usable: np.ndarray
    rewards: np.ndarray


def check_stride(config: Config) -> None:
    """Refuse decisions that are further apart than a chunk is long.

    Raises:
        UserError: they are.
    """
    stride, chunk = config.demonstrate.stride, config.policy.chunk
    if chunk < stride:
        raise UserError(
            f"demonstrate.stride={stride} is more than policy.chunk={chunk}, and actions between two observations "
            f"would be lost; set it to {chunk} or less"
        )


def windows(
    episode: Episode, recorded: Recorded, stride: int, chunk: int
) -> tuple[EpisodeRecord | None, np.ndarray, dict[str, float]]:
    """Cut an episode into decisions.

    Args:
        episode: which one it is.
        recorded: what it did, T >= 1 frames.
        stride: frames between two decisions.
        chunk: K, actions of a decision, at least `stride`.

    Returns:
        The episode, its observations still missing, None if nothing of it can be learnt from; int [D], the frames
        that its decisions see; the numbers that `Source.record` gives.
    """
    record = expert_actor.windows(_as_played(episode, recorded, stride), chunk)
    assert record.clean is not None
    # A decision of which nothing can be learnt would only cost room.
    kept = np.flatnonzero((record.executed & record.clean).any(axis=1))
    numbers = {
        "import/episodes": float(len(kept) > 0),
        "import/frames": float(len(recorded.usable)),
        "import/frames_left_out": float((~recorded.usable).sum()),
        "import/decisions": float(len(kept)),
    }
    if not len(kept):
        return None, kept, numbers
    parts = {name: getattr(record, name)[kept] for name in ("actions", "rewards", "executed", "clean")}
    return dataclasses.replace(record, **parts), kept * stride, numbers


def _as_played(episode: Episode, recorded: Recorded, stride: int) -> Played:
    """The episode without its observations, as if an expert had acted `stride` steps at a time."""
    frames = len(recorded.actions)
    steps = np.arange(-(-frames // stride) * stride).reshape(-1, stride)
    row, nothing = np.minimum(steps, frames - 1), np.zeros(0, np.uint8)
    executed = steps < frames
    return Played(
        planned=Planned(index=0, task=episode.task, seed=episode.number, group=NO_GROUP, noise=None),
        head=nothing,
        wrist=nothing,
        proprio=nothing,
        acted={"actions": recorded.actions[row], "clean": recorded.usable[row]},
        rewards=np.where(executed, recorded.rewards[row], np.float32(0)),
        executed=executed,
        success=True,  # others are not imported
        terminated=True,
        truncated=False,
        bootstrap_value=0.0,
        worker=0,
        faults=[],
    )
