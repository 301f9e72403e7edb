"""Generalised advantage estimation and group-relative advantages over a time-major rectangle of steps.

A step is whatever the rewards are counted in: an environment step, or a decision with its chunk's rewards summed.
Shapes: N steps, B columns (one column is one environment or one episode), E episodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

NORMALISE_EPS = 1e-5
GROUP_EPS = 1e-6


def gae(rewards: Tensor, values: Tensor, dones: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Estimate advantages and returns by generalised advantage estimation (Schulman et al. 2016, equation 16).

    delta_n = r_n + gamma V_{n+1} (1 - done_{n+1}) - V_n, A_n = delta_n + gamma lam (1 - done_{n+1}) A_{n+1}, R_n =
    A_n + V_n.

    Args:
        rewards: [N, B].
        values: [N + 1, B]; the last row is the value of the state after the last step.
        dones: bool [N + 1, B]; row n + 1 says that step n ended its episode. Row 0 is not read.
        gamma: discount per step.
        lam: the trace parameter, 0 (one-step) to 1 (Monte Carlo).

    Returns:
        Advantages [N, B] and returns [N, B], not normalised.

    Raises:
        ValueError: the shapes do not fit together.
    """
    steps = rewards.shape[0]
    if values.shape[0] != steps + 1 or dones.shape[0] != steps + 1:
        rows = f"{len(values)} and {len(dones)}"
        raise ValueError(f"gae: {steps} rows of rewards need {steps + 1} of values and dones, got {rows}")
    going_on = (~dones[1:]).to(rewards.dtype)
    delta = rewards + gamma * values[1:] * going_on - values[:-1]
    advantages = torch.empty_like(delta)
    trace = torch.zeros_like(delta[0])
    for n in reversed(range(steps)):
        trace = delta[n] + gamma * lam * going_on[n] * trace
        advantages[n] = trace
    return advantages, advantages + values[:-1]


def first_episode_mask(dones: Tensor) -> Tensor:
    """Mark the steps up to and including the one that ends a column's first episode.

    Args:
        dones: bool [N + 1, B]; row n + 1 says that step n ended its episode, row 0 that the column was over before it
            began.

    Returns:
        bool [N, B], True where a step counts.
    """
    return dones[:-1].cumsum(0) == 0


def bootstrap_rewards(rewards: Tensor, flags: Tensor, values: Tensor, *, gamma: float) -> Tensor:
    """Add the discounted value of the state an episode was cut off in to the reward of its last step.

    With the step marked as done this gives the same advantages as bootstrapping inside the recursion. Which episodes
    to flag is the
    caller's choice: only truncated ones (unbiased), or all that ended (RLinf's `bootstrap_type: always`, which
    bootstraps successes as well).

    Args:
        rewards: [..., C], the last axis in time order.
        flags: bool [...], the rows to bootstrap.
        values: [...], the value of each row's final observation.
        gamma: discount per step.

    Returns:
        Rewards [..., C]; the argument is left as it is.
    """
    last = rewards[..., -1] + torch.where(flags, gamma * values, torch.zeros_like(values))
    return torch.cat([rewards[..., :-1], last[..., None]], dim=-1)


def normalise(advantages: Tensor, mask: Tensor | None = None) -> Tensor:
    """Shift and scale advantages to mean 0 and unbiased standard deviation 1 over the valid entries.

    Args:
        advantages: any shape.
        mask: bool of the same shape, True where an entry counts; None counts all.

    Returns:
        (advantages - mean) / (std + 1e-5), applied to every entry, valid or not. A single valid entry has no spread to
        divide by: only the mean is subtracted.
    """
    valid = advantages if mask is None else advantages[mask]
    if valid.numel() == 0:
        return advantages
    centred = advantages - valid.mean()
    return centred if valid.numel() == 1 else centred / (valid.std() + NORMALISE_EPS)


def first_episode_scores(rewards: Tensor, dones: Tensor) -> Tensor:
    """Sum each column's rewards over its first episode.

    Args:
        rewards: [N, B].
        dones: bool [N + 1, B], as for `gae`; a column that is done in row 0 still scores its first episode.

    Returns:
        Scores [B].
    """
    score = torch.zeros_like(rewards[0])
    for n in reversed(range(rewards.shape[0])):
        score = torch.where(dones[n + 1], torch.zeros_like(score), score) + rewards[n]
    return score


def group_relative(scores: Tensor, groups: Tensor) -> Tensor:
    """Compare each episode's score with its group's (GRPO, Shao et al. 2024): (score - mean) / (unbiased std + 1e-6).

    Args:
        scores: [E].
        groups: int [E], equal for the episodes of one group; the ids may be any numbers in any order.

    Returns:
        Advantages [E], exactly 0 in a group whose scores are all equal and in a group of one, which says nothing
        about its episode.
    """
    _, member = torch.unique(groups, return_inverse=True)
    size = torch.bincount(member).to(scores.dtype)
    mean = torch.zeros_like(size).index_add(0, member, scores) / size
    centred = scores - mean[member]
    variance = torch.zeros_like(size).index_add(0, member, centred.square()) / (size - 1).clamp(min=1)
    lowest = torch.zeros_like(size).scatter_reduce(0, member, scores, "amin", include_self=False)
    highest = torch.zeros_like(size).scatter_reduce(0, member, scores, "amax", include_self=False)
    # The mean of equal numbers may round to a neighbour of theirs, and 1e-8 / 1e-6 is no small advantage.
    differs = (highest > lowest)[member]
    return torch.where(differs, centred / (variance.sqrt()[member] + GROUP_EPS), torch.zeros_like(scores))


def informative_groups(scores: Tensor, groups: Tensor, *, lower: float, upper: float) -> Tensor:
    """Keep the groups whose mean score lies within bounds: neither hopeless nor solved.

    Args:
        scores: [E].
        groups: int [E], equal for the episodes of one group.
        lower: smallest mean kept.
        upper: largest mean kept.

    Returns:
        bool [E], True for every episode of a kept group. Nothing is sampled again for the others.
    """
    _, member = torch.unique(groups, return_inverse=True)
    size = torch.bincount(member).to(scores.dtype)
    mean = torch.zeros_like(size).index_add(0, member, scores) / size
    return ((mean >= lower) & (mean <= upper))[member]
