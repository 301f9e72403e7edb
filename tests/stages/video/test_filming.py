"""Filming goes on beside a unit: it holds the unit up only when it must, and costs it nothing but films."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import Unit
from stages.lineup import Planned
from stages.simulators.interface import ChunkResult
from stages.video import Bands, VideoError, VideoWriter
from stages.video.filming import WAITING, Filming, Studio
from tests.films import read_film

UNIT = Unit(3, "rollout", 1)
NAME = "epoch-0003-rollout-pick-up-episode-{:04d}-{}.mp4"
TASKS = {"pick up": "pick it up"}
BRIGHTER = 10


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "videos", tmp_path / "copies" / "run", UNIT, 20, 1, TASKS, info=True)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Frames are not written before this is set."""
    go, write = threading.Event(), VideoWriter.write

    def later(writer: VideoWriter, frame: np.ndarray) -> None:
        assert go.wait(60)
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", later)
    yield go
    go.set()


def planned(index: int, film: bool = True) -> Planned:
    return Planned(index, "pick up", seed=index, group=index, noise=None, film=film)


def chunk(steps: int, ends: str = "", frames: int | None = None, first: int = 0) -> ChunkResult:
    """What a world shows in a chunk; each frame is brighter than the one before."""
    numbers = range(first, first + (steps if frames is None else frames))
    pictures = [np.full((448, 672, 3), BRIGHTER * number, np.uint8) for number in numbers]
    return ChunkResult(
        rewards=np.full((1, 8), 0.5, np.float32),
        executed=np.arange(8)[None] < steps,
        success=np.array([ends == "success"]),
        terminated=np.array([ends == "success"]),
        truncated=np.array([ends == "failure"]),
        frames=[pictures],
    )


def length(film: Path) -> int:
    seen = read_film(film)
    assert (seen.codec, seen.size, seen.fps) == ("h264", (672, 448), 20)
    return len(seen.frames)


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


@pytest.mark.parametrize(("every", "steps", "shown"), [(2, 11, [1, 3, 5, 7, 9, 11]), (2, 4, [1, 3, 4]), (3, 1, [1])])
def test_of_fewer_frames_a_second_the_first_and_the_last_step_are_always_there(
    studio: Studio, every: int, steps: int, shown: list[int]
) -> None:
    films = Filming(dataclasses.replace(studio, fps=20 / every, every=every, info=False))
    for done in range(0, steps, 8):
        here = min(8, steps - done)
        films.shoot(planned(0), chunk(here, "failure" if done + here == steps else "", first=done + 1), 0)
    films.finish()
    film = read_film(studio.directory / NAME.format(0, "failure"))
    assert film.fps == pytest.approx(20 / every, rel=1e-3)
    assert [round(frame.mean() / BRIGHTER) for frame in film.frames] == shown


def test_what_frames_tell_is_of_all_steps_whether_shown_or_not(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, float, str]] = []

    def over(bands: Bands, frame: np.ndarray, *what: Any) -> np.ndarray:
        told.append(what)  # type: ignore[arg-type]
        return frame

    monkeypatch.setattr(Bands, "over", over)
    films = Filming(dataclasses.replace(studio, fps=20 / 3, every=3))
    films.shoot(planned(0), chunk(8), 0)
    films.shoot(planned(0), chunk(1, "success"), 0)
    films.finish()
    assert told == [(1, 0.5, ""), (4, 2.0, ""), (7, 3.5, ""), (9, 4.5, "success")]


def test_a_slow_encoder_holds_nobody_up_until_too_many_frames_wait(studio: Studio, held: threading.Event) -> None:
    films = Filming(studio)
    for _ in range(WAITING // 8):
        films.shoot(planned(0), chunk(8), 0)  # returns, though nothing is encoded

    def more() -> None:
        films.shoot(planned(0), chunk(8), 0)

    waits = threading.Thread(target=more)
    waits.start()
    waits.join(0.5)
    assert waits.is_alive(), "memory is bounded"
    held.set()
    waits.join(60)
    assert not waits.is_alive()
    films.shoot(planned(0), chunk(1, "success"), 0)
    films.finish()
    assert length(studio.directory / NAME.format(0, "success")) == WAITING + 8 + 1


def test_an_encoder_that_fails_is_told_once_for_each_film(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(writer: VideoWriter, frame: np.ndarray) -> None:
        raise VideoError("no such codec")

    monkeypatch.setattr(VideoWriter, "write", fail)
    films = Filming(studio)
    for index in (4, 5):
        for _ in range(3):
            films.shoot(planned(index), chunk(8), 0)
        films.shoot(planned(index), chunk(8, "success"), 0)
    films.finish()
    assert films.failed == 2
    assert not list(studio.directory.iterdir())
    assert capsys.readouterr().err.splitlines() == [
        f"baton: there is no film of episode {i} (pick up): no such codec" for i in (4, 5)
    ]


def test_a_log_that_cannot_be_written_holds_nobody_up(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        films = Filming(studio)
        films.shoot(planned(0), chunk(1, "success", frames=0), 0)
        films.shoot(planned(1), chunk(1, "success"), 0)
        films.finish()
        with contextlib.suppress(OSError):
            full.close()
    assert films.failed == 1
    assert [path.name for path in studio.directory.iterdir()] == [NAME.format(1, "success")]


def test_a_full_disk_is_raised_because_the_unit_needs_it_too(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.directory.mkdir()
    studio.directory.joinpath(".epoch-0003-rollout-pick-up-episode-0000.mp4").symlink_to("/dev/full")
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


def test_a_folder_that_vanishes_costs_its_films_and_holds_nobody_up(
    studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    films = Filming(studio)
    films.shoot(planned(0), chunk(8), 0)
    while not any(path.stat().st_size for path in studio.directory.glob(".*")):
        time.sleep(0.01)
    shutil.rmtree(studio.directory)
    studio.directory.touch()
    for _ in range(WAITING // 4):
        films.shoot(planned(0), chunk(8), 0)
    films.shoot(planned(0), chunk(8, "success"), 0)
    films.shoot(planned(1), chunk(8, "success"), 0)
    films.finish()
    assert films.failed == 2
    first, second = capsys.readouterr().err.splitlines()
    film = studio.directory / ".epoch-0003-rollout-pick-up-episode-0000.mp4"
    assert first == f"baton: there is no film of episode 0 (pick up): {film}: Not a directory"
    assert second == f"baton: there is no film of episode 1 (pick up): [Errno 17] File exists: '{studio.directory}'"


def test_what_is_dropped_leaves_nothing_and_does_not_wait(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written, write = [], VideoWriter.write

    def slowly(writer: VideoWriter, frame: np.ndarray) -> None:
        time.sleep(0.2)
        write(writer, frame)
        written.append(frame)

    monkeypatch.setattr(VideoWriter, "write", slowly)
    films = Filming(studio)
    for _ in range(WAITING // 8):
        films.shoot(planned(0), chunk(8), 0)
    films.drop()
    assert len(written) < 5
    assert not list(studio.directory.glob("*"))
    assert not capsys.readouterr().err
