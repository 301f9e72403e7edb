"""Filming goes on beside a unit: it holds the unit up only when it must, and costs it nothing but films."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pipeline.artifacts import Unit
from stages.lineup import Planned
from stages.simulators.interface import ChunkResult
from stages.video import filming
from stages.video.filming import WAITING, Filming, Studio

UNIT = Unit(3, "rollout", 1)
NAME = "epoch-0003-rollout-pick-up-episode-{:04d}-{}.mp4"
TASKS = {"pick up": "pick it up"}


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "videos", tmp_path / "copies" / "run", UNIT, 20, TASKS, info=True)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An encoder that reads nothing until this file is there, then works as usual."""
    go, fake = tmp_path / "go", tmp_path / "ffmpeg"
    fake.write_text(
        f'#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.02; done\nexec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    yield go
    go.touch()


def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Have an encoder that complains and fails."""
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\nhead -c 1000 >/dev/null\necho {words} >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))


def planned(index: int, film: bool = True) -> Planned:
    return Planned(index, "pick up", seed=index, group=index, noise=None, film=film)


def chunk(steps: int, ends: str = "", frames: int | None = None) -> ChunkResult:
    """What a world shows in a chunk."""
    pictures = [np.full((448, 672, 3), 5 * step, np.uint8) for step in range(steps if frames is None else frames)]
    return ChunkResult(
        rewards=np.full((1, 8), 0.5, np.float32),
        executed=np.arange(8)[None] < steps,
        success=np.array([ends == "success"]),
        terminated=np.array([ends == "success"]),
        truncated=np.array([ends == "failure"]),
        frames=[pictures],
    )


def length(film: Path) -> int:
    frames = imageio_ffmpeg.read_frames(str(film))
    about = next(frames)
    assert (about["codec"], about["size"], about["fps"]) == ("h264", (672, 448), 20)
    return sum(1 for _ in frames)


def test_films_are_named_by_how_their_episodes_end_and_hold_every_step(studio: Studio) -> None:
    films = Filming(studio)
    films.shoot(planned(7), chunk(8), 0)
    films.shoot(planned(12), chunk(8), 0)
    films.shoot(planned(2, film=False), chunk(8), 0)
    films.shoot(planned(7), chunk(3, "success"), 0)
    films.shoot(planned(12), chunk(8), 0)
    films.shoot(planned(12), chunk(1, "failure"), 0)
    films.finish()
    assert films.failed == 0
    names = {NAME.format(7, "success"): 11, NAME.format(12, "failure"): 17}
    assert {path.name: length(path) for path in studio.directory.iterdir()} == names
    assert studio.copies is not None
    assert {path.name: path.read_bytes() for path in studio.copies.iterdir()} == {
        path.name: path.read_bytes() for path in studio.directory.iterdir()
    }


def test_the_same_frames_give_the_same_bytes(studio: Studio) -> None:
    made = []
    for _ in range(2):
        films = Filming(studio)
        films.shoot(planned(0), chunk(8, "success"), 0)
        films.finish()
        made.append((studio.directory / NAME.format(0, "success")).read_bytes())
    assert made[0] == made[1]


def test_a_copy_replaces_that_of_an_earlier_attempt_with_another_outcome(studio: Studio) -> None:
    assert studio.copies is not None
    studio.copies.mkdir(parents=True)
    for name in (NAME.format(1, "failure"), NAME.format(10, "failure"), "mine.mp4"):
        (studio.copies / name).touch()
    films = Filming(studio)
    films.shoot(planned(1), chunk(2, "success"), 0)
    films.finish()
    assert sorted(path.name for path in studio.copies.iterdir()) == [
        NAME.format(1, "success"),
        NAME.format(10, "failure"),
        "mine.mp4",
    ]


def test_a_copy_that_cannot_be_made_costs_nothing_but_itself(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studio.copies is not None
    studio.copies.parent.touch()
    films = Filming(studio)
    films.shoot(planned(1), chunk(2, "success"), 0)
    films.finish()
    name = NAME.format(1, "success")
    assert length(studio.directory / name) == 2
    assert films.failed == 0
    assert capsys.readouterr().err == (
        f"baton: video_cfg.video_base_dir: {name} was not copied to {studio.copies}: Not a directory\n"
    )


def test_a_slow_encoder_holds_nobody_up_until_too_many_frames_wait(studio: Studio, held: Path) -> None:
    films = Filming(studio)
    for _ in range(WAITING // 8):
        films.shoot(planned(0), chunk(8), 0)  # returns, though nothing is encoded

    def more() -> None:
        films.shoot(planned(0), chunk(8), 0)

    waits = threading.Thread(target=more)
    waits.start()
    waits.join(0.5)
    assert waits.is_alive(), "memory is bounded"
    held.touch()
    waits.join(60)
    assert not waits.is_alive()
    films.shoot(planned(0), chunk(1, "success"), 0)
    films.finish()
    assert length(studio.directory / NAME.format(0, "success")) == WAITING + 8 + 1


def test_an_encoder_that_hangs_costs_its_film_only(
    studio: Studio, held: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filming, "PATIENCE_S", 0.3)
    films = Filming(studio)
    for _ in range(WAITING // 8 + 2):
        films.shoot(planned(0), chunk(8), 0)
    films.shoot(planned(0), chunk(1, "success"), 0)
    films.finish()
    assert films.failed == 1
    assert not list(studio.directory.iterdir())
    told = capsys.readouterr().err
    assert told.startswith("baton: there is no film of episode 0 (pick up): ")
    assert "the encoder stopped" in told
    assert len(told.splitlines()) == 1


def test_an_encoder_that_fails_is_told_once_for_each_film(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(tmp_path, monkeypatch, "no such codec")
    films = Filming(studio)
    for index in (4, 5):
        for _ in range(3):
            films.shoot(planned(index), chunk(8), 0)
        films.shoot(planned(index), chunk(8, "success"), 0)
    films.finish()
    assert films.failed == 2
    assert not list(studio.directory.iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"there is no film of episode {i} (pick up)" for i in (4, 5)]
    assert all(line.endswith("the encoder stopped: no such codec") for line in lines)


def test_a_missing_encoder_is_told_and_no_more(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "ffmpeg"))
    films = Filming(studio)
    films.shoot(planned(0), chunk(8, "success"), 0)
    films.finish()
    assert films.failed == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("reinstall imageio-ffmpeg")


def test_a_full_disk_is_raised_because_the_unit_needs_it_too(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(tmp_path, monkeypatch, "av_interleaved_write_frame: No space left on device")
    films = Filming(studio)
    films.shoot(planned(0), chunk(8, "success"), 0)
    with pytest.raises(OSError, match="No space left on device") as caught:
        films.finish()
    assert caught.value.filename == str(studio.directory)
    assert not capsys.readouterr().err, "the unit tells it when it ends"


def test_a_simulator_that_returns_too_few_frames_gets_no_film(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    films = Filming(studio)
    films.shoot(planned(0), chunk(8), 0)
    films.shoot(planned(0), chunk(8, "success", frames=5), 0)
    films.finish()
    assert not list(studio.directory.iterdir())
    assert capsys.readouterr().err == (
        "baton: there is no film of episode 0 (pick up): the simulator returned no frame of step 14\n"
    )


def test_frames_of_another_shape_cost_their_film_only(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = chunk(1)
    wrong.frames[0][0] = np.zeros((224, 224, 3), np.uint8)
    films = Filming(studio)
    films.shoot(planned(0), wrong, 0)
    films.shoot(planned(1), chunk(1, "success"), 0)
    films.finish()
    assert [path.name for path in studio.directory.iterdir()] == [NAME.format(1, "success")]
    assert capsys.readouterr().err == (
        "baton: there is no film of episode 0 (pick up): a frame is uint8 [448, 672, 3], this is uint8 [224, 224, 3]\n"
    )


def test_what_is_dropped_leaves_nothing_and_does_not_wait(
    studio: Studio, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = Filming(studio)
    for _ in range(WAITING // 8):
        films.shoot(planned(0), chunk(8), 0)
    begun = time.monotonic()
    films.drop()
    assert time.monotonic() - begun < filming.PATIENCE_S / 2
    assert not list(studio.directory.iterdir())
    assert not capsys.readouterr().err
