"""One episode of a data set: its numbers by pyarrow, its pictures by PyAV.

Shapes: T frames, H x W pixels of the result.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from stages.imports.layout import ACTION, ACTION_NUMBERS, CAMERAS, STATE, STATE_NUMBERS, DataSet, Episode

AGAIN = "download it again"


def numbers(data: DataSet, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Read an episode's actions and states.

    Args:
        data: the data set.
        episode: one of its episodes.

    Returns:
        action float32 [T, 23] and state float32 [T, 256].

    Raises:
        UserError: the file is missing, damaged, or does not hold what the metadata say.
    """
    import pyarrow
    from pyarrow import parquet

    path = data.table(episode)
    try:
        with parquet.ParquetFile(path) as file:
            wanted = [name for name in (ACTION, STATE) if name in file.schema_arrow.names]
            table = file.read(columns=wanted)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; download it, or lower demonstrate.episodes") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}); {AGAIN}") from None
    arrays = []
    for name, width in ((ACTION, ACTION_NUMBERS), (STATE, STATE_NUMBERS)):
        if name not in table.column_names:
            raise UserError(f"{path}: there is no column {name}; {AGAIN}")
        rows = table[name].to_numpy()
        if any(row is None or len(row) != width for row in rows):
            given = next(row for row in rows if row is None or len(row) != width)
            width_given = 0 if given is None else len(given)
            raise UserError(f"{path}: a row of {name} has {width_given} numbers, expected {width}; {AGAIN}")
        arrays.append(np.stack([np.asarray(row, np.float32) for row in rows]) if len(rows) else np.zeros((0, width)))
    if len(arrays[0]) != episode.frames or not episode.frames:
        raise UserError(f"{path}: it has {len(arrays[0])} rows, meta/episodes.jsonl says {episode.frames}; {AGAIN}")
    for name, array in zip((ACTION, STATE), arrays, strict=True):
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise UserError(f"{path}: {name} is not finite in row {row}; {AGAIN}")
    return arrays[0], arrays[1]


def pictures(data: DataSet, episode: Episode, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode the frames of some rows; the cameras are decoded side by side.

    Args:
        data: the data set.
        episode: one of its episodes.
        rows: int [n], ascending.
        size: H and W.

    Returns:
        head uint8 [n, 3, H, W] and wrist uint8 [n, 2, 3, H, W], left and right.

    Raises:
        UserError: a film is missing, damaged, or has another number of frames.
    """
    head = np.empty((len(rows), 3, size, size), np.uint8)
    wrist = np.empty((len(rows), 2, 3, size, size), np.uint8)
    targets = dict(zip(CAMERAS, (head, wrist[:, 0], wrist[:, 1]), strict=True))
    with ThreadPoolExecutor(len(CAMERAS)) as pool:
        films = [
            pool.submit(_decode, data.video(episode, camera), episode.frames, rows, out)
            for camera, out in targets.items()
        ]
        for film in films:
            film.result()
    return head, wrist


def _decode(path: Path, frames: int, rows: np.ndarray, out: np.ndarray) -> None:
    """Write frames `rows` of a film of so many `frames` into `out` [n, 3, H, W]."""
    import av

    height, width = out.shape[-2:]
    taken = count = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.width != stream.height:
                raise UserError(f"{path}: its pictures are {stream.width} x {stream.height}, not square; {AGAIN}")
            for frame in container.decode(stream):
                if taken < len(rows) and count == rows[taken]:
                    # AREA averages what a pixel of the result covers, as a camera of that size would.
                    small = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
                    out[taken] = small.transpose(2, 0, 1)
                    taken += 1
                count += 1
    except FileNotFoundError:
        raise UserError(f"{path} is missing; download it, or lower demonstrate.episodes") from None
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UserError(f"{path} cannot be decoded ({_first_line(error)}); {AGAIN}") from None
    if count != frames:
        raise UserError(f"{path}: it has {count} frames, meta/episodes.jsonl says {frames}; {AGAIN}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
