"""Where things lie in a LeRobot v2.1 data set with BEHAVIOR's layout, and which of its episodes are taken.

The metadata are read once, as streams of lines; nothing is opened per episode before it is imported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

VERSION = "v2.1"
STATE_NUMBERS, ACTION_NUMBERS = 256, 23
ACTION, STATE = "action", "observation.state"
CAMERAS = tuple(f"observation.images.rgb.{name}" for name in ("head", "left_wrist", "right_wrist"))
REVISION = "get its revision v2.1 (huggingface.co/datasets/behavior-1k/2025-challenge-demos has one)"


@dataclasses.dataclass(frozen=True)
class Episode:
    """An episode of a data set.

    Attributes:
        number: its episode_index, which names its files.
        task: name of its task.
        frames: how many it has, as the metadata say.
    """

    number: int
    task: str
    frames: int


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set whose metadata fit.

    Attributes:
        path: its directory.
        instructions: task -> its sentence.
        indices: task -> its number, which is the chunk that its episodes lie in.
    """

    path: Path
    instructions: dict[str, str]
    indices: dict[str, int]
    _chunk_size: int
    _table: str
    _video: str

    @classmethod
    def open(cls, path: Path) -> DataSet:
        """Read and check what `meta` says.

        Args:
            path: the directory that holds meta, data and videos.

        Raises:
            UserError: it is no data set, of another version, or not of BEHAVIOR's layout.
        """
        source = path / "meta" / "info.json"
        try:
            info: Any = json.loads(source.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            holds = "name the directory that holds meta, data and videos"
            raise UserError(f"{path} is not a LeRobot data set: it has no meta/info.json; {holds}") from None
        except ValueError as error:
            raise UserError(f"{source} cannot be read ({error}); download it again") from None
        version = info.get("codebase_version") if isinstance(info, dict) else None
        if version != VERSION:
            raise UserError(f"{source}: codebase_version is {version!r}, {VERSION} can be imported; {REVISION}")
        _check_features(source, info.get("features"))
        for key, kind in (("data_path", str), ("video_path", str), ("chunks_size", int)):
            if not isinstance(info.get(key), kind):
                raise UserError(f"{source}: {key} is {info.get(key)!r}, which does not fit; download it again")
        instructions, indices = {}, {}
        for place, line in _lines(path / "meta" / "tasks.jsonl"):
            try:
                name = str(line["task_name"])
                instructions[name], indices[name] = str(line["task"]), int(line["task_index"])
            except (KeyError, TypeError, ValueError):
                raise UserError(f"{place}: a task needs task_index, task_name and task; download it again") from None
        found = cls(path, instructions, indices, info["chunks_size"], info["data_path"], info["video_path"])
        try:
            found.table(Episode(0, "", 0))
            found.video(Episode(0, "", 0), CAMERAS[0])
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"{source}: data_path and video_path name {error}, which is not known; {REVISION}"
            ) from None
        return found

    def table(self, episode: Episode) -> Path:
        """The file of an episode's numbers."""
        return self.path / self._table.format(**self._names(episode))

    def video(self, episode: Episode, camera: str) -> Path:
        """The film of one camera."""
        return self.path / self._video.format(**self._names(episode), video_key=camera)

    def choose(self, tasks: Sequence[str], count: int) -> list[Episode]:
        """The first episodes of each task, in turn.

        Args:
            tasks: names.
            count: how many in all.

        Raises:
            UserError: a task is not in the data set, or there are too few episodes.
        """
        listed = self._episodes_of(tasks)
        wanted = {task: len(range(place, count, len(tasks))) for place, task in enumerate(tasks)}
        found: dict[str, list[Episode]] = {task: [] for task in tasks}
        for episode in listed:
            found[episode.task].append(episode)
        for task, episodes in found.items():
            if len(episodes) < wanted[task]:
                most = min(len(episodes) for episodes in found.values()) * len(tasks)
                raise UserError(
                    f"{self.path}: it has {len(episodes)} episodes of {task}, but demonstrate.episodes={count} over "
                    f"{len(tasks)} tasks needs {wanted[task]}: set demonstrate.episodes to {most} or less"
                )
        return [found[tasks[place % len(tasks)]][place // len(tasks)] for place in range(count)]

    def numbered(self, tasks: Sequence[str], numbers: Sequence[range]) -> list[Episode]:
        """The episodes with some numbers, in the order of their numbers.

        Args:
            tasks: names; all episodes have to be of them.
            numbers: ranges of episode numbers, each of which holds at least one of them.

        Raises:
            UserError: a task is not in the data set, or a range holds no episode of the tasks.
        """
        listed = self._episodes_of(tasks)
        for some in numbers:
            if not any(episode.number in some for episode in listed):
                which = f"{some[0]}" if len(some) == 1 else f"{some[0]}-{some[-1]}"
                there = f"{listed[0].number} to {listed[-1].number}" if listed else "none"
                raise UserError(
                    f"--episodes {which}: {self.path} has no such episode of {', '.join(tasks)} (it has {there}): name "
                    "others, or set simulator.tasks to their tasks"
                )
        return [episode for episode in listed if any(episode.number in some for some in numbers)]

    def _episodes_of(self, tasks: Sequence[str]) -> list[Episode]:
        """All episodes of some tasks, in the order of their numbers."""
        if strange := [task for task in tasks if task not in self.indices]:
            raise UserError(
                f"{self.path}: it has no task {strange[0]!r}; it has {', '.join(sorted(self.indices)) or 'none'}: "
                "set simulator.tasks to some of them"
            )
        by_index = {self.indices[task]: task for task in tasks}
        found = []
        for place, line in _lines(self.path / "meta" / "episodes.jsonl"):
            try:
                number, frames = int(line["episode_index"]), int(line["length"])
            except (KeyError, TypeError, ValueError):
                raise UserError(f"{place}: an episode needs episode_index and length; download it again") from None
            task = by_index.get(number // self._chunk_size)
            if task is not None:
                found.append(Episode(number, task, frames))
        return sorted(found, key=lambda episode: episode.number)

    def _names(self, episode: Episode) -> dict[str, int]:
        return {"episode_chunk": episode.number // self._chunk_size, "episode_index": episode.number}


def _check_features(source: Path, features: Any) -> None:
    """Refuse a data set that lacks a camera or numbers, or has them in other sizes."""
    features = features if isinstance(features, dict) else {}
    numbers = {ACTION: [ACTION_NUMBERS], STATE: [STATE_NUMBERS]}
    for name in (*numbers, *CAMERAS):
        if name not in features:
            raise UserError(f"{source}: there is no feature {name}, which BEHAVIOR's layout has; {REVISION}")
        shape = features[name].get("shape")
        if name in numbers and shape != numbers[name]:
            raise UserError(f"{source}: {name} has the shape {shape}, {numbers[name]} can be imported; {REVISION}")


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file, each with its place."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield f"{path}:{number}", json.loads(text)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({what}); download it again") from None
