"""Frames of a film, decoded by PyAV and averaged down to the size of a shard's pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError

AGAIN = "download it again"


def whole(path: Path, frames: int, said_by: str, rows: np.ndarray, out: np.ndarray) -> None:
    """Decode some frames of a film that holds one episode.

    Args:
        path: the film.
        frames: how many it has to have.
        said_by: where that is said.
        rows: int [n], the frames, ascending.
        out: uint8 [n, 3, H, W], where they are put.

    Raises:
        UserError: the film is missing, damaged, not square or of another length.
    """
    taken = count = 0
    for frame in _frames(path):
        if taken < len(rows) and count == rows[taken]:
            out[taken] = _picture(frame, out)
            taken += 1
        count += 1
    if count != frames:
        raise UserError(f"{path}: it has {count} frames, {said_by} says {frames}; {AGAIN}")


def part(path: Path, begin: float, rate: float, rows: np.ndarray, out: np.ndarray) -> None:
    """Decode some frames of an episode that lies in a film among others.

    Args:
        path: the film.
        begin: seconds at which the episode's first frame is shown.
        rate: frames a second.
        rows: int [n], the frames, ascending, counted from the episode's first.
        out: uint8 [n, 3, H, W], where they are put.

    Raises:
        UserError: the film is missing, damaged, not square, or ends before the last of them.
    """
    wanted = rows + round(begin * rate)
    taken = 0
    for frame in _frames(path, begin):
        if taken == len(wanted):
            break
        if round(frame.time * rate) == wanted[taken]:
            out[taken] = _picture(frame, out)
            taken += 1
    if taken < len(rows):
        raise UserError(f"{path}: there is no frame at {wanted[taken] / rate:.2f} s; {AGAIN}")


def _frames(path: Path, begin: float = 0.0) -> Iterator[Any]:
    """The frames of a film, from the key frame before `begin` on."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.width != stream.height:
                raise UserError(f"{path}: its pictures are {stream.width} x {stream.height}, not square; {AGAIN}")
            if begin and stream.time_base:
                container.seek(int(begin / stream.time_base), stream=stream)
            yield from container.decode(stream)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; download it, or lower demonstrate.episodes") from None
    except (av.FFmpegError, IndexError, OSError) as error:
        raise UserError(f"{path} cannot be decoded ({first_line(error)}); {AGAIN}") from None


def _picture(frame: Any, out: np.ndarray) -> np.ndarray:
    height, width = out.shape[-2:]
    # AREA averages what a pixel of the result covers, as a camera of that size would.
    small: np.ndarray = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    return small.transpose(2, 0, 1)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
