"""Whether the policy to start from fits the config, from its files' headers alone, before anything is submitted.

The weights stay on disk. The policy's own loader checks every tensor; here is what a config can have wrong: another
policy's checkpoint, missing statistics, a horizon or a width that the run does not fit into.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError

STATISTICS = ("norm_stats.json", "dataset_statistics.json")
MARKS = {
    "pi0": "paligemma_with_expert.",
    "openvla_oft": "vision_backbone.",
}
"""How tensors of a policy are called that no other has."""
HORIZON = 50
"""openpi's default, of a checkpoint without a config.json."""


def require(config: Config) -> None:
    """Refuse a run whose checkpoint is not there or cannot be its warm start.

    Args:
        config: of the run.

    Raises:
        UserError: the line says what is wrong and what to do.
    """
    checkpoint = config.policy.checkpoint
    if checkpoint is not None and not Path(checkpoint).expanduser().is_dir():
        raise UserError(f"policy.checkpoint={checkpoint} is no directory: name one that a policy was saved to")
    check(config)


def check(config: Config) -> None:
    """Refuse a checkpoint that cannot be the warm start of the run; one that is not there is not looked at.

    Args:
        config: of the run.

    Raises:
        UserError: it is of another policy, or does not fit; the line says which and what to do.
    """
    place = Path(config.policy.checkpoint or "").expanduser()
    if config.policy.checkpoint is None or not place.is_dir():
        return
    about, shapes = _json(place / "config.json"), _shapes(place)
    _family(config, place, about, shapes)
    if config.policy.name == "pi0":
        _statistics(config, place)
        _fits(config, place, about, shapes)


def _family(config: Config, place: Path, about: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """Refuse a checkpoint of another policy."""
    named = about.get("baton", {}).get("policy") or {"openvla": "openvla_oft"}.get(about.get("model_type", ""))
    marked = [policy for policy, mark in MARKS.items() if any(name.startswith(mark) for name in shapes)]
    found = named or (marked[0] if len(marked) == 1 else None)
    wanted = config.policy.name
    if found not in (None, wanted):
        raise UserError(
            f"policy.checkpoint={place} holds a policy of {found}: set policy.name={found}, or name another"
        )
    if found is None and wanted == "pi0":
        raise UserError(
            f"policy.checkpoint={place} holds no pi0: its model.safetensors has no tensor `{MARKS['pi0']}...`; name an "
            "openpi checkpoint in PyTorch's format"
        )


def _statistics(config: Config, place: Path) -> None:
    """Refuse a checkpoint whose actions nothing normalises, or several data sets could."""
    wanted = config.policy.statistics
    if wanted == "demonstrations":
        return
    found = sorted({path for name in STATISTICS for path in place.rglob(name)})
    if not found:
        raise UserError(
            f"policy.checkpoint={place} has no {' and no '.join(STATISTICS)}: copy the one of its assets there, or "
            "set policy.statistics=demonstrations"
        )
    assets = {path.parent.relative_to(place).as_posix().removeprefix("assets/"): path for path in found}
    if wanted is None and len(assets) > 1:
        raise UserError(
            f"policy.checkpoint={place} has statistics of several data sets: set policy.statistics to one of "
            f"{', '.join(assets)}"
        )
    path = assets.get(wanted or "", found[0])
    if path.name == STATISTICS[0] and (known := _numbers(path)) < config.policy.action_dim:
        raise UserError(
            f"{path} knows {known} numbers an action, fewer than policy.action_dim={config.policy.action_dim}: "
            "take the statistics of this robot, or set policy.statistics=demonstrations"
        )


def _numbers(path: Path) -> int:
    """How many numbers of an action a norm_stats.json knows."""
    record = _json(path)
    try:
        return len(record.get("norm_stats", record)["actions"]["mean"])
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged (no mean of its actions): take the policy from its source again") from None


def _fits(config: Config, place: Path, about: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """Refuse sizes that the run does not fit into."""
    policy = config.policy
    version = "pi05" if "time_mlp_in.weight" in shapes else "pi0"
    if shapes and version != policy.flow.version:
        raise UserError(f"policy.checkpoint={place} is a {version}: set policy.flow.version={version}")
    horizon = policy.flow.horizon or about.get("action_horizon") or HORIZON
    if horizon < policy.chunk:
        raise UserError(
            f"policy.checkpoint={place} denoises {horizon} actions, fewer than policy.chunk={policy.chunk} carries "
            f"out: set policy.chunk to {horizon} or less"
        )
    width = shapes.get("action_in_proj.weight", [0, policy.action_dim])[1]
    if width < policy.action_dim:
        raise UserError(
            f"policy.checkpoint={place} has {width} numbers an action, fewer than policy.action_dim="
            f"{policy.action_dim}: name one that is wide enough"
        )


def _json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): take the policy from its source again") from None
    return found if isinstance(found, dict) else {}


def _shapes(place: Path) -> dict[str, list[int]]:
    """Tensor -> its shape, of all safetensors files of a directory."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(place.glob("*.safetensors")):
        with path.open("rb") as file:
            try:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                shapes |= {name: one["shape"] for name, one in header.items() if name != "__metadata__"}
            except (ValueError, OverflowError, MemoryError, TypeError, KeyError, AttributeError):
                raise UserError(f"{path} is damaged: take the policy from its source again") from None
    return shapes
