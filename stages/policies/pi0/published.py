"""openpi's PyTorch checkpoints: what their tensors say of the dimensions, and how they are written.

`model.safetensors` has the embedding of PaliGemma's tokens once, as `lm_head`; the file's metadata names the other,
tied name. openpi keeps the rest in code: heads of the tower, horizon and the form of a prompt are options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.policies.interface import PolicyConfigError, Precision
from stages.policies.pi0.config import Pi0Config
from stages.policies.statistics import PolicyFileError
from stages.policies.weights import WEIGHTS

BASE = "paligemma_with_expert."
EMBEDDING = f"{BASE}paligemma.lm_head.weight"
TIED = f"{BASE}paligemma.model.language_model.embed_tokens.weight"
UNUSED = f"{BASE}gemma_expert.lm_head.weight"
"""The expert's own head, which is in the files and which nothing reads."""

TOWER = f"{BASE}paligemma.model.vision_tower.vision_model."
VLM, EXPERT = f"{BASE}paligemma.model.language_model.", f"{BASE}gemma_expert.model."
HORIZON = 50
"""openpi's default."""

Shapes = Mapping[str, tuple[int, ...]]


def version_of(shapes: Shapes, place: str) -> str:
    """Whether a checkpoint is of pi0 or of pi05.

    Args:
        shapes: of its tensors.
        place: where they are from, for messages.

    Returns:
        The version.

    Raises:
        PolicyFileError: it is of neither.
    """
    found = [
        version for version, sign in (("pi0", "state_proj.weight"), ("pi05", "time_mlp_in.weight")) if sign in shapes
    ]
    if "action_in_proj.weight" not in shapes or len(found) != 1:
        raise PolicyFileError(
            f"{place} holds neither pi0 nor pi0.5: take a PyTorch checkpoint of openpi's (its "
            "convert_jax_model_to_pytorch.py makes one), or set policy.name to what it is"
        )
    return found[0]


def config_of(shapes: Shapes, record: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> Pi0Config:
    """The config of a checkpoint.

    Args:
        shapes: of its tensors.
        record: openpi's config.json, which may be empty.
        changes: fields that are to differ.
        place: where it is from, for messages.

    Returns:
        The config.

    Raises:
        PolicyFileError: a tensor that tells a dimension is missing.
        PolicyConfigError: a field is unknown, or does not fit the others or the checkpoint.
    """
    version = version_of(shapes, place)
    wanted = changes.get("version", version)
    if wanted != version:
        raise PolicyConfigError(f"version: {wanted!r} does not fit; the checkpoint is of {version}")
    try:
        width, _, side, _ = shapes[f"{TOWER}embeddings.patch_embedding.weight"]
        patches = shapes[f"{TOWER}embeddings.position_embedding.weight"][0]
        head_width = shapes[f"{VLM}layers.0.self_attn.k_proj.weight"][0]
        fields: dict[str, Any] = {
            "version": version,
            "image_size": math.isqrt(patches) * side,
            "patch_size": side,
            "vision": {
                "width": width,
                "depth": _layers(shapes, f"{TOWER}encoder.layers."),
                "mlp": shapes[f"{TOWER}encoder.layers.0.mlp.fc1.weight"][0],
            },
            **{
                name: {"width": up[1], "mlp": up[0]}
                for name, stream in (("vlm", VLM), ("expert", EXPERT))
                for up in [shapes[f"{stream}layers.0.mlp.up_proj.weight"]]
            },
            "layers": _layers(shapes, f"{VLM}layers."),
            "heads": shapes[f"{VLM}layers.0.self_attn.q_proj.weight"][0] // head_width,
            "head_width": head_width,
            "vocab_size": shapes[EMBEDDING][0],
            "action_width": shapes["action_in_proj.weight"][1],
            "horizon": record.get("action_horizon", HORIZON),
            "prompt_length": 200 if version == "pi05" else 48,
            "discrete_state": version == "pi05" and changes.get("proprio_dim", 0) > 0,
        }
    except KeyError as error:
        raise PolicyFileError(f"{place} lacks {error.args[0]}: take the whole checkpoint") from None
    heads = [shapes[name][0] for index in (0, 2, 4) if (name := f"value_head.mlp.{index}.weight") in shapes]
    if len(heads) == 3:
        fields["value_widths"] = heads
    inner = {name: fields[name] | dict(changes[name]) for name in ("vision", "vlm", "expert") if name in changes}
    return Pi0Config().changed(fields | dict(changes) | inner)


def _layers(shapes: Shapes, prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in shapes if name.startswith(prefix))


def held_in(name: str, precision: Precision) -> torch.dtype:
    """The type that a parameter is held in.

    Args:
        name: of the parameter.
        precision: of the policy; bf16 leaves in float32 what openpi does: the tower's embeddings, Gemma's norms, and
            what is not PaliGemma or the expert.
    """
    if precision != "bf16" or not name.startswith(BASE):
        return torch.float32
    kept = ("patch_embedding", "position_embedding", "input_layernorm", "post_attention_layernorm", "model.norm.")
    norm = f"{VLM}norm."
    return torch.float32 if any(part in name for part in kept) or name.startswith(norm) else torch.bfloat16


def write(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `model.safetensors`, one file as openpi reads it.

    Args:
        directory: an existing directory.
        tensors: by published name.
    """
    whole = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    save_file(whole, directory / WEIGHTS, metadata={TIED: EMBEDDING})
