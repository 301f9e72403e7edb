"""Where things lie in a LeRobot v2.1 data set with BEHAVIOR's layout, and which episodes it has.

The metadata are read once, as streams of lines; nothing is opened per episode before it is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from stages.imports import tables
from stages.imports.source import Episode

VERSION = "v2.1"
STATE_NUMBERS, ACTION_NUMBERS = 256, 23
ACTION, STATE = "action", "observation.state"
CAMERAS = tuple(f"observation.images.rgb.{name}" for name in ("head", "left_wrist", "right_wrist"))
REVISION = "get its revision v2.1 (huggingface.co/datasets/behavior-1k/2025-challenge-demos has one)"


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
        source, info = tables.info(path)
        version = info.get("codebase_version")
        if version != VERSION:
            raise UserError(f"{source}: codebase_version is {version!r}, {VERSION} can be imported; {REVISION}")
        _check_features(source, info.get("features"))
        for key, kind in (("data_path", str), ("video_path", str), ("chunks_size", int)):
            if not isinstance(info.get(key), kind):
                raise UserError(f"{source}: {key} is {info.get(key)!r}, which does not fit; download it again")
        instructions, indices = {}, {}
        for place, line in tables.lines(path / "meta" / "tasks.jsonl"):
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

    def episodes_of(self, tasks: Sequence[str]) -> list[Episode]:
        """All episodes of some tasks, in the order of their numbers.

        Args:
            tasks: names.

        Raises:
            UserError: a task is not in the data set, or the metadata are damaged.
        """
        if strange := [task for task in tasks if task not in self.indices]:
            raise UserError(
                f"{self.path}: it has no task {strange[0]!r}; it has {', '.join(sorted(self.indices)) or 'none'}: "
                "set simulator.tasks to some of them"
            )
        by_index = {self.indices[task]: task for task in tasks}
        found = []
        for place, line in tables.lines(self.path / "meta" / "episodes.jsonl"):
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
