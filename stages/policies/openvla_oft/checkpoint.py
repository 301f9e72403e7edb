"""Creating, saving and loading an OpenVLA-OFT policy.

A policy is a directory in a Hugging Face layout: config.json, model.safetensors, dataset_statistics.json and the
tokenizer's files. The bytes depend on the policy alone, and nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.policies.interface import PolicyConfigError, Precision
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.policy import OpenVLAOFT
from stages.policies.statistics import PolicyFileError, Statistics

CONFIG, WEIGHTS = "config.json", "model.safetensors"
REMEDY = "take the policy from its artifact again"


def make(options: Mapping[str, Any], statistics: Statistics, seed: int) -> OpenVLAOFT:
    """Create a fresh policy.

    Args:
        options: fields of `OpenVLAOFTConfig`, and `preset`.
        statistics: of the demonstrations.
        seed: decides every weight.

    Returns:
        The policy, on the CPU.

    Raises:
        PolicyConfigError: an option is wrong.
    """
    policy = _build(OpenVLAOFTConfig.from_options(options), statistics)
    initialise(policy, seed)
    return policy


@torch.no_grad()
def initialise(policy: OpenVLAOFT, seed: int) -> None:
    """Draw all weights.

    Matrices get N(0, 1 / fan in), those that end a residual branch of the language model less by the square root of
    their number; biases 0; norms 1; embeddings the config's deviations; heads start near a uniform distribution and at
    value 0.

    Args:
        policy: changed in place.
        seed: of the generator; parameters are visited in the order of their names.
    """
    config, generator = policy.config, torch.Generator().manual_seed(seed)
    for name, parameter in sorted(policy.named_parameters()):
        leaf = name.rsplit(".", 1)[-1]
        if "position_embedding" in name or leaf in ("camera_embedding", "action_embedding"):
            std = config.position_std
        elif "embed_tokens" in name or leaf in ("cls_token", "register_tokens"):
            std = config.token_std
        elif name == f"value_head.mlp.{len(policy.value_head.mlp) - 1}.weight":
            std = 0.0
        elif "lm_head" in name or "action_head_tokens" in name:
            std = 0.02
        elif parameter.dim() == 1:
            parameter.fill_(0.0 if leaf == "bias" else 1.0)
            continue
        else:
            std = (parameter.numel() // parameter.shape[0]) ** -0.5
            if "o_proj" in name and "language_model" in name or "down_proj" in name:
                std /= (2 * config.layers) ** 0.5
        parameter.copy_(torch.empty(parameter.shape).normal_(0.0, 1.0, generator=generator).mul_(std))


def save(policy: OpenVLAOFT, directory: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a policy.

    Args:
        policy: what to write.
        directory: an existing directory.
        state: parameters by name to write instead of the policy's own.

    Raises:
        PolicyFileError: `state` is not that of this policy.
    """
    own = policy.state_dict()
    given = own if state is None else state
    _compare({name: tuple(t.shape) for name, t in given.items()}, own, "the state to save")
    weights = {name: given[name].detach().to("cpu", torch.float32).contiguous() for name in sorted(own)}
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    record = {"policy": policy.name, "dataset": policy.statistics.dataset, **policy.config.to_json()}
    (directory / CONFIG).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    policy.statistics.save(directory)
    policy.prompts.save(directory)


def load(directory: Path, device: torch.device | str = "cpu", precision: Precision | None = None) -> OpenVLAOFT:
    """Load what `save` wrote.

    Args:
        directory: of a saved policy.
        device: where to put it.
        precision: what to compute in; None keeps what the config says.

    Returns:
        The policy.

    Raises:
        PolicyFileError: a file is missing or damaged, or a tensor is missing, unknown or of another shape.
    """
    path = directory / CONFIG
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        dataset = record.pop("dataset", None)
        record.pop("policy")
        if precision is not None:
            record["precision"] = precision
        config = OpenVLAOFTConfig.from_options(record)
    except FileNotFoundError:
        raise PolicyFileError(f"{path} is missing: {REMEDY}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise PolicyFileError(f"{path} is damaged ({error!r}): {REMEDY}") from None
    except PolicyConfigError as error:
        raise PolicyFileError(f"{path}: {error}") from None
    policy = _build(config, Statistics.load(directory, dataset), directory)
    _read_weights(policy, directory / WEIGHTS)
    return policy.to(device)


def _build(config: OpenVLAOFTConfig, statistics: Statistics, tokenizer: Path | None = None) -> OpenVLAOFT:
    """Build without weights worth keeping, and without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        return OpenVLAOFT(config, statistics) if tokenizer is None else OpenVLAOFT(config, statistics, tokenizer)


def _read_weights(policy: nn.Module, path: Path) -> None:
    own = policy.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _compare(shapes, own, str(path))
            policy.load_state_dict({name: file.get_tensor(name) for name in own}, strict=True)
    except FileNotFoundError:
        raise PolicyFileError(f"{path} is missing: {REMEDY}") from None
    except SafetensorError as error:
        raise PolicyFileError(f"{path} is damaged ({error}): {REMEDY}") from None


def _compare(found: Mapping[str, tuple[int, ...]], own: Mapping[str, Tensor], place: str) -> None:
    """Refuse tensors that are missing, unknown or of another shape, all in one line."""
    missing, surplus = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    faults = [f"{name} is missing" for name in missing] + [f"{name} is unknown" for name in surplus]
    for name in sorted(own.keys() & found.keys()):
        if found[name] != tuple(own[name].shape):
            faults.append(f"{name} has shape {found[name]}, expected {tuple(own[name].shape)}")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise PolicyFileError(f"{place} does not fit config.json: {shown}: {REMEDY}")
