"""One episode of a data set: its numbers by pyarrow, its pictures by PyAV.

Shapes: T frames, H x W pixels of the result.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stages.imports import films, tables
from stages.imports.behavior.layout import ACTION, ACTION_NUMBERS, CAMERAS, STATE, STATE_NUMBERS, DataSet
from stages.imports.source import Episode

SAID_BY = "meta/episodes.jsonl"


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
    path = data.table(episode)
    table = tables.read(path, (ACTION, STATE))
    actions = tables.matrix(path, table, ACTION, ACTION_NUMBERS)
    states = tables.matrix(path, table, STATE, STATE_NUMBERS)
    tables.check_length(path, len(actions), episode.frames, SAID_BY)
    return actions, states


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
        decoding = [
            pool.submit(films.whole, data.video(episode, camera), episode.frames, SAID_BY, rows, out)
            for camera, out in targets.items()
        ]
        for film in decoding:
            film.result()
    return head, wrist
