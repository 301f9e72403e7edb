"""Rotary position embedding, the convention of two halves (Llama's and Gemma's)."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by the angles of their positions.

    Args:
        states: [B, heads, S, head width].
        cos: [B or 1, S, head width].
        sin: likewise.

    Returns:
        [B, heads, S, head width], in the states' type.
    """
    cos, sin = cos[:, None].to(states.dtype), sin[:, None].to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def rotary_table(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions: frequencies theta^(-2 i / width), repeated for the two halves.

    Args:
        positions: int64 [B or 1, S].
        width: of a head.
        theta: base of the frequencies.

    Returns:
        cosines and sines, float32 [B or 1, S, width].
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angles = positions[..., None].float() / theta**exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()
