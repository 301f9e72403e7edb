"""H.264 films in MP4 files, encoded by PyAV's x264 within this process."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

QUALITY = "21"  # x264's constant rate factor: lower is better and bigger; text stays sharp at this one
SPEED = "ultrafast"  # x264's preset: half the seconds of veryfast at thrice the bytes, and cores are what is scarce


class VideoError(RuntimeError):
    """A film could not be written; nothing is left at its path.

    Attributes:
        errno: what the system said, if it did.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class VideoWriter:
    """Writes frames to a film: `with VideoWriter(path, fps) as writer: writer.write(frame)`.

    The film is whole once the block is left. Leaving it by an exception removes what was written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Prepare a film; the file is made at the first frame.

        Args:
            path: file to write, ending in .mp4; its folder exists.
            fps: frames a second.
        """
        self.path, self.fps, self.frames = path, fps, 0
        self._film: av.container.OutputContainer | None = None
        self._stream: av.VideoStream
        self._shape: tuple[int, ...] = ()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame.

        Args:
            frame: uint8 [H, W, 3], RGB, H and W even and the same for the whole film.

        Raises:
            VideoError: it cannot be written.
        """
        if not self._shape:
            height, width = frame.shape[:2]
            if height % 2 or width % 2:
                raise ValueError(f"frames of {height} x {width}: yuv420p needs an even height and width")
            self._shape = (height, width, 3)
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"a {frame.dtype} {list(frame.shape)} frame in a film of uint8 {list(self._shape)}")
        self._encode(av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), "rgb24"))
        self.frames += 1

    def close(self) -> None:
        """Finish the film.

        Raises:
            VideoError: there was no frame, or it cannot be written.
        """
        if self._film is None:
            raise VideoError(f"{self.path}: a film needs at least one frame")
        self._encode(None)

    def abandon(self) -> None:
        """Stop without a film; a disk that fails now too is not told."""
        if self._film is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                self._film.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def __enter__(self) -> VideoWriter:
        """Use the writer in a `with` block, which finishes the film."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the film, or remove it after an exception."""
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Have a frame encoded, and write what is ready; None: no more follow."""
        try:
            if self._film is None:
                self._film, self._stream = self._open()
            self._film.mux(self._stream.encode(frame))
            if frame is None:
                self._film.close()
        except av.FFmpegError as error:
            self.abandon()
            raise VideoError(f"{self.path}: {error.strerror}", error.errno) from error

    def _open(self) -> tuple[av.container.OutputContainer, av.VideoStream]:
        # The index goes first, so that browsers start at once.
        film = av.open(str(self.path), "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(self.fps).limit_denominator(1000)
        stream = film.add_stream("libx264", rate, options={"preset": SPEED, "crf": QUALITY})
        stream.height, stream.width = self._shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # a node's cores belong to the simulators
        return film, stream
