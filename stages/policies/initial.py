"""Drawing the weights a policy starts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def draw(
    shapes: Mapping[str, torch.Size],
    seed: int,
    deviation: Callable[[str, torch.Size], float | None],
    constant: Callable[[str], float],
) -> dict[str, Tensor]:
    """Draw weights from normal distributions around 0.

    Args:
        shapes: of the weights by name, in the order in which they are drawn.
        seed: of the generator.
        deviation: of a weight of this name and shape; None for one that is drawn from nothing.
        constant: what such a weight is filled with.

    Returns:
        float32 tensors by name, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        std = deviation(name, shape)
        if std is None:
            drawn[name] = torch.full(shape, constant(name))
        else:
            drawn[name] = torch.empty(shape).normal_(0.0, 1.0, generator=generator).mul_(std)
    return drawn
