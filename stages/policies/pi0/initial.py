"""The weights a policy starts with."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from stages.policies import initial
from stages.policies.pi0.policy import Pi0


def draw(policy: Pi0, seed: int, wanted: Collection[str]) -> dict[str, Tensor]:
    """Draw weights, in alphabetical order of their names.

    Matrices get N(0, 1 / fan in), those that end a residual branch of a stream less by the square root of their number;
    biases and Gemma's norms 0, SigLIP's norms 1; pi0.5's adaptive norms 0, which lets each branch in from nothing, as
    in openpi; embeddings a size like that of what is added to them; the heads start near 0.

    Args:
        policy: whose weights; they may be on the meta device.
        seed: of the generator.
        wanted: names of the parameters to draw.

    Returns:
        float32 tensors by name, on the CPU.
    """
    shapes = {name: parameter.shape for name, parameter in sorted(policy.named_parameters()) if name in wanted}
    return initial.draw(
        shapes,
        seed,
        lambda name, shape: _deviation(policy, name, shape),
        lambda name: 1.0 if "vision_tower" in name and name.endswith("weight") else 0.0,
    )


def _deviation(policy: Pi0, name: str, shape: torch.Size) -> float | None:
    """Standard deviation of a weight's first value; None where it is drawn from nothing."""
    config = policy.config
    if name == "paligemma_with_expert.paligemma.lm_head.weight":
        return config.vlm.width**-0.5  # multiplied by the root of the width when it is read
    if name.endswith("position_embedding.weight"):
        return 0.3
    if name == f"value_head.mlp.{len(policy.value_head.mlp) - 1}.weight" and config.value_init == "zero":
        return None
    if name.startswith("value_head.") and name.endswith("weight") and config.value_init == "normal":
        return 0.02
    if len(shape) == 1 or name.endswith("dense.weight"):
        return None
    if name == "action_out_proj.weight" or name == "noise_head.mlp_logvar.moduleList.2.linear_1.weight":
        return 0.02
    std = (shape.numel() // shape[0]) ** -0.5
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        std /= math.sqrt(2 * config.layers)
    return float(std)
