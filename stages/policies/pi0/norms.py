"""Gemma's RMS norms: one with a weight, and pi0.5's, which a condition scales, shifts and gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.policies.exact import ExactLinear, computed_in, exactly

EPS = 1e-6


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (1 + weight), computed in float32."""

    def __init__(self, width: int) -> None:
        """Start with weight 0, which scales by 1.

        Args:
            width: of the last dimension.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Normalise.

        Args:
            hidden: [B, S, width].
            condition: takes no part.

        Returns:
            [B, S, width], in the type that is computed in, and no gate.
        """
        exact = normed(hidden)
        return (exact * (1.0 + self.weight.to(exact.dtype))).to(computed_in(hidden)), None


class AdaptiveRMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (1 + scale) + shift, with scale, shift and a gate from a condition."""

    def __init__(self, width: int) -> None:
        """Build the map from the condition.

        Args:
            width: of the last dimension, and of the condition.
        """
        super().__init__()
        self.dense = ExactLinear(width, 3 * width)

    def forward(self, hidden: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Normalise.

        Args:
            hidden: [B, S, width].
            condition: [B, width].

        Returns:
            [B, S, width], in the type that is computed in, and the gate [B, 1, width] of what is made of it.
        """
        assert condition is not None, "pi0.5 has a condition"
        exact = normed(hidden)
        scale, shift, gate = self.dense(condition)[:, None].chunk(3, dim=-1)
        dtype = computed_in(hidden)
        return (exact * (1.0 + scale) + shift).to(dtype), gate.to(hidden.dtype)


def normed(hidden: Tensor) -> Tensor:
    """States [..., width] over sqrt(mean(x^2) + eps), in float32; float64 stays."""
    exact = exactly(hidden)
    return exact * torch.rsqrt((exact * exact).mean(dim=-1, keepdim=True) + EPS)
