"""Creating, loading and saving an OpenVLA-OFT policy.

A policy is a directory in the originals' layout, so that Baton reads what they published and they read what Baton
trained; config.json has one block more, `baton`, with what the originals keep in code. The bytes depend on the policy
alone. A policy in training with LoRA keeps its frozen base in `base/`, a directory of the same layout, and the
additions beside it as peft does; `merge.py` makes one policy of the two.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.policies import weights
from stages.policies.interface import PolicyConfigError, Precision
from stages.policies.openvla_oft import adapter, initial, published, side_files
from stages.policies.openvla_oft.config import LoRAConfig, OpenVLAOFTConfig
from stages.policies.openvla_oft.lora import BASE, freeze, is_lora
from stages.policies.openvla_oft.policy import OpenVLAOFT
from stages.policies.openvla_oft.prompt import DIRECTORY
from stages.policies.openvla_oft.published import CONFIG, PIXELS
from stages.policies.statistics import REMEDY, PolicyFileError, Statistics, read_record, read_statistics
from stages.policies.weights import Stored

BASE_FOLDER, BLOCK = "base", "baton"
FRESH = ("value_head", "proprio_projector", "camera_embedding", "action_embedding", "action_head_tokens")
"""What a checkpoint to start from may lack: it is drawn from the seed."""


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
    policy = build(OpenVLAOFTConfig.from_options(options), statistics, DIRECTORY)
    policy.load_state_dict(_cast(policy, initial.draw(policy, seed, set(policy.state_dict()))), assign=True)
    return policy


def build(config: OpenVLAOFTConfig, statistics: Statistics, tokenizer: Path) -> OpenVLAOFT:
    """A policy without weights: its parameters are on the meta device.

    Args:
        config: the dimensions.
        statistics: of the demonstrations.
        tokenizer: directory of `tokenizer.json`.

    Returns:
        The policy.

    Raises:
        PolicyConfigError: the statistics are of other vectors than the config's.
        PolicyFileError: the tokenizer does not fit.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return OpenVLAOFT(config, statistics, tokenizer)


def load(
    directory: Path,
    device: torch.device | str = "cpu",
    precision: Precision | None = None,
    options: Mapping[str, Any] | None = None,
    statistics: Statistics | str | None = None,
    seed: int | None = None,
) -> OpenVLAOFT:
    """Load a policy that Baton saved, or one of the originals'.

    Args:
        directory: of the policy.
        device: where to put it; nothing goes there before every file has been checked.
        precision: what to compute in; None keeps what the config says.
        options: fields of `OpenVLAOFTConfig` that are to differ; `adapter` is a directory of peft's to start LoRA from.
        statistics: to normalise by, or the name of a data set of the checkpoint; None for its only one.
        seed: draws what the checkpoint may lack (`FRESH`, and LoRA); None refuses a checkpoint that lacks it.

    Returns:
        The policy.

    Raises:
        PolicyFileError: a file is missing or damaged, or a tensor is missing, unknown or of another shape.
    """
    record = read_record(directory / CONFIG)
    base = directory / BASE_FOLDER if (directory / BASE_FOLDER).is_dir() else None
    folders = [directory] if base is None else [base, directory]
    stored: dict[str, Stored] = {}
    sides: dict[str, Tensor] = {}
    for folder in folders:
        stored |= weights.find(folder)
        sides |= _side_tensors(folder)
    changes = dict(options or {}) | ({} if precision is None else {"precision": precision})
    adapted = Path(changes.pop("adapter", None) or directory)
    if adapted != directory:
        changes["lora"] = dataclasses.asdict(adapter.read_config(adapted))
    try:
        block = record.get(BLOCK, {})
        if not isinstance(statistics, Statistics):
            known = record.get("norm_stats", {}) | read_statistics(directory, needed=BLOCK in record)
            statistics = Statistics.choose(known, statistics or block.get("dataset"), str(directory))
        if BLOCK in record:
            config = OpenVLAOFTConfig().changed(block["config"]).changed(changes)
        else:
            shapes = {name: one.shape for name, one in stored.items()} | _shapes(sides)
            action_dim = len(statistics.action.mask)
            pixels = read_record(directory / PIXELS)
            config = published.config_of(record, pixels, shapes, action_dim, changes, str(directory))
    except PolicyConfigError as error:
        raise PolicyFileError(f"{directory / CONFIG}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise PolicyFileError(f"{directory / CONFIG} is damaged ({error!r}): {REMEDY}") from None
    policy = build(config, statistics, directory)
    policy.source, policy.base = record, base if config.lora.rank else None
    stored |= adapter.find(adapted, set(policy.state_dict()), published.unused(config))
    fresh = _fill(policy, stored, sides, device, seed is not None, str(directory))
    policy.load_state_dict(_cast(policy, initial.draw(policy, seed or 0, fresh)), strict=False, assign=True)
    if config.lora.rank:
        freeze(policy)
    return policy.to(device)


def _fill(
    policy: OpenVLAOFT,
    stored: Mapping[str, Stored],
    sides: Mapping[str, Tensor],
    device: torch.device | str,
    incomplete: bool,
    place: str,
) -> set[str]:
    """Put a checkpoint's tensors into a policy; returns the names of the parameters it lacks and may lack."""
    own = policy.state_dict()
    groups = published.grouped(own)
    expected = {name: _shape([own[part] for part in parts]) for name, parts in groups.items()}
    spare = published.unused(policy.config)
    found = {name: one.shape for name, one in stored.items()} | _shapes(sides)
    if spare.keys() & found.keys():
        expected |= spare
    lacking = {name for name in expected.keys() - found.keys() if incomplete and _may_lack(name)}
    weights.compare(found, {name: shape for name, shape in expected.items() if name not in lacking}, place)
    names = [name for name in stored if name not in sides]
    placed: dict[str, Tensor] = {}
    for name, tensor in itertools.chain(sides.items(), weights.read(stored, names, device)):
        if name in spare:
            policy.unused[name] = tensor.cpu()
            continue
        parts = groups[name]
        pieces = tensor.split([len(own[part]) for part in parts]) if len(parts) > 1 else [tensor]
        pairs = {part: piece.to(device).contiguous() for part, piece in zip(parts, pieces, strict=True)}
        placed |= _cast(policy, pairs)
    policy.load_state_dict(placed, strict=False, assign=True)
    return {part for name in lacking for part in groups[name]}


def _cast(policy: OpenVLAOFT, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the type that a policy of its precision holds its parameters in."""
    dtype = torch.bfloat16 if policy.precision == "bf16" else torch.float32
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def _may_lack(name: str) -> bool:
    return name.split(".", 1)[0] in FRESH or is_lora(name)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _shape(parts: list[Tensor]) -> tuple[int, ...]:
    return (sum(len(part) for part in parts), *parts[0].shape[1:])


def _side_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors of all side files, under the names that parameters have."""
    if (noisy := side_files.find(directory, "noisy_action_projector")) is not None:
        raise PolicyFileError(
            f"{noisy}: Baton has no diffusion head; take a checkpoint with action tokens or an L1 head"
        )
    tensors: dict[str, Tensor] = {}
    for component in published.SIDE_FILES:
        if (file := side_files.find(directory, component)) is not None:
            tensors |= {f"{component}.{name}": tensor for name, tensor in side_files.read(file).items()}
    if (file := side_files.find(directory, "vision_backbone")) is not None:
        film = published.from_film(side_files.read(file))
        tensors |= {f"vision_backbone.{name.removeprefix('vision_backbone.')}": tensor for name, tensor in film.items()}
    return tensors


# ----------------------------------------------------------------------------------------------------------------------
# Saving


def save(policy: OpenVLAOFT, directory: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a policy.

    Args:
        policy: what to write.
        directory: an existing directory.
        state: parameters by name to write instead of the policy's own; it may lack what LoRA has frozen, if that is in
            the files the policy came from.

    Raises:
        PolicyFileError: `state` is not that of this policy.
    """
    own = policy.state_dict()
    given = own if state is None else state
    frozen = {name for name in own if policy.base and name.split(".", 1)[0] in BASE and not is_lora(name)}
    # names alone: of an engine that splits parameters over ranks, the policy's own are empty
    needed = dict.fromkeys(own.keys() - (frozen - given.keys()), ())
    weights.compare(dict.fromkeys(given, ()), needed, "the state to save")
    groups = published.grouped(needed)
    parts = {name: [given[part] for part in groups[name]] for name in groups} | {
        name: [tensor] for name, tensor in policy.unused.items()
    }
    config = policy.config
    if config.lora.rank:
        additions = {name: parts.pop(name) for name in groups if is_lora(name)}
        adapter.write(directory, config.lora, additions)
        base = {name: parts.pop(name) for name in list(parts) if name.split(".", 1)[0] in BASE}
        _write_base(policy, directory / BASE_FOLDER, base)
    _write(policy, directory, parts, config)


def _write(policy: OpenVLAOFT, directory: Path, parts: dict[str, list[Tensor]], config: OpenVLAOFTConfig) -> None:
    """Write tensors and everything that describes them."""
    for component in published.SIDE_FILES:
        inside = {name: parts.pop(name) for name in list(parts) if name.startswith(f"{component}.")}
        if inside:
            shorter = {name.removeprefix(f"{component}."): tensors for name, tensors in inside.items()}
            side_files.write(directory, component, shorter)
    towers = {name: parts[name] for name in parts if config.film and name.startswith("vision_backbone.")}
    if towers:
        film = {published.to_film(name): tensors for name, tensors in towers.items()}
        side_files.write(directory, "vision_backbone", film)
    weights.write(directory, {name: parts[name] for name in parts if not published.is_film(name)})
    statistics = {policy.statistics.dataset: policy.statistics.to_json()}
    block = {"policy": policy.name, "dataset": policy.statistics.dataset, "config": config.to_json()}
    record = policy.source | published.record_of(config)
    record |= {"norm_stats": policy.source.get("norm_stats", {}) | statistics, BLOCK: block}
    for name, content in ((CONFIG, record), (PIXELS, published.pixels_of(config))):
        (directory / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    policy.statistics.save(directory)
    policy.prompts.save(directory)


def _write_base(policy: OpenVLAOFT, directory: Path, parts: dict[str, list[Tensor]]) -> None:
    """Give the frozen base to a saved policy: files of the policy it came from, else written."""
    directory.mkdir()
    if policy.base is None:
        _write(policy, directory, parts, dataclasses.replace(policy.config, lora=LoRAConfig()))
        return
    for file in sorted(policy.base.iterdir()):
        try:
            os.link(file, directory / file.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, directory / file.name)
