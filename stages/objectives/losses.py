"""PPO's actor and critic losses, decoupled PPO, KL penalties and entropy.

Shapes: B decisions, K steps in a chunk, A action numbers in a step. Log-probabilities come as [B, K, A]; advantages
as [B] (one per decision) or [B, K] (one per step); masks as bool [B], [B, K] or [B, K, A], True where an entry counts.
Losses are to be minimised. Metrics are detached scalars and, unlike RLinf's, always averages over the valid elements.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from stages.objectives.reductions import Aggregation, Level, aggregate, align, mask_at_level, masked_mean, to_level

KL_CLAMP = 20.0
K3_CLAMP = 10.0

Metrics = dict[str, Tensor]


def clipped_objective(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> tuple[Tensor, Tensor]:
    """Form PPO's pessimistic objective per element.

    Source: Schulman et al. 2017, equation 7; dual clip: Ye et al. 2020, equation 5.

    Args:
        ratio: probability ratio, any shape.
        advantages: broadcasts against the ratio.
        clip_low: the ratio is clipped below at 1 - clip_low.
        clip_high: the ratio is clipped above at 1 + clip_high.
        dual_clip: for a negative advantage the loss is at most dual_clip * |advantage|; greater than 1, None for no
            such bound.

    Returns:
        Losses and bool clipped (the first clip binds), both of the ratio's shape.

    Raises:
        ValueError: dual_clip is not greater than 1.
    """
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = torch.maximum(plain, clipped)
    if dual_clip is not None:
        if dual_clip <= 1:
            raise ValueError(f"dual_clip is {dual_clip}; it must be greater than 1, usually 3")
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    return losses, clipped > plain


def actor_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    *,
    level: Level = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = None,
    aggregation: Aggregation = "valid_mean",
    episode_share: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """Compute PPO's clipped policy loss.

    Args:
        log_probs: of the policy being trained, [B, K, A].
        old_log_probs: of the policy that acted, [B, K, A].
        advantages: [B] or [B, K].
        mask: bool [B], [B, K] or [B, K, A]. Where a ratio spans several entries of it, only those that count enter the
            ratio's log-probability; RLinf lets all enter, which a mask of the ratio's own level gives.
        level: what one ratio spans.
        clip_low: lower clip range.
        clip_high: upper clip range.
        dual_clip: bound on the loss of negative advantages, or None.
        aggregation: see `reductions.aggregate`; RLinf's loss is "per_mask_entry", or "episode_share" with episodes of
            fixed length.
        episode_share: for aggregation "episode_share".

    Returns:
        Scalar loss, and policy_loss, approx_kl (mean of old - new), clip_fraction, ratio_mean, ratio_max.
    """
    log_ratio = to_level(log_probs - old_log_probs, level, mask)
    mask = mask_at_level(mask, level)
    log_ratio = _drop_invalid(log_ratio, mask)
    ratio = log_ratio.exp()
    losses, clipped = clipped_objective(ratio, align(advantages, ratio), clip_low, clip_high, dual_clip)
    loss = aggregate(losses, mask, aggregation, episode_share)
    with torch.no_grad():
        metrics = {
            "policy_loss": loss.detach(),
            "approx_kl": masked_mean(-log_ratio, mask),
            "clip_fraction": masked_mean(clipped.to(ratio.dtype), mask),
            **_ratio_metrics(ratio, mask),
        }
    return loss, metrics


def interpolated_proximal(log_probs: Tensor, old_log_probs: Tensor, versions: Tensor, current_version: int) -> Tensor:
    """Estimate the proximal policy's log-probabilities without running it, between the acting and the present one.

    prox = old + alpha (new - old), alpha = (v_new - 1 - v_old) / (v_new - v_old) with v_new = current_version + 1: 0
    for data of the
    current version, k / (k + 1) for data k versions old.

    Args:
        log_probs: of the policy being trained, [B, K, A].
        old_log_probs: of the policy that acted, [B, K, A].
        versions: version that acted, [B] or [B, K, A]; negative where unknown, which gives alpha 0.
        current_version: version that the update started from.

    Returns:
        [B, K, A], detached.
    """
    gap = (current_version + 1 - versions).to(log_probs.dtype)
    known = (gap > 0) & (versions >= 0)
    alpha = torch.where(known, ((gap - 1) / gap.clamp(min=1)).clamp(0, 1), torch.zeros_like(gap))
    return (old_log_probs + align(alpha, log_probs) * (log_probs - old_log_probs)).detach()


def decoupled_actor_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    proximal_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    *,
    level: Level = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    behave_weight_threshold: float | None = None,
    aggregation: Aggregation = "valid_mean",
    episode_share: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """Compute decoupled PPO's policy loss (Hilton et al. 2022).

    It clips around a proximal policy and corrects for the one that acted:
    L = w * clipped(new / prox) with w = prox / old; elements with w above the threshold are left out.

    Args:
        log_probs: of the policy being trained, [B, K, A].
        old_log_probs: of the policy that acted, [B, K, A].
        proximal_log_probs: of the policy the update started from, [B, K, A]; no gradient flows into them.
        advantages: [B] or [B, K].
        mask: as for `actor_loss`.
        level: what one ratio spans.
        clip_low: lower clip range.
        clip_high: upper clip range.
        dual_clip: bound on the loss of negative advantages, or None.
        behave_weight_threshold: largest weight w that is used, or None for no bound.
        aggregation: see `reductions.aggregate`.
        episode_share: for aggregation "episode_share".

    Returns:
        Scalar loss, and policy_loss, approx_kl (mean of prox - new), behave_approx_kl (mean of old - prox),
        behave_dropped_fraction,
        clip_fraction, ratio_mean, ratio_max (of new / prox).
    """
    proximal_log_probs = proximal_log_probs.detach()
    log_weight = to_level(proximal_log_probs - old_log_probs, level, mask)
    log_ratio = to_level(log_probs - proximal_log_probs, level, mask)
    mask = mask_at_level(mask, level)
    log_weight, log_ratio = _drop_invalid(log_weight, mask), _drop_invalid(log_ratio, mask)
    weight, ratio = log_weight.exp().detach(), log_ratio.exp()
    losses, clipped = clipped_objective(ratio, align(advantages, ratio), clip_low, clip_high, dual_clip)
    used = mask
    if behave_weight_threshold is not None:
        within = weight <= behave_weight_threshold
        used = within if mask is None else within & align(mask, within)
    loss = aggregate(losses * weight, used, aggregation, episode_share)
    with torch.no_grad():
        kept = torch.ones_like(weight) if used is None else align(used, weight).to(weight.dtype).expand_as(weight)
        metrics = {
            "policy_loss": loss.detach(),
            "approx_kl": masked_mean(-log_ratio, used),
            "behave_approx_kl": masked_mean(-log_weight, used),
            "behave_dropped_fraction": 1 - masked_mean(kept, mask),
            "clip_fraction": masked_mean(clipped.to(ratio.dtype), used),
            **_ratio_metrics(ratio, used),
        }
    return loss, metrics


def critic_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor | None = None,
    *,
    value_clip: float | None = 0.2,
    huber_delta: float = 10.0,
    aggregation: Aggregation = "valid_mean",
    episode_share: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """Compute the value loss: the larger of the Huber losses of the value and of the value clipped around the old one.

    Args:
        values: of the policy being trained, [B] or [B, K].
        old_values: of the policy that acted, same shape.
        returns: targets, same shape.
        mask: bool [B], or [B, K] where values are per step.
        value_clip: half-width of the range around the old values, or None for no clip.
        huber_delta: where the loss turns from quadratic to linear.
        aggregation: see `reductions.aggregate`.
        episode_share: for aggregation "episode_share".

    Returns:
        Scalar loss, and value_loss, value_clip_fraction, explained_variance.
    """
    losses = huber_loss(values, returns, reduction="none", delta=huber_delta)
    outside = torch.zeros_like(values)
    if value_clip is not None:
        near = old_values + (values - old_values).clamp(-value_clip, value_clip)
        losses = torch.maximum(losses, huber_loss(near, returns, reduction="none", delta=huber_delta))
        outside = ((values - old_values).abs() > value_clip).to(values.dtype)
    loss = aggregate(losses, mask, aggregation, episode_share)
    metrics = {
        "value_loss": loss.detach(),
        "value_clip_fraction": masked_mean(outside, mask),
        "explained_variance": explained_variance(values.detach(), returns, mask),
    }
    return loss, metrics


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor | None = None) -> Tensor:
    """Tell which share of the returns' variance the values predict: 1 - var(returns - values) / var(returns).

    Args:
        values: any shape.
        returns: same shape.
        mask: bool of the same shape, or None.

    Returns:
        Scalar, at most 1; 0 where the returns do not vary, because then there is nothing to explain.
    """
    if mask is not None:
        values, returns = values[mask], returns[mask]
    spread = returns.var(correction=0) if returns.numel() else returns.new_zeros(())
    if not bool(spread > 0):
        return returns.new_zeros(())
    return 1 - (returns - values).var(correction=0) / spread


def kl_penalty(log_probs: Tensor, reference: Tensor, kind: Literal["k1", "abs", "k2", "k3"] = "k3") -> Tensor:
    """Estimate KL(policy || reference) per element from samples of the policy.

    Source: Schulman, "Approximating KL divergence", 2020.

    Args:
        log_probs: of the policy being trained, any shape.
        reference: of the reference policy, same shape.
        kind: "k1" d = log p - log q; "abs" |d|; "k2" d^2 / 2; "k3" exp(-d) - 1 + d, clamped to [-10, 10] with d to
            [-20, 20].

    Returns:
        Estimates of the same shape; average them with `reductions.masked_mean`.

    Raises:
        ValueError: the kind is unknown.
    """
    difference = log_probs - reference
    if kind == "k1":
        return difference
    if kind == "abs":
        return difference.abs()
    if kind == "k2":
        return 0.5 * difference.square()
    if kind == "k3":
        back = (-difference).clamp(-KL_CLAMP, KL_CLAMP)
        return (back.exp() - back - 1).clamp(-K3_CLAMP, K3_CLAMP)
    raise ValueError(f"kind of KL {kind!r} is unknown; use k1, abs, k2 or k3")


def categorical(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log-probabilities of tokens and the entropy of their distributions.

    Args:
        logits: [..., V]; -inf forbids a token.
        tokens: int [...].

    Returns:
        Log-probabilities [...] and entropies [...], in nats.
    """
    log_probs = logits.log_softmax(-1)
    # 0 * -inf is nan: a forbidden token contributes nothing, to the sum and to its gradient.
    allowed = torch.where(log_probs.isneginf(), torch.zeros_like(log_probs), log_probs)
    entropy = -(log_probs.exp() * allowed).sum(-1)
    return log_probs.gather(-1, tokens[..., None])[..., 0], entropy


def _drop_invalid(log_ratio: Tensor, mask: Tensor | None) -> Tensor:
    """Set masked log-ratios to 0, so that exp cannot overflow where nothing is used."""
    return log_ratio if mask is None else torch.where(align(mask, log_ratio), log_ratio, torch.zeros_like(log_ratio))


def _ratio_metrics(ratio: Tensor, mask: Tensor | None) -> Metrics:
    valid = torch.ones_like(ratio) if mask is None else align(mask, ratio).expand_as(ratio)
    largest = torch.where(valid.bool(), ratio, torch.zeros_like(ratio)).max()
    return {"ratio_mean": masked_mean(ratio, mask), "ratio_max": largest}
