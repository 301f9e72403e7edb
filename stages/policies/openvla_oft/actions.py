"""Action tokens: bins of [-1, 1], their order in the vocabulary, and the way to and from the environment's units.

Tokens are kept relative: r = id - (V - 256) in [0, 256). The order is reversed, as in OpenVLA: r = 255 is the lowest
bin, r = 1 the highest, and r = 0 decodes like r = 1, because 256 edges have 255 centres between them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from stages.policies.interface import PolicyConfigError
from stages.policies.openvla_oft.config import ACTION_BINS
from stages.policies.statistics import EPSILON, Bounds, Moments

HALF_BIN = 1.0 / (ACTION_BINS - 1)
"""Half the width of a bin, in normalised units."""


def encode(normalised: Tensor) -> Tensor:
    """The token of a normalised action number: 256 - digitize(clip(x, -1, 1), linspace(-1, 1, 256)).

    Args:
        normalised: floating point [...]; beyond [-1, 1] is clipped.

    Returns:
        int64 [...], in [0, 256).
    """
    # numpy's edges: torch's differ in the last bit, which moves numbers that lie on an edge
    edges = torch.from_numpy(np.linspace(-1.0, 1.0, ACTION_BINS)).to(normalised.device)
    bins = torch.bucketize(normalised.double().clamp(-1.0, 1.0).contiguous(), edges, right=True)
    return ACTION_BINS - bins


def decode(tokens: Tensor) -> Tensor:
    """The normalised number a token stands for: the centre of its bin.

    Args:
        tokens: integers [...] in [0, 256).

    Returns:
        float64 [...], in (-1, 1).
    """
    bins = (ACTION_BINS - 1 - tokens.long()).clamp(0, ACTION_BINS - 2)
    return -1.0 + HALF_BIN * (2 * bins + 1).double()


def soft_cross_entropy(log_probs: Tensor, normalised: Tensor, sigma_bins: float) -> Tensor:
    """Cross-entropy with a Gaussian over the tokens around where a number lies.

    The Gaussian's middle is the number itself, not its bin's centre; it is cut off beyond four standard deviations and
    at the ends of the bins, and sums to 1.

    Args:
        log_probs: float32 [..., 256].
        normalised: float [...].
        sigma_bins: standard deviation in bins, above 0.

    Returns:
        float32 [...].
    """
    place = ACTION_BINS - 0.5 - (normalised.clamp(-1.0, 1.0) + 1.0) * (0.5 / HALF_BIN)
    reach = math.ceil(4.0 * sigma_bins)
    window = torch.arange(-reach, reach + 1, device=log_probs.device)
    tokens = place.round().long()[..., None] + window
    weights = torch.exp(-0.5 * ((tokens - place[..., None]) / sigma_bins).square())
    weights = weights * ((tokens >= 0) & (tokens < ACTION_BINS))
    weights = (weights / weights.sum(dim=-1, keepdim=True)).float()
    return -(weights * log_probs.gather(-1, tokens.clamp_(0, ACTION_BINS - 1))).sum(dim=-1)


def truncate(log_probs: Tensor, top_k: int) -> Tensor:
    """Leave the likeliest tokens alone.

    Args:
        log_probs: float32 [..., 256], or logits.
        top_k: how many to leave; 0 for all.

    Returns:
        [..., 256], -inf where a token is less likely than the k-th.
    """
    if top_k == 0:
        return log_probs
    least = log_probs.topk(top_k, dim=-1).values[..., -1:]
    return log_probs.masked_fill(log_probs < least, -math.inf)


def sample(log_probs: Tensor, noise: Tensor, top_k: int = 0) -> Tensor:
    """Sample by inverting the cumulative distribution, so that the randomness is the caller's.

    Args:
        log_probs: float32 [..., 256].
        noise: [...], uniform in (0, 1).
        top_k: sample among so many of the likeliest; 0 for all.

    Returns:
        int64 [...]: the first token whose cumulative probability exceeds the noise.
    """
    cumulative = truncate(log_probs, top_k).exp().cumsum(dim=-1)
    # scaled by the sum, which rounding leaves beside 1, so that no token of probability zero is ever taken
    below = cumulative <= noise[..., None] * cumulative[..., -1:]
    return below.sum(dim=-1).clamp_(max=ACTION_BINS - 1)


class Normaliser(nn.Module):
    """Maps a vector between its own units and [-1, 1] by the bounds of a demonstration set.

    Numbers whose mask is false pass through unchanged; numbers that never varied are 0 when normalised and their
    constant when brought back.
    """

    low: Tensor
    span: Tensor
    mask: Tensor
    constant: Tensor

    def __init__(self, moments: Moments, kind: Bounds, place: str) -> None:
        """Take the bounds.

        Args:
            moments: of D numbers.
            kind: which bounds.
            place: what the numbers are, for messages.

        Raises:
            PolicyConfigError: the statistics do not have these bounds.
        """
        super().__init__()
        low, high = (torch.tensor(bound, dtype=torch.float64, device="cpu") for bound in moments.bounds(kind))
        if not bool(torch.isfinite(high - low).all()):
            raise PolicyConfigError(f"bounds: {kind!r} needs bounds that the {place} statistics do not have")
        mask = torch.tensor(moments.mask, device="cpu")
        # float64, as in the originals: in float32 the 1e-8 would vanish
        for name, value in (("low", low), ("span", high - low), ("mask", mask), ("constant", (high == low) & mask)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, vector: Tensor) -> Tensor:
        """2 (v - low) / (high - low + 1e-8) - 1, not clipped where the mask is false.

        Args:
            vector: [..., D] in its own units.

        Returns:
            float64 [..., D] in [-1, 1].
        """
        exact = vector.double()
        scaled = (2.0 * (exact - self.low) / (self.span + EPSILON) - 1.0).clamp(-1.0, 1.0)
        return torch.where(self.mask, torch.where(self.constant, 0.0, scaled), exact)

    def inverse(self, normalised: Tensor) -> Tensor:
        """(x + 1) / 2 (high - low + 1e-8) + low where the mask is true.

        Args:
            normalised: [..., D] in [-1, 1].

        Returns:
            float64 [..., D] in their own units.
        """
        exact = normalised.double()
        scaled = 0.5 * (exact + 1.0) * (self.span + EPSILON) + self.low
        return torch.where(self.mask, torch.where(self.constant, self.low, scaled), exact)
