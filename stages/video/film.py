"""The film of one episode: its steps and rewards are counted, told over the frames, and encoded."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from stages.video.bands import Bands
from stages.video.layout import HEIGHT, fit
from stages.video.writer import VideoWriter


class Film:
    """Takes an episode's frames one after the other: `with Film(path, fps, bands) as film: film.add(...)`.

    Args:
        path: file to write; its folder exists.
        fps: frames a second.
        bands: what is written over the frames; None: nothing.
        height: S of the film, a multiple of 4.
    """

    def __init__(self, path: Path, fps: float, bands: Bands | None, height: int = HEIGHT) -> None:
        self.writer = VideoWriter(path, fps)
        self.steps, self.reward = 0, 0.0
        self._bands, self._height = bands, height

    def add(self, frame: np.ndarray, reward: float, outcome: str = "", steps: int = 1) -> None:
        """Add a frame.

        Args:
            frame: uint8 [2h, 3h, 3], RGB, of any h.
            reward: what the steps since the last frame brought.
            outcome: `success` or `failure` if the episode ends here, else empty.
            steps: since the last frame.

        Raises:
            VideoError: the encoder gave up.
            ValueError: it is no frame.
        """
        self.steps += steps
        self.reward += reward
        shown = fit(frame, self._height)
        if self._bands is not None:
            shown = self._bands.over(shown, self.steps, self.reward, outcome)
        self.writer.write(shown)

    def __enter__(self) -> Film:
        """Use it in a `with` block, which finishes the film."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the film, or remove it after an exception."""
        self.writer.__exit__(kind, error, trace)
