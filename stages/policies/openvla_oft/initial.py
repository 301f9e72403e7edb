"""The weights a policy starts with."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

import torch
from torch import Tensor

from stages.policies import initial
from stages.policies.openvla_oft.lora import is_lora
from stages.policies.openvla_oft.policy import OpenVLAOFT

# The order of drawing is part of what a seed means: names in alphabetical order, but within the towers this one.
TOWER = ("cls_token", "patch_embed", "class_position", "pos_embed", "reg_token", "blocks")
DINO_BLOCK = ("attn.qkv.k", "attn.proj", "attn.qkv.q", "attn.qkv.v", "mlp")
SIGLIP_BLOCK = ("mlp", "attn.qkv.k", "attn.proj", "attn.qkv.q", "attn.qkv.v")


def draw(policy: OpenVLAOFT, seed: int, wanted: Collection[str]) -> dict[str, Tensor]:
    """Draw weights.

    Matrices get N(0, 1 / fan in), those that end a residual branch of the language model less by the square root of
    their number; biases 0; norms 1; embeddings the config's deviations; heads start near a uniform distribution and at
    value 0, unless `value_init` says otherwise. LoRA's A gets N(0, 1 / rank^2), its B 0, as peft's `gaussian`.

    Args:
        policy: whose weights; they may be on the meta device.
        seed: of the generator.
        wanted: names of the parameters to draw.

    Returns:
        float32 tensors by name, on the CPU.
    """
    shapes = {name: parameter.shape for name, parameter in policy.named_parameters() if name in wanted}
    return initial.draw(
        {name: shapes[name] for name in sorted(shapes, key=_turn)},
        seed,
        lambda name, shape: _deviation(policy, name, shape),
        lambda name: 0.0 if name.endswith("bias") else 1.0,
    )


def _deviation(policy: OpenVLAOFT, name: str, shape: torch.Size) -> float | None:
    """Standard deviation of a weight's first value; None where it is drawn from nothing."""
    config, leaf = policy.config, name.rsplit(".", 1)[-1]
    if is_lora(name):
        return 0.0 if ".lora_B." in name else 1.0 / config.lora.rank
    if leaf in ("pos_embed", "class_position", "camera_embedding", "action_embedding"):
        return config.position_std
    if "embed_tokens" in name or leaf in ("cls_token", "reg_token"):
        return config.token_std
    if name.startswith("value_head.") and config.value_init == "normal" and leaf == "weight":
        return 0.02
    if name == f"value_head.mlp.{len(policy.value_head.mlp) - 1}.weight":
        return 0.0
    if "lm_head" in name or "action_head_tokens" in name:
        return 0.02
    if len(shape) == 1:
        return None
    std = (shape.numel() // shape[0]) ** -0.5
    if ".o_proj." in name or ".down_proj." in name:
        std /= math.sqrt(2 * config.layers)
    return float(std)


def _turn(name: str) -> str:
    """A parameter's name, changed so that alphabetical order is the order of drawing."""
    match = re.fullmatch(r"vision_backbone\.(\w*featurizer)\.(.+)", name)
    if match is None:
        return name
    tower, rest = match.groups()
    place = next(i for i, start in enumerate(TOWER) if rest.startswith(start))
    inner = re.fullmatch(r"blocks\.(\d+)\.(.+)", rest)
    if inner is not None:
        order = DINO_BLOCK if tower == "featurizer" else SIGLIP_BLOCK
        turn = next((i for i, start in enumerate(order) if inner[2].startswith(start)), len(order))
        rest = f"{inner[1]}.{turn}.{inner[2]}"
    return f"vision_backbone.{tower}.{place}.{rest}"
