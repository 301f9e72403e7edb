"""Numbers of LeRobot's parquet files, read by pyarrow and refused where they are not what they should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from stages.imports.films import AGAIN, first_line

EPISODE = "episode_index"


def read(path: Path, columns: Sequence[str], episode: int | None = None) -> Any:
    """Read columns of a file.

    Args:
        path: the file.
        columns: names; those that the file does not have are left out.
        episode: only its rows; None: all rows.

    Returns:
        A table of pyarrow.

    Raises:
        UserError: it is missing or damaged.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
        if episode is None:
            return parquet.read_table(path, columns=there, partitioning=None)
        return parquet.read_table(path, columns=there, partitioning=None, filters=[(EPISODE, "=", episode)])
    except FileNotFoundError:
        raise UserError(f"{path} is missing; download it, or lower demonstrate.episodes") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); {AGAIN}") from None


def matrix(path: Path, table: Any, name: str, width: int) -> np.ndarray:
    """A column whose rows are lists of numbers.

    Args:
        path: of the file, for messages.
        table: of pyarrow, T rows.
        name: of the column.
        width: W, how many numbers a row has to have.

    Returns:
        float32 [T, W].

    Raises:
        UserError: there is no such column, or a row has another length or a number that is not finite.
    """
    if name not in table.column_names:
        raise UserError(f"{path}: there is no column {name}; {AGAIN}")
    rows = table[name].to_numpy()
    if any(row is None or len(row) != width for row in rows):
        given = next(row for row in rows if row is None or len(row) != width)
        raise UserError(
            f"{path}: a row of {name} has {0 if given is None else len(given)} numbers, expected {width}; {AGAIN}"
        )
    array = np.stack([np.asarray(row, np.float32) for row in rows]) if len(rows) else np.zeros((0, width), np.float32)
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise UserError(f"{path}: {name} is not finite in row {row}; {AGAIN}")
    return array


def check_length(path: Path, rows: int, frames: int, said_by: str) -> None:
    """Refuse a file that has another number of rows for an episode than is said elsewhere, or none."""
    if rows != frames or not frames:
        raise UserError(f"{path}: it has {rows} rows, {said_by} says {frames}; {AGAIN}")


def lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file, each with its place.

    Raises:
        UserError: the file is missing or damaged.
    """
    import json

    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield f"{path}:{number}", json.loads(text)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({what}); {AGAIN}") from None


def info(path: Path) -> tuple[Path, dict[str, Any]]:
    """What `meta/info.json` of a LeRobot data set says.

    Args:
        path: the directory that holds meta, data and videos.

    Returns:
        The file and its content.

    Raises:
        UserError: there is none, or it is damaged.
    """
    import json

    source = path / "meta" / "info.json"
    try:
        content = json.loads(source.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        holds = "name the directory that holds meta, data and videos"
        raise UserError(f"{path} is not a LeRobot data set: it has no meta/info.json; {holds}") from None
    except ValueError as error:
        raise UserError(f"{source} cannot be read ({error}); {AGAIN}") from None
    return source, content if isinstance(content, dict) else {}
