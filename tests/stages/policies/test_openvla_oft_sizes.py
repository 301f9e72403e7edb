"""The 7B as published: every key and shape, on the meta device."""

import math
import re

import numpy as np
import pytest

from stages.policies.openvla_oft import checkpoint, published
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.prompt import DIRECTORY, PromptTokenizer
from stages.policies.statistics import Moments, Statistics

D, S, L = 1024, 1152, 4096
BLOCK = {
    "norm1.weight": "w", "norm1.bias": "w", "norm2.weight": "w", "norm2.bias": "w",
    "attn.qkv.weight": "3w,w", "attn.qkv.bias": "3w", "attn.proj.weight": "w,w", "attn.proj.bias": "w",
    "mlp.fc1.weight": "m,w", "mlp.fc1.bias": "m", "mlp.fc2.weight": "w,m", "mlp.fc2.bias": "w",
}  # fmt: skip
POOL = {
    "latent": "1,1,w", "q.weight": "w,w", "q.bias": "w", "kv.weight": "2w,w", "kv.bias": "2w", "proj.weight": "w,w",
    "proj.bias": "w", "norm.weight": "w", "norm.bias": "w", "mlp.fc1.weight": "m,w", "mlp.fc1.bias": "m",
    "mlp.fc2.weight": "w,m", "mlp.fc2.bias": "w",
}  # fmt: skip


def sized(shapes: dict[str, str], prefix: str, width: int, mlp: int) -> dict[str, tuple[int, ...]]:
    """Shapes in units of a tower's width and MLP as numbers."""

    def number(text: str) -> int:
        times, unit = re.fullmatch(r"(\d*)([wm]?)", text).groups()
        return int(times or 1) * {"w": width, "m": mlp, "": 1}[unit]

    return {f"{prefix}{name}": tuple(number(part) for part in shape.split(",")) for name, shape in shapes.items()}


def expected() -> dict[str, tuple[int, ...]]:
    """The published 7B's tensors, written down from its files' own list."""
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, width, mlp, depth, dino in (
        ("vision_backbone.featurizer.", D, 4096, 24, True),
        ("vision_backbone.fused_featurizer.", S, 4304, 27, False),
    ):
        for index in range(depth):
            shapes |= sized(BLOCK, f"{prefix}blocks.{index}.", width, mlp)
            if dino:
                shapes |= {f"{prefix}blocks.{index}.ls{n}.scale_factor": (width,) for n in (1, 2)}
        shapes |= {f"{prefix}norm.weight": (width,), f"{prefix}norm.bias": (width,)}
        shapes |= {f"{prefix}pos_embed": (1, 256, width), f"{prefix}patch_embed.proj.bias": (width,)}
        shapes |= {f"{prefix}patch_embed.proj.weight": (width, 3, 14, 14)}
    shapes |= {"vision_backbone.featurizer.cls_token": (1, 1, D), "vision_backbone.featurizer.reg_token": (1, 4, D)}
    shapes |= sized(POOL, "vision_backbone.fused_featurizer.attn_pool.", S, 4304)
    for name, inward, outward in (("fc1", 2176, 8704), ("fc2", 8704, L), ("fc3", L, L)):
        shapes |= {f"projector.{name}.weight": (outward, inward), f"projector.{name}.bias": (outward,)}
    for index in range(32):
        layer = f"language_model.model.layers.{index}."
        shapes |= {f"{layer}self_attn.{letter}_proj.weight": (L, L) for letter in "qkvo"}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (11008, L) for name in ("gate", "up")}
        shapes |= {f"{layer}mlp.down_proj.weight": (L, 11008)}
        shapes |= {f"{layer}{name}_layernorm.weight": (L,) for name in ("input", "post_attention")}
    shapes |= {"language_model.model.embed_tokens.weight": (32064, L), "language_model.lm_head.weight": (32064, L)}
    return shapes | {"language_model.model.norm.weight": (L,)}


@pytest.fixture(scope="module")
def policy():
    """The preset's 7B without weights; only the tokenizer is the small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptTokenizer, "__init__", lambda *arguments: None)
        moments = Moments.of(np.random.default_rng(0).normal(size=(9, 14)))
        return checkpoint.build(OpenVLAOFTConfig(), Statistics(moments, moments), DIRECTORY)


def test_the_7b_has_the_published_tensors_and_no_other(policy) -> None:
    own = policy.state_dict()
    found = published.unused(policy.config)
    for name, parts in published.grouped(own).items():
        found[name] = (sum(len(own[part]) for part in parts), *own[parts[0]].shape[1:])
    value_head = {name for name in found if name.startswith("value_head.")}
    assert {name: shape for name, shape in found.items() if name not in value_head} == expected()
    assert len(value_head) == 5
    assert (len(expected()), sum(map(math.prod, expected().values()))) == (982, 7_541_237_184)


def test_the_7bs_parameters_take_no_memory_before_they_are_read(policy) -> None:
    assert {parameter.device.type for parameter in policy.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in policy.buffers()} == {"cpu"}
