"""Normalising of proprioception and actions, and openpi's `norm_stats.json`.

A number whose statistics say not to normalise it (`mask` false, a gripper in [-1, 1]) is written to the file with mean
0, deviation 1 and the quantiles -1 and 1, which leave it as it is up to the 1e-6 that openpi adds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.policies.statistics import REMEDY, Moments, PolicyFileError, Statistics, read_record

FILE_NAME = "norm_stats.json"
EPSILON = 1e-6
"""Added to a deviation or a range before dividing, as openpi does."""
FLAT = 1e-6
"""A deviation or a range below this is a number that never changed."""


class Units(nn.Module):
    """From the environment's numbers to the network's and back, in float64.

    Attributes:
        constant: bool [n], numbers that were the same in all demonstrations.
    """

    centre: Tensor
    spread: Tensor
    constant: Tensor

    def __init__(self, moments: Moments, quantiles: bool) -> None:
        """Take the moments.

        Args:
            moments: of n numbers.
            quantiles: (x - q01) / (q99 - q01 + 1e-6) * 2 - 1 instead of (x - mean) / (std + 1e-6).

        Raises:
            PolicyFileError: the statistics lack what this takes.
        """
        super().__init__()
        known, needed = entry_of(moments), ("q01", "q99") if quantiles else ("mean", "std")
        if lacking := [name for name in needed if name not in known]:
            raise PolicyFileError(
                f"the statistics lack {' and '.join(lacking)}: "
                "set policy.statistics=demonstrations, or options.normalise"
            )
        first, second = (known[name] for name in needed)
        width = second - first if quantiles else second
        spread = (width + EPSILON) / 2 if quantiles else width + EPSILON
        centre = first + spread if quantiles else first
        for name, values in (("centre", centre), ("spread", spread), ("constant", width < FLAT)):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """[..., n] of the environment as float64 [..., n] of the network."""
        return (numbers.double() - self.centre) / self.spread

    def inverse(self, numbers: Tensor) -> Tensor:
        """[..., n] of the network as float64 [..., n] of the environment."""
        return numbers.double() * self.spread + self.centre


def entry_of(moments: Moments) -> dict[str, np.ndarray]:
    """The moments as openpi knows them, mean, std, q01 and q99, each [n]; unknown ones are left out."""
    neutral = {"mean": 0.0, "std": 1.0, "q01": -1.0, "q99": 1.0}
    entry = {name: np.where(moments.mask, getattr(moments, name), value) for name, value in neutral.items()}
    return {name: values for name, values in entry.items() if not np.isnan(values).any()}


def write(directory: Path, statistics: Statistics) -> None:
    """Write `norm_stats.json`, openpi's form of the statistics.

    Args:
        directory: where to.
        statistics: of the demonstrations.
    """
    parts = {"state": statistics.proprio, "actions": statistics.action}
    record = {name: {key: v.tolist() for key, v in entry_of(moments).items()} for name, moments in parts.items()}
    (directory / FILE_NAME).write_text(json.dumps({"norm_stats": record}, indent=1) + "\n", encoding="utf-8")


def find(directory: Path) -> dict[str, Path]:
    """The `norm_stats.json` files of a checkpoint.

    Args:
        directory: of the checkpoint: the file lies there, in a folder of its asset, or in one under `assets`.

    Returns:
        Asset -> file; "" is the directory's own.
    """
    if (directory / FILE_NAME).is_file():
        return {"": directory / FILE_NAME}
    found: dict[str, Path] = {}
    for base in (directory, directory / "assets"):
        for path in sorted(base.glob(f"**/{FILE_NAME}")) if base.is_dir() else ():
            asset = path.parent.relative_to(directory).as_posix().removeprefix("assets/")
            found.setdefault(asset, path)
    return found


def read(directory: Path, asset: str | None, proprio_dim: int | None, action_dim: int | None) -> Statistics:
    """Read a checkpoint's statistics.

    Args:
        directory: of the checkpoint.
        asset: which of its data sets; None for its only one.
        proprio_dim: P, numbers of the proprioception; the file may know more of them. None: as many as it has.
        action_dim: A, likewise.

    Returns:
        The statistics.

    Raises:
        PolicyFileError: there is no file, none or several fit, or it is damaged or knows too few numbers.
    """
    files = find(directory)
    if not files:
        raise PolicyFileError(
            f"{directory} has no {FILE_NAME}, neither there nor under an asset's folder or assets/: copy it from the "
            "checkpoint's assets, or set policy.statistics=demonstrations"
        )
    if asset is None and len(files) > 1:
        raise PolicyFileError(f"{directory} has {FILE_NAME} of several data sets: name one of {', '.join(files)}")
    chosen = next(iter(files)) if asset is None or set(files) == {""} else asset
    if chosen not in files:
        raise PolicyFileError(f"{directory} has no {FILE_NAME} of {asset}: name one of {', '.join(files)}")
    path = files[chosen]
    record = read_record(path)
    try:
        parts = record.get("norm_stats", record)
        state, actions = (_moments(parts[name]) for name in ("state", "actions"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyFileError(f"{path} is damaged ({error!r}): {REMEDY}") from None
    return Statistics(
        action=_first(actions, action_dim, "actions", "action_dim", path),
        proprio=_first(state, proprio_dim, "state", "proprio_dim", path),
        dataset=asset or chosen or "baton",
    )


def _moments(entry: Mapping[str, Any]) -> Moments:
    """One vector's record; quantiles may be lacking, as in files for pi0."""
    mean = np.asarray(entry["mean"], dtype=np.float64)
    unknown = np.full(mean.shape, np.nan)
    columns = {
        name: np.asarray(unknown if entry.get(name) is None else entry[name], dtype=np.float64)
        for name in ("mean", "std", "q01", "q99")
    }
    if mean.ndim != 1 or any(column.shape != mean.shape for column in columns.values()):
        raise ValueError("its lists differ in length")
    return Moments(**columns, minimum=unknown, maximum=unknown, mask=np.ones(mean.shape, dtype=bool))


def _first(moments: Moments, count: int | None, name: str, place: str, path: Path) -> Moments:
    """The first numbers of a vector: files written for the padded network know more than a robot has."""
    known = len(moments.mask)
    if count is not None and count > known:
        raise PolicyFileError(
            f"{path}: {name} has {known} numbers, {place} is {count}: take the statistics of this robot"
        )
    cut = slice(count)
    return Moments(**{field: getattr(moments, field)[cut] for field in Moments.__dataclass_fields__})


def deltas(action_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """Which actions are differences to the proprioception: all but every seventh, the grippers; bool [A]."""
    return torch.arange(action_dim, device=device) % 7 != 6
