"""LeRobot's LIBERO sets, layouts v2.0, v2.1 and v3.0, with films or with pictures in the tables.

    v2: meta/{info.json,tasks.jsonl,episodes.jsonl}, a table and a film of each camera an episode
    v3: meta/{info.json,tasks.parquet,episodes/*/*.parquet}, many episodes a table and a film

(`lerobot/datasets` of huggingface/lerobot.) Pictures are those of OpenVLA's RLDS set, turned already.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import artifacts
from pipeline.errors import UserError
from stages.imports import films, tables
from stages.imports.films import AGAIN, first_line
from stages.imports.libero import tasks
from stages.imports.libero.conventions import ACTION_NUMBERS, STATE_NUMBERS
from stages.imports.libero.formats import Numbers
from stages.imports.libero.lerobot_meta import Meta, Recorded
from stages.imports.source import Episode

EPISODE = tables.EPISODE


class LeRobot:
    """See `stages.imports.libero.formats.Format`. Episodes have LeRobot's own numbers, `episode_index`.

    Args:
        path: the directory that holds meta and data.
        chosen: names of the tasks that are wanted.
    """

    name, turned, starts = "lerobot", True, False

    def __init__(self, path: Path, chosen: Sequence[str]) -> None:
        """Read and check what `meta` says.

        Raises:
            UserError: it is no such set, or an instruction belongs to several tasks.
        """
        self.path, self._meta = path, Meta.open(path)
        self.picture_size = self._meta.picture_size
        recorded = list(self._meta.episodes())
        self._others = sorted({each.instruction for each in recorded})
        of_instruction = tasks.ByInstruction(path, self._others, chosen)
        named = {text: of_instruction(text) for text in self._others}
        self._recorded: dict[int, Recorded] = {}
        self._episodes = []
        for each in sorted(recorded, key=lambda each: each.number):
            task = named[each.instruction]
            if task is not None:
                self._recorded[each.number] = each
                self._episodes.append(Episode(each.number, task, each.frames))

    def episodes(self) -> list[Episode]:
        """See Format.episodes."""
        return self._episodes

    def others(self) -> list[str]:
        """See Format.others."""
        return self._others

    def grippers(self) -> Iterator[np.ndarray]:
        """See Format.grippers."""
        for episode in self._episodes:
            path, table = self._read(episode, [self._meta.action])
            yield tables.matrix(path, table, self._meta.action, ACTION_NUMBERS)[:, -1]

    def numbers(self, episode: Episode) -> Numbers:
        """See Format.numbers."""
        path, table = self._read(episode, [self._meta.action, self._meta.state])
        actions = tables.matrix(path, table, self._meta.action, ACTION_NUMBERS)
        states = tables.matrix(path, table, self._meta.state, STATE_NUMBERS)
        tables.check_length(path, len(actions), episode.frames, self._meta.said_by)
        return Numbers(actions, states, success=True)

    def pictures(self, episode: Episode, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Format.pictures."""
        read = self._decode if self._meta.films else self._look_up
        with ThreadPoolExecutor(len(self._meta.views)) as pool:
            scene, wrist = pool.map(lambda view: read(episode, view, rows), self._meta.views)
        return scene, wrist

    def digests(self) -> dict[str, str]:
        """See Format.digests."""
        return {"meta/info.json": artifacts.checksum(self.path / "meta" / "info.json")}

    def _read(self, episode: Episode, columns: Sequence[str]) -> tuple[Path, Any]:
        """Columns of an episode, and the file they are from."""
        path = self._meta.table(self._recorded[episode.number])
        return path, tables.read(path, columns, episode.number if self._meta.many_a_file else None)

    def _decode(self, episode: Episode, view: str, rows: np.ndarray) -> np.ndarray:
        """Pictures of a film."""
        recorded, size = self._recorded[episode.number], self.picture_size
        path, out = self._meta.film(recorded, view), np.empty((len(rows), 3, size, size), np.uint8)
        if self._meta.many_a_file:
            films.part(path, recorded.begins[view], self._meta.rate, rows, out)
        else:
            films.whole(path, episode.frames, self._meta.said_by, rows, out)
        return out.transpose(0, 2, 3, 1)

    def _look_up(self, episode: Episode, view: str, rows: np.ndarray) -> np.ndarray:
        """Pictures in a table."""
        from PIL import Image, UnidentifiedImageError

        path, table = self._read(episode, [view])
        if view not in table.column_names:
            raise UserError(f"{path}: there is no column {view}; {AGAIN}")
        tables.check_length(path, table.num_rows, episode.frames, self._meta.said_by)
        stored = table[view].take(rows).to_pylist()
        try:
            return np.stack([np.asarray(Image.open(io.BytesIO(each["bytes"])).convert("RGB")) for each in stored])
        except (UnidentifiedImageError, OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: a picture of {view} cannot be read ({first_line(error)}); {AGAIN}") from None
