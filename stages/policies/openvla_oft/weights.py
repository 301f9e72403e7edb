"""Weight files: safetensors in one file or in shards with an index, and the originals' side files.

Every file is checked before a tensor is read: a shard's length against what its header promises. The side files are
torch archives, as the originals write and read them; they are read with `weights_only`, which knows tensors and
nothing that could run.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.policies.statistics import PolicyFileError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
REMEDY = "take the policy from its artifact again"
SHARD_BYTES = 5 * 10**9
LATEST = "latest_checkpoint"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        file: which.
        name: what it is called there.
        shape: its shape.
    """

    file: Path
    name: str
    shape: tuple[int, ...]


def find(directory: Path) -> dict[str, Stored]:
    """Every tensor of a directory's safetensors files, all of them checked.

    Args:
        directory: holds `model.safetensors`, or shards and their index.

    Returns:
        Where each tensor is.

    Raises:
        PolicyFileError: a file is missing, truncated or damaged, or the index and the shards do not agree.
    """
    index = directory / INDEX
    if not index.is_file():
        return header(directory / WEIGHTS)
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({Path(shard).name for shard in places.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyFileError(f"{index} is damaged ({error!r}): {REMEDY}") from None
    found: dict[str, Stored] = {}
    for shard in shards:
        found |= header(directory / shard)
    for name, stored in found.items():
        if places.get(name) != stored.file.name:
            raise PolicyFileError(f"{index} does not name {stored.file.name} for {name}, which is there: {REMEDY}")
    for name in places:
        if name not in found:
            raise PolicyFileError(f"{name} is missing from {directory / places[name]}, where {INDEX} has it: {REMEDY}")
    return found


def header(path: Path) -> dict[str, Stored]:
    """The tensors that a safetensors file announces, if the file is as long as it says.

    Args:
        path: the file.

    Returns:
        Each tensor's place and shape.

    Raises:
        PolicyFileError: the file is missing, truncated or damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            record = json.loads(file.read(min(length, size)))
        record.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in record.values()]
        expected = 8 + length + max(ends, default=0)
        tensors = {name: Stored(path, name, tuple(entry["shape"])) for name, entry in record.items()}
    except FileNotFoundError:
        raise PolicyFileError(f"{path} is missing: {REMEDY}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise PolicyFileError(f"{path} is damaged ({error}): {REMEDY}") from None
    if size != expected:
        raise PolicyFileError(f"{path} is damaged (it has {size} bytes, its header promises {expected}): {REMEDY}")
    return tensors


def read(
    stored: Mapping[str, Stored], names: Iterable[str], device: torch.device | str
) -> Iterator[tuple[str, Tensor]]:
    """Read tensors, each file opened once.

    Args:
        stored: as `find` found them.
        names: which of them.
        device: where they go.

    Yields:
        Name and tensor, in the files' types.

    Raises:
        PolicyFileError: a file is damaged.
    """
    files: dict[Path, list[str]] = {}
    for name in names:
        files.setdefault(stored[name].file, []).append(name)
    for path, inside in files.items():
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in inside:
                    yield name, file.get_tensor(stored[name].name)
        except SafetensorError as error:
            raise PolicyFileError(f"{path} is damaged ({error}): {REMEDY}") from None


def write(directory: Path, tensors: Mapping[str, Sequence[Tensor]], limit: int = SHARD_BYTES) -> None:
    """Write safetensors: one file, or shards with an index where they are more than `limit` bytes.

    Args:
        directory: an existing directory.
        tensors: the parts of each, along the first dimension.
        limit: bytes of a shard.
    """
    shards: list[list[str]] = [[]]
    size = total = 0
    for name in sorted(tensors):
        bytes_ = sum(part.nbytes for part in tensors[name])
        if shards[-1] and size + bytes_ > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += bytes_
        total += bytes_
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        whole = {name: _whole(tensors[name]) for name in names}
        save_file(whole, directory / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        record = {"metadata": {"total_size": total}, "weight_map": places}
        (directory / INDEX).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def side_file(directory: Path, component: str) -> Path | None:
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


def read_side_file(path: Path) -> dict[str, Tensor]:
    """A component's tensors, on the CPU, without the prefix that distributed training puts before their names.

    Args:
        path: from `side_file`.

    Returns:
        The tensors.

    Raises:
        PolicyFileError: the file is damaged, or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        tensors: Any = dict(read(stored := header(path), stored, "cpu"))
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise PolicyFileError(f"{path} is damaged or holds more than tensors ({reason}): {REMEDY}") from None
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PolicyFileError(f"{path} holds more than tensors by name: {REMEDY}")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def write_side_file(directory: Path, component: str, tensors: Mapping[str, Sequence[Tensor]]) -> None:
    """Write a component where and how the originals look for it.

    Args:
        directory: of the policy.
        component: e.g. `action_head`.
        tensors: the parts of each, along the first dimension.
    """
    whole = {name: _whole(tensors[name]) for name in sorted(tensors)}
    torch.save(whole, directory / f"{component}--{LATEST}.pt")


def _whole(parts: Sequence[Tensor]) -> Tensor:
    pieces = [part.detach().cpu() for part in parts]
    return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces)
