"""Demonstrations of LIBERO as an import takes them, whichever layout they are in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import UserError
from stages.imports.libero import conventions, rlds, tasks
from stages.imports.libero.conventions import ACTION_NUMBERS, STATE_NUMBERS, Gripper
from stages.imports.libero.formats import Format
from stages.imports.libero.hdf5 import Hdf5
from stages.imports.libero.held_out import HeldOut
from stages.imports.libero.lerobot import LeRobot
from stages.imports.libero.rlds import Rlds
from stages.imports.source import Episode
from stages.imports.windows import Recorded, check_stride, windows
from stages.simulation import simulator_options
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero.catalogue import entries
from stages.simulators.libero.options import parse
from stages.trajectories import EpisodeRecord, ShardSpec

COMPARED = "the data set's own; those of the benchmark's 50 a task are left out"
NOT_COMPARED = "the data set's own; whether some are of the benchmark's 50 a task is not known"
LISTED = 5  # tasks that a message names


class Demonstrations:
    """See `stages.imports.source.Source`.

    Frames in which nothing is done are left out, and so are episodes that did not reach their goal or begin from a
    state that is kept for evaluation, where that can be told. Pictures are turned as the field turns them, and shrunk.

    Args:
        path: a directory of TASK_demo.hdf5 files or one of them, of TFRecord files, or a LeRobot set.
        config: `simulator` says which tasks, how large the pictures are and which way round the gripper's number is,
            `policy` how long a chunk is, `demonstrate` how far apart decisions are.
        turn: whether pictures are turned by 180 degrees; None: where the layout's are as LIBERO renders them.
    """

    def __init__(self, path: Path, config: Config, turn: bool | None = None) -> None:
        """Check what can be checked before an episode is read.

        Raises:
            UserError: the config or the demonstrations do not do.
        """
        check_stride(config)
        try:
            options = parse(simulator_options(config.simulator))
        except SimulatorConfigError as error:
            raise UserError(f"simulator: {error}") from None
        self.path = path
        self.instructions: Mapping[str, str] = {name: entries()[name].instruction for name in options.tasks}
        self._stride, self._chunk, self._size = config.demonstrate.stride, config.policy.chunk, options.image_size
        self._format = _opened(path, list(self.instructions))
        self._episodes = self._format.episodes()
        self._check_tasks()
        if self._format.picture_size < self._size:
            raise UserError(
                f"simulator.image_size={self._size}, but the pictures in {path} have {self._format.picture_size} "
                f"pixels a side: set it to {self._format.picture_size} or less, or import a set with larger ones"
            )
        self._turn = not self._format.turned if turn is None else turn
        self._recorded_gripper = conventions.gripper_of(path, self._format.grippers())
        self._gripper: Gripper = "openvla" if options.gripper == "openvla" else "robosuite"
        self._held_out = HeldOut(config.simulator.python if self._format.starts else None)
        self.spec = ShardSpec(
            "demonstration", (self._size, self._size), STATE_NUMBERS, self._chunk, ACTION_NUMBERS, wrist_cameras=1
        )

    def episodes(self) -> list[Episode]:
        """See Source.episodes."""
        return self._episodes

    def most_decisions(self, episode: Episode) -> int:
        """See Source.most_decisions."""
        return math.ceil(episode.frames / self._stride)

    def record(self, episode: Episode) -> tuple[EpisodeRecord | None, dict[str, float]]:
        """See Source.record."""
        numbers = self._format.numbers(episode)
        conventions.check(f"{self.path}: episode {episode.number}", numbers.actions, numbers.states)
        held_out = numbers.start is not None and self._held_out.begins(episode.task, numbers.start)
        wanted = numbers.success and not held_out
        frames = np.flatnonzero(conventions.moves(numbers.actions)) if wanted else np.zeros(0, int)
        told = {
            "import/episodes": 0.0,
            "import/frames": float(len(numbers.actions)),
            "import/frames_left_out": float(len(numbers.actions) - len(frames)),
            "import/decisions": 0.0,
            "import/held_out": float(held_out),
        }
        if not len(frames):
            return None, told
        actions = np.clip(numbers.actions[frames], -1, 1)
        actions = conventions.convert_gripper(actions, self._recorded_gripper, self._gripper)
        recorded = Recorded(actions, usable=np.ones(len(frames), bool), rewards=_at_the_end(len(frames)))
        record, decided, _ = windows(episode, recorded, self._stride, self._chunk)
        assert record is not None  # all frames that are left can be learnt from
        seen = frames[decided]
        scene, wrist = (self._shrunk(pictures) for pictures in self._format.pictures(episode, seen))
        told |= {"import/episodes": 1.0, "import/decisions": float(len(seen))}
        return dataclasses.replace(record, head=scene, wrist=wrist[:, None], proprio=numbers.states[seen]), told

    def nothing_left(self, episodes: int) -> str:
        """See Source.nothing_left."""
        return (
            f"each of its {episodes} episodes misses its goal, begins from a state that is kept for evaluation, or "
            "does nothing; choose others with --episodes"
        )

    def digests(self) -> dict[str, str]:
        """See Source.digests."""
        return self._format.digests()

    def recipe(self) -> dict[str, Any]:
        """See Source.recipe."""
        return {
            "format": self._format.name,
            "stride": self._stride,
            "chunk": self._chunk,
            "image_size": self._size,
            "turn": self._turn,
            "gripper": self._gripper,
            "instructions": dict(self.instructions),
            "initial_states": COMPARED if all(map(self._held_out.known, self.instructions)) else NOT_COMPARED,
        }

    def _check_tasks(self) -> None:
        """Refuse demonstrations that lack a task of the config."""
        there = {episode.task for episode in self._episodes}
        if missing := [name for name in self.instructions if name not in there]:
            others = self._format.others()
            more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
            listing = "; ".join(others[:LISTED]) + more if others else "none"
            raise UserError(
                f"{self.path}: it has no episode of {missing[0]}; it has {listing}: set simulator.tasks to some of them"
            )

    def _shrunk(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures [n, H, W, 3] the right way round and in the config's size, uint8 [n, 3, H', W']."""
        from PIL import Image

        pictures = conventions.turned(pictures) if self._turn else pictures
        if pictures.shape[1] != self._size:
            size = (self._size, self._size)
            # BOX averages what a pixel of the result covers, as a camera of that size would.
            small = [Image.fromarray(picture).resize(size, Image.Resampling.BOX) for picture in pictures]
            pictures = np.stack([np.asarray(each) for each in small])
        return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def _at_the_end(frames: int) -> np.ndarray:
    """The reward of reaching the goal, as the simulator gives it, float32 [frames]."""
    rewards = np.zeros(frames, np.float32)
    rewards[-1] = 1
    return rewards


def _opened(path: Path, chosen: list[str]) -> Format:
    """Demonstrations in the layout that they are in."""
    if (path / "meta" / "info.json").is_file():
        return LeRobot(path, chosen)
    if rlds.holds(path):
        return Rlds(path, chosen)
    if path.is_file() or any(path.rglob(f"*{tasks.DEMONSTRATIONS}")):
        return Hdf5(path, chosen)
    raise UserError(
        f"{path} holds no demonstrations of LIBERO: neither TASK{tasks.DEMONSTRATIONS} files, nor TFRecord files "
        "(NAME-train.tfrecord-00000-of-00016), nor meta/info.json of a LeRobot set; name the directory that does"
    )
