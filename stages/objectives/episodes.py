"""Advantages over episodes of varying length, stored flat as a shard stores them.

Shapes: D decisions of all episodes together, E episodes, K steps in a chunk. Decisions of one episode lie next to
each other, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.objectives.advantages import gae, group_relative, informative_groups


@dataclass(frozen=True)
class Episodes:
    """The extent and the end of each episode; every tensor is [E].

    Attributes:
        start: int, index of the first decision.
        length: int, number of decisions, at least 1.
        terminated: bool, the task ended the episode (success or failure): nothing follows.
        truncated: bool, a limit cut it off: what would have followed is worth `bootstrap_value`.
        bootstrap_value: value of the observation after the last step.
    """

    start: Tensor
    length: Tensor
    terminated: Tensor
    truncated: Tensor
    bootstrap_value: Tensor

    def of_decision(self, decisions: int) -> Tensor:
        """Find the episode of each decision.

        Args:
            decisions: D.

        Returns:
            int [D].

        Raises:
            ValueError: the episodes do not cover the decisions exactly, one after the other.
        """
        ends = self.start + self.length
        follows = torch.equal(self.start, torch.cat([self.start.new_zeros(1), ends[:-1]]))
        if not follows or bool((self.length < 1).any()) or int(self.length.sum()) != decisions:
            raise ValueError(
                f"episodes: start and length must lay {len(self.start)} episodes of at least one decision "
                f"end to end over {decisions} decisions; write the shard again"
            )
        return torch.repeat_interleave(torch.arange(len(self.start), device=self.start.device), self.length)


def decision_rewards(rewards: Tensor, executed: Tensor) -> Tensor:
    """Sum a chunk's rewards over the steps that ran.

    Args:
        rewards: [D, K].
        executed: bool [D, K].

    Returns:
        [D]; undiscounted within the chunk.
    """
    return torch.where(executed, rewards, torch.zeros_like(rewards)).sum(-1)


def episode_gae(
    rewards: Tensor, executed: Tensor, values: Tensor, episodes: Episodes, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Estimate advantages and returns of decisions within their episodes (`advantages.gae`, one step = one decision).

    A truncated episode is continued by its bootstrap value; one that terminated, even in the same step, is not.

    Args:
        rewards: [D, K].
        executed: bool [D, K].
        values: [D].
        episodes: where each episode lies and how it ended.
        gamma: discount per decision.
        lam: the trace parameter.

    Returns:
        Advantages [D] and returns [D], not normalised.

    Raises:
        ValueError: the episodes do not cover the decisions, or one neither terminated nor was truncated.
    """
    episode = episodes.of_decision(len(rewards))
    open_ended = ~(episodes.terminated | episodes.truncated)
    if bool(open_ended.any()):
        first = int(open_ended.nonzero()[0])
        raise ValueError(f"episodes: episode {first} neither terminated nor was truncated; store whole episodes only")
    longest, count = int(episodes.length.max()), len(episodes.start)
    step = torch.arange(len(rewards), device=rewards.device) - episodes.start[episode]
    rewards_by_step = values.new_zeros(longest, count)
    values_by_step = values.new_zeros(longest + 1, count)
    dones = torch.zeros(longest + 1, count, dtype=torch.bool, device=values.device)
    rewards_by_step[step, episode] = decision_rewards(rewards, executed).to(values.dtype)
    values_by_step[step, episode] = values
    # An episode's last reward carries its bootstrap; with its end marked as done, no padding row leaks into a real one.
    cut_off = episodes.truncated & ~episodes.terminated
    everyone = torch.arange(count, device=values.device)
    bootstrap = torch.where(cut_off, episodes.bootstrap_value.to(values.dtype), values.new_zeros(()))
    rewards_by_step[episodes.length - 1, everyone] += gamma * bootstrap
    dones[episodes.length, everyone] = True
    advantages, returns = gae(rewards_by_step, values_by_step, dones, gamma=gamma, lam=lam)
    return advantages[step, episode], returns[step, episode]


def episode_grpo(
    rewards: Tensor,
    executed: Tensor,
    episodes: Episodes,
    groups: Tensor,
    *,
    lower: float | None = None,
    upper: float | None = None,
    judged_by: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Give every decision its episode's group-relative advantage.

    Args:
        rewards: [D, K].
        executed: bool [D, K].
        episodes: where each episode lies.
        groups: int [E], equal for episodes from the same initial state.
        lower: smallest mean score of a group that is kept; None sets no bound.
        upper: largest mean score of a group that is kept; None sets no bound.
        judged_by: [E], what the bounds apply to instead of the summed rewards, such as success.

    Returns:
        Advantages [D], 0 where not kept, and kept bool [D], to be joined to the loss's mask.

    Raises:
        ValueError: the episodes do not cover the decisions.
    """
    episode = episodes.of_decision(len(rewards))
    per_decision = decision_rewards(rewards, executed)
    scores = torch.zeros(len(episodes.start), dtype=per_decision.dtype, device=rewards.device)
    scores = scores.index_add(0, episode, per_decision)
    kept = informative_groups(
        scores if judged_by is None else judged_by.to(scores.dtype),
        groups,
        lower=float("-inf") if lower is None else lower,
        upper=float("inf") if upper is None else upper,
    )
    advantages = torch.where(kept, group_relative(scores, groups), torch.zeros_like(scores))
    return advantages[episode], kept[episode]
