"""Partial success: BEHAVIOR's q_score."""

from __future__ import annotations

from collections.abc import Sequence

Options = Sequence[Sequence[bool]]
"""For each way to ground the goal, whether each of its predicates holds."""


def q_score(initial: Options, current: Options, success: bool) -> float:
    """How much of the goal was reached in an episode.

    1 on success, else the largest share, over the goal's groundings, of predicates that hold and did not hold at the
    start. Follows the code of OmniGibson's `metrics/task_metric.py`; its documentation leaves the start out.

    Args:
        initial: the predicates right after the reset.
        current: the predicates at the end.
        success: the task's own verdict.

    Returns:
        A number from 0 to 1.
    """
    if success:
        return 1.0
    return max(
        (
            sum(now and not before for now, before in zip(option, start, strict=True)) / len(option)
            for option, start in zip(current, initial, strict=True)
            if option
        ),
        default=0.0,
    )
