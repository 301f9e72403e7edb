"""H.264 films in MP4 files, encoded by the ffmpeg that comes with imageio-ffmpeg."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np

QUALITY = "21"  # x264's constant rate factor: lower is better and bigger; text stays sharp at this one
SPEED = "ultrafast"  # x264's preset: half the seconds of veryfast at thrice the bytes, and cores are what is scarce
WORDS = 300  # of the encoder's complaints, in characters; it repeats itself
CLOSE_SECONDS = 120.0  # for the encoder to finish after the last frame


class VideoError(RuntimeError):
    """A film could not be written; nothing is left at its path.

    Attributes:
        disk_full: there was no space for it.
    """

    disk_full = False


class VideoWriter:
    """Writes frames to a film: `with VideoWriter(path, fps) as writer: writer.write(frame)`.

    The film is whole once the block is left. Leaving it by an exception removes what was written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Prepare a film; the encoder starts at the first frame.

        Args:
            path: file to write, ending in .mp4; its folder exists.
            fps: frames a second.
        """
        self.path, self.fps, self.frames = path, fps, 0
        self._encoder: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115, a pipe nobody reads could fill up and stop the encoder

    def write(self, frame: np.ndarray) -> None:
        """Add a frame.

        Args:
            frame: uint8 [H, W, 3], RGB, H and W even and the same for the whole film.

        Raises:
            VideoError: the encoder gave up.
        """
        if self._encoder is None:
            height, width = frame.shape[:2]
            if height % 2 or width % 2:
                raise ValueError(f"frames of {height} x {width}: yuv420p needs an even height and width")
            self._shape = (height, width, 3)
            self._encoder = self._start(height, width)
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"a {frame.dtype} {list(frame.shape)} frame in a film of uint8 {list(self._shape)}")
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            self._fail("the encoder stopped")
        self.frames += 1

    def close(self) -> None:
        """Finish the film.

        Raises:
            VideoError: there was no frame, or the encoder failed.
        """
        if self._encoder is None:
            self._complaints.close()
            raise VideoError(f"{self.path}: a film needs at least one frame")
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.close()
            status = self._encoder.wait(CLOSE_SECONDS)
        except BrokenPipeError:
            self._fail("the encoder stopped")
        except subprocess.TimeoutExpired:
            self._fail(f"the encoder did not finish within {CLOSE_SECONDS:g} s")
        if status:
            self._fail(f"the encoder ended with status {status}")
        self._complaints.close()

    def kill(self) -> None:
        """End the encoder, so that whoever waits for it, in any thread, is told that it stopped."""
        if self._encoder is not None:
            self._encoder.kill()

    def abandon(self) -> None:
        """Stop without a film."""
        if self._encoder is not None:
            self.kill()
            self._encoder.wait()
            assert self._encoder.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._encoder.stdin.close()
            self.path.unlink(missing_ok=True)
        self._complaints.close()

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

    def _start(self, height: int, width: int) -> subprocess.Popen[bytes]:
        frames = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self.fps:g}", "-i", "-"]
        film = ["-an", "-c:v", "libx264", "-preset", SPEED, "-crf", QUALITY, "-pix_fmt", "yuv420p"]
        # One thread: a node's cores belong to the simulators. The index goes first, so that browsers start at once.
        place = ["-threads", "1", "-movflags", "+faststart", "-f", "mp4", str(self.path)]
        quiet = ["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-filter_threads", "1"]
        try:
            return subprocess.Popen(
                [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *frames, *film, *place],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
            )
        except (OSError, RuntimeError) as error:
            raise VideoError(f"{self.path}: ffmpeg cannot be run ({error}); reinstall imageio-ffmpeg") from error

    def _fail(self, reason: str) -> None:
        assert self._encoder is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._encoder.wait(1.0)  # it is about to say why
        self._complaints.seek(0)
        words = " ".join(self._complaints.read().decode(errors="replace").split())
        self.abandon()
        error = VideoError(f"{self.path}: {reason}: {words[:WORDS] or 'it did not say why'}")
        error.disk_full = os.strerror(errno.ENOSPC) in words
        raise error
