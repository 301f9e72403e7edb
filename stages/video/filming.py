"""Films of a unit's episodes, drawn and encoded on a thread of their own while the episodes go on.

Frames go in as they come and a film is named by how its episode ends, so that neither an episode's frames nor its
outcome has to be waited for. A film that fails is told in a line and costs its unit nothing but the film; only a full
disk, which would end the unit anyway, is raised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.artifacts import Unit
from stages.lineup import Planned
from stages.simulators.interface import ChunkResult, SimulatorSpec
from stages.unit import Work
from stages.video.bands import Bands
from stages.video.film import Film
from stages.video.writer import VideoError

WAITING = 96  # frames, of 0.9 MB each, that may wait for the encoder before the unit waits for it


@dataclasses.dataclass(frozen=True)
class Studio:
    """What all films of a unit have in common.

    Attributes:
        directory: where they are written; made when the first one is.
        copies: folder that gets a copy of each; None: there are no copies.
        unit: whose they are.
        fps: frames a second.
        every: steps from one frame to the next; an episode's first and last are always shown.
        instructions: task -> what the robot is asked to do.
        info: whether instruction, task, seed, step, reward and outcome are written over the frames.
    """

    directory: Path
    copies: Path | None
    unit: Unit
    fps: float
    every: int
    instructions: Mapping[str, str]
    info: bool


@dataclasses.dataclass(frozen=True)
class _Shot:
    """A frame on its way to its film, and what the steps since the last one brought.

    `outcome` is empty unless the episode ends here.
    """

    planned: Planned
    frame: np.ndarray | None
    steps: int
    reward: float
    outcome: str


@dataclasses.dataclass
class _Tally:
    """Steps of an episode so far, and what came since the last frame that its film took."""

    steps: int = 0
    since: int = 0
    reward: float = 0.0


def stem(unit: Unit, planned: Planned) -> str:
    """Name of an episode's film up to its outcome; no two of an epoch are alike."""
    task = re.sub(r"\W+", "-", planned.task)
    return f"epoch-{unit.epoch:04d}-{unit.stage}-{task}-episode-{planned.index:04d}"


class _Film(Film):
    """A film of a unit, under another name until it is whole."""

    def __init__(self, studio: Studio, planned: Planned) -> None:
        self._studio, self._stem = studio, stem(studio.unit, planned)
        bands = Bands(studio.instructions[planned.task], planned.task, planned.seed) if studio.info else None
        studio.directory.mkdir(exist_ok=True)
        super().__init__(studio.directory / f".{self._stem}.mp4", studio.fps, bands)

    def publish(self, outcome: str) -> None:
        """Finish the film, name it by the outcome, and copy it where a copy is wanted."""
        self.writer.close()
        film = self.writer.path.with_name(f"{self._stem}-{outcome}.mp4")
        os.replace(self.writer.path, film)
        if self._studio.copies is not None:
            self._copy(film, self._studio.copies)

    def _copy(self, film: Path, folder: Path) -> None:
        """Put a copy in place of that of an earlier attempt, whatever its outcome was."""
        partial = folder / f".{film.name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(film, partial)
            for former in folder.glob(f"{self._stem}-*.mp4"):
                former.unlink()
            os.replace(partial, folder / film.name)
        except OSError as error:
            _tell(f"video_cfg.video_base_dir: {film.name} was not copied to {folder}: {error.strerror}")


@contextlib.contextmanager
def filming(work: Work, simulator: SimulatorSpec) -> Iterator[Filming]:
    """Have the episodes of a unit filmed, into `videos` of what it publishes; every film is whole at the end.

    Args:
        work: the unit; how many films failed goes into its summary.
        simulator: what its episodes are played in.

    Yields:
        What takes their frames.

    Raises:
        OSError: the disk is full.
    """
    config, unit = work.config, work.unit
    base, rates = config.video_cfg.video_base_dir, config.simulator
    every = max(1, rates.action_frequency // rates.rendering_frequency)
    studio = Studio(
        directory=work.scratch(list(unit.outputs)[-1]) / "videos",
        copies=None if base is None else Path(base) / config.name / f"epoch-{unit.epoch:04d}",
        unit=unit,
        fps=rates.action_frequency / every,
        every=every,
        instructions={task.name: task.instruction for task in simulator.tasks},
        info=config.video_cfg.info_on_video,
    )
    films = Filming(studio)
    try:
        yield films
    except BaseException:
        films.drop()
        raise
    with work.phases("video"):
        films.finish()
    if films.failed:
        work.summary["video/failed"] = float(films.failed)


class Filming:
    """Films episodes: `shoot` what every chunk shows of them, then `finish`, or `drop` what is not finished."""

    def __init__(self, studio: Studio) -> None:
        """Begin with no film.

        Args:
            studio: what they have in common.
        """
        self.failed = 0
        """films that could not be written"""
        self._studio = studio
        self._tallies: dict[int, _Tally] = {}  # of the unit's thread
        self._films: dict[int, _Film] = {}  # of the films' thread
        self._given_up: set[int] = set()
        self._waiting: queue.Queue[_Shot | None] = queue.Queue(WAITING)
        self._disk_full = self._dropping = False
        self._thread = threading.Thread(target=self._work, name="filming", daemon=True)
        self._thread.start()

    def shoot(self, planned: Planned, result: ChunkResult, row: int) -> None:
        """Take what a chunk shows of an episode.

        Args:
            planned: the episode; nothing is done unless it is to be filmed.
            result: of the chunk.
            row: the episode's row in it.

        Raises:
            OSError: the disk is full.
        """
        if not planned.film:
            return
        self._check_disk()
        over = result.terminated[row] or result.truncated[row]
        rewards = result.rewards[row][result.executed[row]]
        frames = itertools.chain(result.frames[row], itertools.repeat(None))
        tally = self._tallies.setdefault(planned.index, _Tally())
        for left, frame, reward in zip(range(len(rewards) - 1, -1, -1), frames, rewards, strict=False):
            tally.steps += 1
            tally.since += 1
            tally.reward += float(reward)
            ends = over and not left
            if ends or tally.steps % self._studio.every == 1 % self._studio.every:
                outcome = ("success" if result.success[row] else "failure") if ends else ""
                self._waiting.put(_Shot(planned, frame, tally.since, tally.reward, outcome))
                tally.since, tally.reward = 0, 0.0
        if over:
            del self._tallies[planned.index]

    def finish(self) -> None:
        """Wait until every film is whole.

        Raises:
            OSError: the disk is full.
        """
        self._end()
        self._check_disk()

    def drop(self) -> None:
        """End at once, without the films that are not whole."""
        self._dropping = True
        self._end()

    def _end(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        """What the thread does until it gets None."""
        while (shot := self._waiting.get()) is not None:
            index = shot.planned.index
            if self._dropping or index in self._given_up:
                continue
            try:
                if index not in self._films:
                    self._films[index] = _Film(self._studio, shot.planned)
                film = self._films[index]
                if shot.frame is None:
                    raise VideoError(f"the simulator returned no frame of step {film.steps + shot.steps}")
                film.add(shot.frame, shot.reward, shot.outcome, shot.steps)
                if shot.outcome:
                    film.publish(shot.outcome)
                    del self._films[index]
            except Exception as failure:  # whatever it is, it costs this film and nothing else
                self._give_up(shot.planned, failure)
        for film in self._films.values():
            film.writer.abandon()

    def _give_up(self, planned: Planned, failure: Exception) -> None:
        """Do without a film."""
        self._given_up.add(planned.index)
        if (film := self._films.pop(planned.index, None)) is not None:
            film.writer.abandon()
        if self._dropping:
            return
        self.failed += 1
        if getattr(failure, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            self._disk_full = True  # whoever hears of it ends the unit, and tells
        else:
            _tell(f"there is no film of episode {planned.index} ({planned.task}): {failure}")

    def _check_disk(self) -> None:
        if self._disk_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._studio.directory))


def _tell(what: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk: the films go on
        print(f"baton: {what}", file=sys.stderr, flush=True)
