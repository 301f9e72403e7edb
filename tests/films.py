"""Films, made and read back by tests."""

import dataclasses
from pathlib import Path

import av
import numpy as np


@dataclasses.dataclass(frozen=True)
class Seen:
    """A film as a player finds it.

    Attributes:
        codec: of its pictures.
        pixels: their format.
        size: width and height.
        fps: frames a second.
        frames: uint8 [H, W, 3], RGB.
    """

    codec: str
    pixels: str
    size: tuple[int, int]
    fps: float
    frames: list[np.ndarray]


def read_film(path: Path) -> Seen:
    """Decode a film."""
    with av.open(str(path)) as film:
        [stream] = film.streams.video
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
        about = stream.codec_context
        return Seen(about.name, str(about.pix_fmt), (about.width, about.height), float(stream.average_rate), frames)
