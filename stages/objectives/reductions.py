"""Log-probability levels and the ways of averaging over what is valid.

Shapes: B decisions, K steps in a chunk, A action numbers in a step.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Level = Literal["token", "action", "chunk"]
Aggregation = Literal["valid_mean", "per_mask_entry", "episode_share"]


def align(x: Tensor, like: Tensor) -> Tensor:
    """Append axes of size 1 until x broadcasts against `like` from the left."""
    return x.reshape(*x.shape, *([1] * (like.dim() - x.dim())))


def to_level(per_token: Tensor, level: Level, mask: Tensor | None = None) -> Tensor:
    """Sum log-probabilities or entropies of tokens to the level at which the ratio is formed.

    Args:
        per_token: [B, K, A].
        level: "token" keeps [B, K, A]; "action" sums the numbers of a step; "chunk" sums the whole chunk.
        mask: bool [B], [B, K] or [B, K, A]; entries that do not count are left out of the sums that span them, such as
            the steps of a chunk that never ran. RLinf always sums all of them: pass None for that.

    Returns:
        [B, K, A], [B, K] or [B].

    Raises:
        ValueError: the level is unknown.
    """
    if level == "token":
        return per_token
    if mask is not None:
        per_token = torch.where(align(mask, per_token), per_token, torch.zeros_like(per_token))
    if level == "action":
        return per_token.sum(-1)
    if level == "chunk":
        return per_token.sum((-2, -1))
    raise ValueError(f"log-probability level {level!r} is unknown; use token, action or chunk")


def mask_at_level(mask: Tensor | None, level: Level) -> Tensor | None:
    """Bring a mask to the level of the ratio: an action or a chunk counts if any of its parts does.

    Args:
        mask: bool [B], [B, K] or [B, K, A], or None.
        level: the level of the log-probabilities.

    Returns:
        bool with no more axes than the level has: up to 3, 2 or 1.
    """
    axes = {"token": 3, "action": 2, "chunk": 1}[level]
    return mask if mask is None or mask.dim() <= axes else mask.flatten(axes).any(-1)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Average over the valid elements.

    Args:
        x: any shape.
        mask: bool, broadcast from the left; None counts everything.

    Returns:
        Scalar; 0 when nothing is valid.
    """
    if mask is None:
        return x.mean()
    valid = align(mask, x).expand_as(x)
    # where and not a product: 0 * inf is nan, and so is its gradient.
    return torch.where(valid, x, torch.zeros_like(x)).sum() / valid.sum().clamp(min=1)


def aggregate(
    x: Tensor, mask: Tensor | None, aggregation: Aggregation = "valid_mean", episode_share: Tensor | None = None
) -> Tensor:
    """Reduce per-element losses to one number.

    Args:
        x: per-element losses, [B, K, A], [B, K] or [B].
        mask: bool, broadcast from the left; None counts everything, as a plain mean.
        aggregation: "valid_mean", Baton's choice, averages over the valid elements. "per_mask_entry" is RLinf's: the
            sum over valid
            elements divided by the number of mask entries before broadcasting, so A times larger for token log-
            probabilities.
            "episode_share" is RLinf's for episodes of fixed length: the mean over all elements, each divided by its
            episode's valid share.
        episode_share: float [B] or [B, K], number of valid steps of the episode / its greatest number; for
            "episode_share" only.

    Returns:
        Scalar.

    Raises:
        ValueError: the aggregation is unknown, or lacks its share.
    """
    if mask is None or aggregation == "valid_mean":
        return masked_mean(x, mask)
    valid = align(mask, x).expand_as(x)
    if aggregation == "per_mask_entry":
        return torch.where(valid, x, torch.zeros_like(x)).sum() / mask.sum().clamp(min=1)
    if aggregation == "episode_share":
        if episode_share is None:
            raise ValueError("aggregation episode_share needs episode_share, the valid share of each episode")
        return torch.where(valid, x / align(episode_share, x), torch.zeros_like(x)).mean()
    raise ValueError(f"aggregation {aggregation!r} is unknown; use valid_mean, per_mask_entry or episode_share")
