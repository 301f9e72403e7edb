"""What is computed in float32 whatever the weights are held in, and in which type the rest is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.interface import Precision


class ExactLinear(nn.Linear):
    """A matrix product in float32 (float64 stays), whatever type the weight is held in."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        exact = exactly(input)
        bias = None if self.bias is None else self.bias.to(exact.dtype)
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(exact, self.weight.to(exact.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """A layer norm in the type of its input, whatever type the weight is held in."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def exactly(states: Tensor) -> Tensor:
    """States in float32, whatever they were computed in; float64 stays."""
    return states if states.dtype == torch.float64 else states.float()


def computed_in(like: Tensor) -> torch.dtype:
    """The type of matrix products: autocast's where that is on, else that of `like`."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """What a network of a precision is run under: bfloat16 products of float32 weights where it is `mixed`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "mixed" else nullcontext()
