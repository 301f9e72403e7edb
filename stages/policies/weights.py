"""Weight files: safetensors in one file or in shards with an index.

Every file is checked before a tensor is read: a shard's length against what its header promises.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.policies.statistics import REMEDY, PolicyFileError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9


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
        save_file({name: whole(tensors[name]) for name in names}, directory / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        record = {"metadata": {"total_size": total}, "weight_map": places}
        (directory / INDEX).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], place: str) -> None:
    """Refuse tensors that are missing, unknown or of another shape, all in one line.

    Args:
        found: name -> shape.
        expected: likewise.
        place: where they are from, for messages.

    Raises:
        PolicyFileError: they differ.
    """
    missing, surplus = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    faults = [f"{name} is missing" for name in missing] + [f"{name} is unknown" for name in surplus]
    for name in sorted(expected.keys() & found.keys()):
        if found[name] != expected[name]:
            faults.append(f"{name} has shape {found[name]}, expected {expected[name]}")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise PolicyFileError(f"{place} does not fit its config: {shown}: {REMEDY}")


def whole(parts: Sequence[Tensor]) -> Tensor:
    """The parts of a tensor, along its first dimension, as one on the CPU."""
    pieces = [part.detach().cpu() for part in parts]
    return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces)
