"""What is encoded can be read back, by browsers too, and an encoder that fails is told."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from stages.video import VideoError, VideoWriter


def scene(shift: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:448, 0:672]
    return np.stack([rows // 2, columns // 3, (rows + columns + shift) // 5], axis=2).astype(np.uint8)


def test_a_film_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    frames = [scene(40 * number) for number in range(20)]
    with VideoWriter(path, fps=10) as writer:
        for frame in frames:
            writer.write(frame)
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    read = [np.frombuffer(data, np.uint8).reshape(448, 672, 3) for data in reader]
    assert about["size"] == (672, 448)
    assert about["codec"] == "h264"
    assert about["pix_fmt"].startswith("yuv420p")
    assert about["fps"] == 10
    assert len(read) == 20
    for one, other in zip(read, frames, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 4
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # it starts to play before it is all there


def test_a_film_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    def write() -> None:
        with VideoWriter(tmp_path / "nowhere" / "film.mp4", fps=10) as writer:
            for _ in range(50):
                writer.write(scene())

    with pytest.raises(VideoError, match=r"film\.mp4: .*No such file or directory") as caught:
        write()
    assert "\n" not in str(caught.value)


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


def test_a_missing_encoder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "ffmpeg"))
    with pytest.raises(VideoError, match="reinstall imageio-ffmpeg"), VideoWriter(tmp_path / "a.mp4", 10) as writer:
        writer.write(scene())


def test_an_encoder_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nhead -c 1000 >/dev/null\necho disk full >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))

    def write() -> None:
        with VideoWriter(tmp_path / "a.mp4", 10) as writer:
            for _ in range(100):
                writer.write(scene())

    with pytest.raises(VideoError, match="a.mp4: .*disk full"):
        write()
