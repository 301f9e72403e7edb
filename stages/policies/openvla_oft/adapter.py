"""LoRA's files as peft writes them: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from stages.policies import weights
from stages.policies.openvla_oft.config import LoRAConfig
from stages.policies.statistics import REMEDY, PolicyFileError, read_record
from stages.policies.weights import Stored

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layers_to_transform": None,
}
"""What peft can do beside a low-rank addition to a module's weight; a file that asks for more is refused."""


def write(directory: Path, config: LoRAConfig, tensors: Mapping[str, list[Tensor]]) -> None:
    """Write additions.

    Args:
        directory: an existing directory.
        config: of the additions.
        tensors: by name, each as a list of one.
    """
    record: dict[str, Any] = {
        **PLAIN,
        "base_model_name_or_path": "base",
        "task_type": None,
        "inference_mode": True,
        "init_lora_weights": "gaussian",
        "r": config.rank,
        "lora_alpha": config.alpha or config.rank,
        "lora_dropout": config.dropout,
        "target_modules": "all-linear" if config.targets == ("all-linear",) else list(config.targets),
    }
    (directory / CONFIG).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    whole = {f"{PREFIX}{name}": tensors[name][0].detach().cpu().contiguous() for name in sorted(tensors)}
    save_file(whole, directory / WEIGHTS, metadata={"format": "pt"})


def find(directory: Path, known: Collection[str], spare: Collection[str]) -> dict[str, Stored]:
    """The additions of a directory.

    Args:
        directory: of a policy or of an adapter.
        known: names of the policy's parameters.
        spare: names of published tensors that no forward pass reads; additions to them stay away.

    Returns:
        Where each is, under the parameters' names; nothing if there is no adapter.

    Raises:
        PolicyFileError: the file is truncated or damaged.
    """
    if not (directory / CONFIG).is_file():
        return {}
    found = {name.removeprefix(PREFIX): stored for name, stored in weights.header(directory / WEIGHTS).items()}
    idle = {name for name in found if name not in known and f"{name.rsplit('.lora_', 1)[0]}.weight" in spare}
    return {name: stored for name, stored in found.items() if name not in idle}


def read_config(directory: Path) -> LoRAConfig:
    """What kind of additions a directory holds.

    Args:
        directory: of an adapter.

    Returns:
        Their config.

    Raises:
        PolicyFileError: the file is missing or damaged, or the adapter is more than low-rank additions.
    """
    path = directory / CONFIG
    record = read_record(path)
    try:
        for key, plain in PLAIN.items():
            if record.get(key, plain) not in (plain, None, False) and record[key]:
                raise PolicyFileError(f"{path}: {key}={record[key]!r} is not supported; only {plain!r} is")
        targets = record["target_modules"]
        return LoRAConfig(
            rank=record["r"],
            alpha=float(record["lora_alpha"]),
            dropout=float(record.get("lora_dropout", 0.0)),
            targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyFileError(f"{path} is damaged ({error!r}): {REMEDY}") from None
