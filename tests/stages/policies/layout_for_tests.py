"""Directories as the originals publish them, made of any tensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor

from stages.policies.openvla_oft import checkpoint, published
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.policy import OpenVLAOFT
from stages.policies.openvla_oft.prompt import DIRECTORY
from stages.policies.statistics import Moments, Statistics

IMAGENET = {"mean": [0.484375, 0.455078125, 0.40625], "std": [0.228515625, 0.2236328125, 0.224609375]}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


def publish(
    directory: Path,
    tensors: Mapping[str, Tensor],
    statistics: Mapping[str, Any],
    *,
    text: Mapping[str, Any],
    image_size: int,
    sides: Mapping[str, Mapping[str, Tensor]] | None = None,
    shards: int = 2,
) -> Path:
    """Write a directory in the originals' layout.

    Args:
        directory: to be made.
        tensors: of the model, under their published names.
        statistics: data set -> entry.
        text: fields of config.json's `text_config`.
        image_size: pixels of a side.
        sides: component -> tensors of its side file.
        shards: how many files the model is cut into.
    """
    directory.mkdir(parents=True)
    record = {
        "model_type": "openvla",
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "image_sizes": [image_size, image_size],
        "image_resize_strategy": "resize-naive",
        "n_action_bins": 256,
        "pad_to_multiple_of": 64,
        "norm_stats": statistics,
        "text_config": text,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(record))
    pixels = {"tvf_normalize_params": [IMAGENET, HALF], "image_resize_strategy": "resize-naive"}
    (directory / "preprocessor_config.json").write_text(json.dumps(pixels))
    vocabulary = {"<unk>": 0} | {f"word{index}": index for index in range(1, text["vocab_size"] - 64)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")).save(str(directory / "tokenizer.json"))
    names = sorted(tensors)
    if shards == 1:
        save_file({name: tensors[name].contiguous() for name in names}, directory / "model.safetensors")
    else:
        places = {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            inside = names[number::shards]
            save_file({name: tensors[name].contiguous() for name in inside}, directory / file)
            places |= dict.fromkeys(inside, file)
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for component, inside in (sides or {}).items():
        torch.save(dict(inside), directory / f"{component}--50000_checkpoint.pt")
    return directory


SIDE, WORDS = 28, 384
TEXT = {"vocab_size": 448, "hidden_size": 16, "num_attention_heads": 2, "rms_norm_eps": 1e-6}
DIMENSIONS = {
    "image_size": SIDE, "images": 2, "projector_width": 24, "hidden": 16, "layers": 2, "heads": 2, "mlp": 20,
    "vocab_size": WORDS, "chunk": 2, "action_dim": 3, "precision": "fp32", "prompt_end_id": 0, "stop_token": True,
    "dino": {"width": 32, "depth": 3, "heads": 16, "mlp": 40, "registers": 2},
    "siglip": {"width": 48, "depth": 3, "heads": 16, "mlp": 44},
}  # fmt: skip
OPTIONS = {"images": 2, "chunk": 2, "prompt_end_id": 0}


def entry() -> dict:
    rng = np.random.default_rng(0)
    proprio = Moments.of(rng.normal(size=(50, 4))).to_json()
    return {"action": Moments.of(rng.normal(size=(50, 3)), unchanged=[2]).to_json(), "proprio": proprio}


def random_policy(**options) -> OpenVLAOFT:
    """A policy with random weights everywhere, unused ends too."""
    config = OpenVLAOFTConfig().changed(DIMENSIONS | options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.policies.openvla_oft.policy.PromptTokenizer", lambda *arguments: None)
        policy = checkpoint.build(config, Statistics.choose({"mine": entry()}, None, "here"), DIRECTORY)
    torch.manual_seed(0)
    state = {name: torch.randn(tensor.shape) * 0.1 for name, tensor in policy.state_dict().items()}
    policy.load_state_dict(state, assign=True)
    policy.unused = {name: torch.randn(shape) for name, shape in published.unused(config).items()}
    return policy


def tensors_of(policy: OpenVLAOFT) -> dict[str, torch.Tensor]:
    state = policy.state_dict()
    whole = {name: torch.cat([state[part] for part in parts]) for name, parts in published.grouped(state).items()}
    return {name: tensor for name, tensor in whole.items() if not name.startswith("value_head.")} | policy.unused
