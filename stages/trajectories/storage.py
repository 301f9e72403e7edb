"""How arrays lie on disk: zarr v3, zstd, few files; and what is said when they are not as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.errors import NodeNotFoundError

from pipeline.errors import UserError
from stages.trajectories.schema import ArrayLayout

REMEDY = "make the shard again with `baton rerun`"
# What zarr, its codecs and numpy raise for files that are absent, cut short or altered.
DAMAGE = (OSError, ValueError, TypeError, KeyError, RuntimeError)


def create_stream(root: zarr.Group, layout: ArrayLayout) -> zarr.Array[Any]:
    """Create an empty array of [0, *layout.shape]: `layout.rows_per_file` rows a file, in chunks."""
    return root.create_array(
        layout.path,
        shape=(0, *layout.shape),
        dtype=layout.dtype,
        chunks=(layout.chunk_rows, *layout.shape),
        shards=(layout.rows_per_file, *layout.shape),
        compressors=_compressor(),
        # A black image is written as well: then a file that is not there is always damage.
        config={"write_empty_chunks": True},
        # Files beside their zarr.json, where zarr would make a directory an axis.
        chunk_key_encoding={"name": "default", "separator": "."},
    )


def store_whole(root: zarr.Group, layout: ArrayLayout, content: np.ndarray) -> None:
    """Store a small array as one chunk in one file."""
    array = root.create_array(
        layout.path,
        shape=content.shape,
        dtype=layout.dtype,
        chunks=content.shape,
        compressors=_compressor(),
        config={"write_empty_chunks": True},
        # Files beside their zarr.json, where zarr would make a directory an axis.
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    array[...] = content


def _compressor() -> ZstdCodec:
    # Level 1 is the fastest that still shrinks images; the checksum lets a reader notice a flipped bit.
    return ZstdCodec(level=1, checksum=True)


def open_array(path: Path, layout: ArrayLayout) -> zarr.Array[Any]:
    """Open an array of the shard at `path`; nothing is read but its metadata.

    Raises:
        UserError: it is missing, or its metadata are damaged.
    """
    try:
        return zarr.open_array(path / layout.path, mode="r", zarr_format=3)
    except (NodeNotFoundError, FileNotFoundError):
        raise UserError(f"{path}: the array {layout.path} is missing; {REMEDY}") from None
    except DAMAGE as error:
        raise UserError(f"{path}: the array {layout.path} cannot be opened ({first_line(error)}); {REMEDY}") from None


def check_shape(path: Path, layout: ArrayLayout, array: zarr.Array[Any], count: int) -> None:
    """Refuse another type or shape, and files that are absent or empty: zarr would read those as zeros.

    Args:
        path: of the shard.
        layout: what the array should be.
        array: what it is.
        count: D or E, the length of its first axis.

    Raises:
        UserError: it differs.
    """
    expected = (count, *layout.shape)
    if array.dtype != layout.dtype or array.shape != expected:
        raise UserError(
            f"{path}: the array {layout.path} is {array.dtype} {list(array.shape)}, expected {layout.dtype} "
            f"{list(expected)}; {REMEDY}"
        )
    per_file = (array.shards or array.chunks)[0]
    tail = ".0" * len(layout.shape)
    for number in range(-(-count // per_file)):
        name = f"{layout.path}/c.{number}{tail}"
        file = path / name
        if not file.is_file() or file.stat().st_size == 0:
            raise UserError(f"{path}: {name} is {'empty' if file.exists() else 'missing'}; {REMEDY}")


def fetch(array: zarr.Array[Any], rows: slice, path: Path, name: str) -> np.ndarray:
    """Read rows of an array.

    Args:
        array: of the shard at `path`.
        rows: along its first axis.
        path: of the shard.
        name: of the array, for the error.

    Raises:
        UserError: its files are damaged.
    """
    try:
        return np.asarray(array[rows])
    except DAMAGE as error:
        raise UserError(f"{path}: the array {name} cannot be read ({first_line(error)}); {REMEDY}") from None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
