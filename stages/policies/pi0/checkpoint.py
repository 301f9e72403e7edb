"""Creating, loading and saving a pi0 policy.

A policy is a directory in openpi's PyTorch layout: model.safetensors and norm_stats.json, so that Baton reads what
openpi published and openpi reads what Baton trained. config.json has a block `baton` with what openpi keeps in code.
The bytes depend on the policy alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.policies import weights
from stages.policies.interface import PolicyConfigError, Precision
from stages.policies.pi0 import initial, published, units
from stages.policies.pi0.config import Pi0Config
from stages.policies.pi0.policy import Pi0
from stages.policies.pi0.prompt import DIRECTORY
from stages.policies.statistics import REMEDY, PolicyFileError, Statistics, read_record

CONFIG, BLOCK = "config.json", "baton"
FRESH = ("value_head.", "noise_head.")
"""What a checkpoint to start from may lack: it is drawn from the seed."""


def make(options: Mapping[str, Any], statistics: Statistics, seed: int) -> Pi0:
    """Create a fresh policy.

    Args:
        options: fields of `Pi0Config`, and `preset`.
        statistics: of the demonstrations.
        seed: decides every weight.

    Returns:
        The policy, on the CPU.

    Raises:
        PolicyConfigError: an option is wrong.
    """
    config = Pi0Config.from_options(options)
    policy = build(config, statistics, DIRECTORY)
    policy.load_state_dict(_cast(policy, initial.draw(policy, seed, set(policy.state_dict()))), assign=True)
    # openpi's loader asks for it, though nothing reads it
    policy.unused = _cast(policy, {published.UNUSED: torch.zeros(config.vocab_size, config.expert.width)})
    return policy


def build(config: Pi0Config, statistics: Statistics, tokenizer: Path) -> Pi0:
    """A policy without weights: its parameters are on the meta device.

    Args:
        config: the dimensions.
        statistics: of the demonstrations.
        tokenizer: directory of `tokenizer.json`.

    Returns:
        The policy.

    Raises:
        PolicyConfigError: the statistics are of other vectors than the config's, or the actions' differences unknown.
        PolicyFileError: the tokenizer does not fit.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return Pi0(config, statistics, tokenizer)


def load(
    directory: Path,
    device: torch.device | str = "cpu",
    precision: Precision | None = None,
    options: Mapping[str, Any] | None = None,
    statistics: Statistics | str | None = None,
    seed: int | None = None,
) -> Pi0:
    """Load a policy that Baton saved, or one of openpi's.

    Args:
        directory: of the policy.
        device: where to put it; nothing goes there before every file has been checked.
        precision: what to compute in; None keeps what the config says.
        options: fields of `Pi0Config` that are to differ.
        statistics: to normalise by, or the name of a data set of the checkpoint; None for its only one.
        seed: draws what the checkpoint may lack (`FRESH`); None refuses a checkpoint that lacks it.

    Returns:
        The policy.

    Raises:
        PolicyFileError: a file is missing or damaged, or a tensor is missing, unknown or of another shape.
    """
    path = directory / CONFIG  # openpi's checkpoints may lack it
    record = read_record(path) if path.is_file() else {}
    stored = weights.find(directory)
    shapes = {name: one.shape for name, one in stored.items()}
    version = published.version_of(shapes, str(directory))
    changes = {"version": version} | dict(options or {}) | ({} if precision is None else {"precision": precision})
    try:
        if BLOCK in record:
            block = record[BLOCK]
            if not isinstance(statistics, Statistics):
                statistics = Statistics.load(directory, statistics or block["dataset"])
            config = Pi0Config().changed(block["config"]).changed(changes)
            if config.version != version:
                raise PolicyConfigError(f"version: {config.version!r} does not fit; the checkpoint is of {version}")
        else:
            if not isinstance(statistics, Statistics):
                known = (changes.get("proprio_dim"), changes.get("action_dim"))
                statistics = units.read(directory, statistics, *known)
            sizes = {"proprio_dim": len(statistics.proprio.mask), "action_dim": len(statistics.action.mask)}
            config = published.config_of(shapes, record, sizes | changes, str(directory))
        policy = build(config, statistics, directory)
    except PolicyConfigError as error:
        raise PolicyFileError(f"{directory}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise PolicyFileError(f"{path} is damaged ({error!r}): {REMEDY}") from None
    fresh = _fill(policy, stored, device, seed is not None, str(directory))
    policy.load_state_dict(_cast(policy, initial.draw(policy, seed or 0, fresh)), strict=False, assign=True)
    return policy.to(device)


def _fill(
    policy: Pi0, stored: Mapping[str, weights.Stored], device: torch.device | str, incomplete: bool, place: str
) -> set[str]:
    """Put a checkpoint's tensors into a policy; returns the names of the parameters it lacks and may lack."""
    expected = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    found = {name: one.shape for name, one in stored.items() if name != published.TIED}
    spare = {name for name in found.keys() - expected.keys() if _is_spare(name)}
    lacking = {name for name in expected.keys() - found.keys() if incomplete and name.startswith(FRESH)}
    weights.compare(
        {name: shape for name, shape in found.items() if name not in spare},
        {name: shape for name, shape in expected.items() if name not in lacking},
        place,
    )
    policy.unused = dict(weights.read(stored, spare, "cpu"))
    names = expected.keys() - lacking
    placed = {
        name: tensor.to(published.held_in(name, policy.precision))
        for name, tensor in weights.read(stored, names, device)
    }
    policy.load_state_dict(placed, strict=False, assign=True)
    return lacking


def _is_spare(name: str) -> bool:
    """Whether a tensor is carried along: the expert's unused head, and a deviation that the sampler has no use for."""
    return name == published.UNUSED or name.startswith("noise_head.")


def _cast(policy: Pi0, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(published.held_in(name, policy.precision)) for name, tensor in tensors.items()}


def save(policy: Pi0, directory: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a policy.

    Args:
        policy: what to write.
        directory: an existing directory.
        state: parameters by name to write instead of the policy's own.

    Raises:
        PolicyFileError: `state` is not that of this policy.
    """
    given = policy.state_dict() if state is None else state
    # names alone: of an engine that splits parameters over ranks, the policy's own are empty
    weights.compare(dict.fromkeys(given, ()), dict.fromkeys(policy.state_dict(), ()), "the state to save")
    published.write(directory, dict(given) | policy.unused)
    config = policy.config
    record = {
        "action_dim": config.action_width,
        "action_horizon": config.steps,
        "precision": "bfloat16" if config.precision == "bf16" else "float32",
        BLOCK: {"policy": policy.name, "dataset": policy.statistics.dataset, "config": config.to_json()},
    }
    (directory / CONFIG).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    policy.statistics.save(directory)
    units.write(directory, policy.statistics)
    policy.prompts.save(directory)
