"""The originals' layout of a policy: names of tensors, config.json and preprocessor_config.json.

Baton's parameters have the originals' names. Three things differ: the queries, keys and values of a tower are one
published tensor; the towers' unused ends (last block, final norm, attention pool) are not built but carried along; and
heads, projector of proprioception and FiLM'd towers lie in side files, whose names lack the component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from stages.policies.interface import PolicyConfigError
from stages.policies.openvla_oft.config import ACTION_BINS, OpenVLAOFTConfig, TowerConfig
from stages.policies.statistics import PolicyFileError

MODEL_TYPE, CONFIG, PIXELS = "openvla", "config.json", "preprocessor_config.json"
SIDE_FILES = ("proprio_projector", "action_head")
DINO, SIGLIP = "vision_backbone.featurizer", "vision_backbone.fused_featurizer"
HEADS = {"vit_large_patch14_reg4_dinov2.lvd142m": 16, "vit_so400m_patch14_siglip_224": 16}
"""Attention heads of timm's models, the one dimension that no tensor's shape tells."""
FILM_ALPHA = 16
"""The originals' LoRA scale beside FiLM: alpha = min(rank, 16), which no file records."""
BICUBIC = 3

Shape = tuple[int, ...]


# ----------------------------------------------------------------------------------------------------------------------
# Tensors


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Baton's parameters by the published tensor whose rows they are.

    Args:
        names: of parameters.

    Returns:
        Published name -> names of its parts, first rows first.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\.attn\.qkv\.[qkv]\.(weight|bias)$", r".attn.qkv.\1", name), []).append(name)
    for parts in groups.values():
        if len(parts) > 1:
            parts.sort(key=lambda part: "qkv".index(part.split(".")[-2]))
    return groups


def unused(config: OpenVLAOFTConfig) -> dict[str, Shape]:
    """Published tensors that no forward pass reads: a checkpoint has them all or none.

    Args:
        config: of the policy.

    Returns:
        Their shapes.
    """
    shapes: dict[str, Shape] = {}
    for prefix, tower in ((DINO, config.dino), (SIGLIP, config.siglip)):
        width, mlp = tower.width, tower.mlp
        block = dict(_linear("attn.qkv", width, 3 * width)) | dict(_linear("attn.proj", width, width))
        block |= dict(_linear("mlp.fc1", width, mlp)) | dict(_linear("mlp.fc2", mlp, width))
        block |= dict(_norm("norm1", width)) | dict(_norm("norm2", width))
        if tower.registers:
            block |= {"ls1.scale_factor": (width,), "ls2.scale_factor": (width,)}
        if config.film:
            block |= dict(_linear("scale", config.hidden, width)) | dict(_linear("shift", config.hidden, width))
        end = {f"blocks.{tower.depth - 1}.{name}": shape for name, shape in block.items()} | dict(_norm("norm", width))
        if not tower.registers:
            pool: dict[str, Shape] = {"latent": (1, 1, width)}
            pool |= dict(_linear("q", width, width)) | dict(_linear("kv", width, 2 * width))
            pool |= dict(_linear("proj", width, width)) | dict(_norm("norm", width))
            pool |= dict(_linear("mlp.fc1", width, mlp)) | dict(_linear("mlp.fc2", mlp, width))
            end |= {f"attn_pool.{name}": shape for name, shape in pool.items()}
        shapes |= {f"{prefix}.{name}": shape for name, shape in end.items()}
    return shapes


def _linear(name: str, inward: int, outward: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outward, inward)
    yield f"{name}.bias", (outward,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def is_film(name: str) -> bool:
    """Whether a tensor is one that FiLM adds to the towers."""
    return re.search(r"\.blocks\.\d+\.(scale|shift)\.", name) is not None


def to_film(name: str) -> str:
    """The name of a tower's tensor in the side file of FiLM'd towers, where blocks are wrapped."""
    return name if is_film(name) else re.sub(r"(\.blocks\.\d+)\.", r"\1.block.", name)


def from_film(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The towers in the side file of FiLM, with the LoRA that the originals leave in it merged.

    Args:
        tensors: of the file.

    Returns:
        Tensors under the names they have without FiLM.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        stem, leaf = name.replace(".base_layer.", ".").rsplit(".", 1)
        if leaf == "weight" and f"{stem}.lora_A.default.weight" in tensors:
            down, up = (tensors[f"{stem}.lora_{side}.default.weight"].float().flatten(1) for side in "AB")
            scale = min(len(down), FILM_ALPHA) / len(down)
            tensor = tensor.float() + scale * (up @ down).view_as(tensor)
        plain[re.sub(r"(\.blocks\.\d+)\.block\.", r"\1.", f"{stem}.{leaf}")] = tensor
    return plain


# ----------------------------------------------------------------------------------------------------------------------
# config.json and preprocessor_config.json


def config_of(
    record: Mapping[str, Any],
    pixels: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    action_dim: int,
    changes: Mapping[str, Any],
    place: str,
) -> OpenVLAOFTConfig:
    """The config of a checkpoint that Baton did not write.

    Args:
        record: its config.json.
        pixels: its preprocessor_config.json.
        shapes: of its tensors, those of side files under the components' names.
        action_dim: of its statistics.
        changes: fields of the config that are to differ.
        place: its directory, for messages.

    Returns:
        The config; what no file tells (cameras, chunk) is the preset's.

    Raises:
        PolicyFileError: a field is missing, or the checkpoint is of a kind that Baton does not know.
    """
    try:
        text, heads = record["text_config"], [_heads(name, place) for name in record["timm_model_ids"]]
        towers = [_tower(shapes, prefix, count) for prefix, count in zip((DINO, SIGLIP), heads, strict=True)]
        normalised = pixels.get("tvf_normalize_params") or [
            {"mean": mean, "std": std} for mean, std in zip(pixels["means"], pixels["stds"], strict=True)
        ]
        dino, siglip = (
            tower | {"mean": tuple(pixel["mean"]), "std": tuple(pixel["std"])}
            for tower, pixel in zip(towers, normalised, strict=True)
        )
        layers = [name for name in shapes if name.startswith("language_model.model.layers.")]
        hidden = shapes["language_model.model.embed_tokens.weight"][1]
        known = OpenVLAOFTConfig()
        options: dict[str, Any] = {
            "image_size": record["image_sizes"][0],
            "patch_size": shapes[f"{DINO}.patch_embed.proj.weight"][-1],
            "images": 1,
            "resize": record["image_resize_strategy"],
            "dino": dino,
            "siglip": siglip,
            "projector_width": shapes["projector.fc1.weight"][0],
            "hidden": hidden,
            "layers": 1 + max(int(name.split(".")[3]) for name in layers),
            "heads": text.get("num_attention_heads", known.heads),
            "mlp": shapes["language_model.model.layers.0.mlp.gate_proj.weight"][0],
            "rms_norm_eps": text.get("rms_norm_eps", known.rms_norm_eps),
            "rope_theta": text.get("rope_theta", known.rope_theta),
            "vocab_size": text["vocab_size"] - record["pad_to_multiple_of"],
            "action_dim": action_dim,
            "proprio_dim": shapes.get("proprio_projector.fc1.weight", (0, 0))[1],
            "stop_token": True,
            "action_head": "l1" if any(name.startswith("action_head.") for name in shapes) else "tokens",
            "film": any(is_film(name) for name in shapes),
        }
        towers_changed = {key: options[key] | changes[key] for key in ("dino", "siglip") if key in changes}
        return known.changed(options | dict(changes) | towers_changed)
    except PolicyConfigError as error:
        raise PolicyFileError(f"{place} is no OpenVLA policy that Baton knows: {error}") from None
    except (KeyError, ValueError, TypeError, IndexError) as error:
        fault = f"{error!r} in config.json, {PIXELS} or the tensors"
        raise PolicyFileError(f"{place} is no OpenVLA policy that Baton knows: {fault}") from None


def _heads(model: str, place: str) -> int:
    if model not in HEADS:
        raise PolicyFileError(f"{place}/config.json: timm_model_ids has {model!r}; known: {', '.join(HEADS)}")
    return HEADS[model]


def _tower(shapes: Mapping[str, Shape], prefix: str, heads: int) -> dict[str, Any]:
    """The dimensions of a tower, whose published tensors include its last block."""
    blocks = [name for name in shapes if name.startswith(f"{prefix}.blocks.")]
    return {
        "width": shapes[f"{prefix}.pos_embed"][2],
        "depth": 1 + max(int(name.split(".")[3]) for name in blocks),
        "heads": heads,
        "mlp": shapes[f"{prefix}.blocks.0.mlp.fc1.weight"][0],
        "registers": shapes.get(f"{prefix}.reg_token", (1, 0, 0))[1],
    }


def record_of(config: OpenVLAOFTConfig) -> dict[str, Any]:
    """config.json as the originals have it.

    Args:
        config: of the policy.

    Returns:
        The record, but for `norm_stats`.
    """
    dtype = "bfloat16" if config.precision == "bf16" else "float32"
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "model_type": MODEL_TYPE,
        "arch_specifier": "no-align+fused-gelu-mlp",
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "llm_backbone_id": "llama2-7b-pure",
        "llm_max_length": 2048,
        "hf_llm_id": "meta-llama/Llama-2-7b-hf",
        "use_fused_vision_backbone": True,
        "timm_model_ids": list(HEADS),
        "timm_override_act_layers": [None, None],
        "image_sizes": [config.image_size, config.image_size],
        "image_resize_strategy": strategy(config),
        "n_action_bins": ACTION_BINS,
        "pad_to_multiple_of": config.padded_vocab_size - config.vocab_size,
        "pad_token_id": config.pad_id,
        "output_projector_states": False,
        "torch_dtype": dtype,
        "text_config": {
            "model_type": "llama",
            "vocab_size": config.padded_vocab_size,
            "hidden_size": config.hidden,
            "intermediate_size": config.mlp,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.heads,
            "rms_norm_eps": config.rms_norm_eps,
            "rope_theta": config.rope_theta,
            "pad_token_id": config.pad_id,
            "torch_dtype": dtype,
        },
    }


def pixels_of(config: OpenVLAOFTConfig) -> dict[str, Any]:
    """preprocessor_config.json as the originals have it.

    Args:
        config: of the policy.

    Returns:
        The record.
    """
    towers: tuple[TowerConfig, ...] = (config.dino, config.siglip)
    side, letterbox = config.image_size, strategy(config) == "letterbox"
    size = [side, side] if strategy(config) == "resize-naive" else side
    resize = {"size": size, "interpolation": BICUBIC, "max_size": None, "antialias": True}
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "use_fused_vision_backbone": True,
        "image_resize_strategy": strategy(config),
        "input_sizes": [[3, side, side] for _ in towers],
        "interpolations": ["bicubic" for _ in towers],
        "means": [list(tower.mean) for tower in towers],
        "stds": [list(tower.std) for tower in towers],
        "tvf_resize_params": [resize for _ in towers],
        "tvf_crop_params": [{"output_size": [side, side]} for _ in towers],
        "tvf_normalize_params": [{"mean": list(t.mean), "std": list(t.std), "inplace": False} for t in towers],
        "tvf_do_letterbox": letterbox,
        "tvf_letterbox_fill": [int(255 * channel) for channel in config.siglip.mean] if letterbox else None,
    }


def strategy(config: OpenVLAOFTConfig) -> str:
    """How the originals are to resize; a policy that refuses other sizes has no wish, and they stretch."""
    return "resize-naive" if config.resize == "refuse" else config.resize
