"""What is encoded can be read back, by browsers too, and an encoder that fails is told."""

import errno
from pathlib import Path

import numpy as np
import pytest

from stages.video import VideoError, VideoWriter
from tests.films import read_film


def scene(shift: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:448, 0:672]
    return np.stack([rows // 2, columns // 3, (rows + columns + shift) // 5], axis=2).astype(np.uint8)


def test_a_film_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    frames = [scene(40 * number) for number in range(20)]
    with VideoWriter(path, fps=10) as writer:
        for frame in frames:
            writer.write(frame)
    read = read_film(path)
    assert (read.codec, read.pixels, read.size, read.fps) == ("h264", "yuv420p", (672, 448), 10)
    for one, other in zip(read.frames, frames, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 4
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # it starts to play before it is all there


def test_a_film_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "film.mp4"
    with pytest.raises(VideoError) as caught, VideoWriter(path, fps=10) as writer:
        writer.write(scene())
    assert str(caught.value) == f"{path}: No such file or directory"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.symlink_to("/dev/full")
    with pytest.raises(VideoError) as caught, VideoWriter(path, fps=10) as writer:
        writer.write(scene())
    assert str(caught.value) == f"{path}: No space left on device"
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_an_exception_leaves_no_film(tmp_path: Path) -> None:
    def write() -> None:
        with VideoWriter(tmp_path / "film.mp4", fps=10) as writer:
            writer.write(scene())
            raise KeyError("the episode broke")

    with pytest.raises(KeyError):
        write()
    assert not list(tmp_path.iterdir())


def test_frames_must_be_alike_even_and_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="at least one frame"):
        VideoWriter(tmp_path / "film.mp4", fps=10).close()
    writer = VideoWriter(tmp_path / "film.mp4", fps=10)
    with pytest.raises(ValueError, match="even"):
        writer.write(np.zeros((7, 8, 3), np.uint8))
    writer.write(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\[8, 10, 3\] frame in a film of uint8 \[8, 8, 3\]"):
        writer.write(np.zeros((8, 10, 3), np.uint8))
    writer.abandon()
    assert not list(tmp_path.iterdir())
