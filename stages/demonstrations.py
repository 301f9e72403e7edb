"""What a shard of demonstrations came to, over all episodes and by task: the numbers that `baton demos` shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An episode that the expert played.

    Attributes:
        task: its task.
        success: whether the expert solved it.
        kept: whether it went into the shard.
        decisions: observations in it.
        steps: actions that were carried out.
    """

    task: str
    success: bool
    kept: bool
    decisions: int
    steps: int


def metrics(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Numbers of a shard.

    Args:
        attempts: every episode that was played, at least one of them kept.

    Returns:
        Episodes played, kept and solved and the mean steps of those kept; under `.../TASK` the same for each task, the
        mean only where an episode was kept.
    """
    found = {**_numbers(attempts), "rollout/decisions": float(sum(a.decisions for a in attempts if a.kept))}
    for task in dict.fromkeys(attempt.task for attempt in attempts):
        of_task = [attempt for attempt in attempts if attempt.task == task]
        found |= {f"{name}/{task}": value for name, value in _numbers(of_task).items()}
    return found


def _numbers(attempts: Sequence[Attempt]) -> dict[str, float]:
    kept = [attempt for attempt in attempts if attempt.kept]
    length = {"rollout/episode_length": sum(attempt.steps for attempt in kept) / len(kept)} if kept else {}
    return {
        "rollout/played": float(len(attempts)),
        "rollout/episodes": float(len(kept)),
        "rollout/success_rate": sum(attempt.success for attempt in attempts) / len(attempts),
        **length,
    }
