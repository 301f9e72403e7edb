"""Directories as openpi publishes them, made of any tensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor

ALIAS = {
    "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight": (
        "paligemma_with_expert.paligemma.lm_head.weight"
    )
}
EXPERT_HEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"


def publish(
    directory: Path,
    tensors: Mapping[str, Tensor],
    statistics: Mapping[str, Any],
    *,
    place: str = "assets/robot",
    horizon: int | None = None,
    words: int = 64,
) -> Path:
    """Write a directory in openpi's layout.

    Args:
        directory: to be made.
        tensors: by published name.
        statistics: `state` and `actions`, each with mean and std and perhaps q01 and q99.
        place: folder of norm_stats.json.
        horizon: of config.json; None for no such file.
        words: of the tokenizer.
    """
    (directory / place).mkdir(parents=True)
    (directory / place / "norm_stats.json").write_text(json.dumps({"norm_stats": statistics}))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors", ALIAS)
    if horizon is not None:
        record = {"action_dim": 32, "action_horizon": horizon, "paligemma_variant": "gemma_2b", "precision": "bfloat16"}
        (directory / "config.json").write_text(json.dumps(record))
    vocabulary = {"<unk>": 3} | {f"word{index}": index for index in range(words) if index != 3}
    Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")).save(str(directory / "tokenizer.json"))
    return directory
