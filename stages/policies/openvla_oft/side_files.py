"""The originals' side files: a component's tensors beside the model's, as torch archives or safetensors.

Archives are read with `weights_only`, which knows tensors and nothing that could run.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.policies import weights
from stages.policies.statistics import REMEDY, PolicyFileError

LATEST = "latest_checkpoint"


def find(directory: Path, component: str) -> Path | None:
    """The side file of a component, `<component>--<step>_checkpoint.pt` or its safetensors twin.

    Args:
        directory: of the policy.
        component: e.g. `action_head`.

    Returns:
        The file; None if there is none.

    Raises:
        PolicyFileError: there are several.
    """
    found = sorted(
        file for file in directory.glob(f"{component}--*checkpoint*") if file.suffix in (".pt", ".safetensors")
    )
    if len(found) > 1:
        raise PolicyFileError(
            f"{directory} has {len(found)} files of {component}: keep {found[-1].name} or another one"
        )
    return found[0] if found else None


def read(path: Path) -> dict[str, Tensor]:
    """A component's tensors, on the CPU, without the prefix that distributed training puts before their names.

    Args:
        path: from `find`.

    Returns:
        The tensors.

    Raises:
        PolicyFileError: the file is damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        tensors: Any = dict(weights.read(stored := weights.header(path), stored, "cpu"))
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise PolicyFileError(f"{path} is damaged or holds more than tensors ({reason}): {REMEDY}") from None
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PolicyFileError(f"{path} holds more than tensors by name: {REMEDY}")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def write(directory: Path, component: str, tensors: Mapping[str, Sequence[Tensor]]) -> None:
    """Write a component where and how the originals look for it.

    Args:
        directory: of the policy.
        component: e.g. `action_head`.
        tensors: the parts of each, along the first dimension.
    """
    whole = {name: weights.whole(tensors[name]) for name in sorted(tensors)}
    torch.save(whole, directory / f"{component}--{LATEST}.pt")
