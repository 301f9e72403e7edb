"""Writing a shard: episodes in, whole files out, in the background and with bounded memory.

zarr rewrites a file for every part of it that is written alone, so decisions are gathered until a file is full; it is
then put together, compressed, written and read back on one of a few threads while the caller goes on.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr

from pipeline.errors import UserError
from stages.simulators.interface import split_of
from stages.trajectories.consistency import check_record
from stages.trajectories.reader import read
from stages.trajectories.schema import (
    EPISODE_ARRAYS,
    NO_GROUP,
    SCHEMA_VERSION,
    EpisodeRecord,
    InconsistentEpisode,
    ShardAttributes,
    ShardSpec,
)
from stages.trajectories.storage import create_stream, store_whole
from stages.trajectories.trajectories import Trajectories

THREADS = min(4, max(1, len(os.sched_getaffinity(0)) // 4))
"""Files written at a time, on a quarter of the cores: zstd leaves Python's lock alone, what zarr adds does not."""
WAITING_BYTES = 1 << 30
"""Most that may wait to be written: worlds whose step limits run out together fill hundreds of files at once."""


class ShardWriter:
    """Writes one shard. The same episodes in the same order give the same bytes, whatever the timing.

    A context manager: leaving it closes the shard, unless an exception passes through; a shard that was not closed has
    no attributes and is refused by readers.
    """

    def __init__(self, path: Path, spec: ShardSpec, attributes: ShardAttributes) -> None:
        """Begin a shard.

        Args:
            path: its directory, which holds no shard yet; parents are made.
            spec: the sizes of its arrays.
            attributes: where it comes from.

        Raises:
            UserError: a shard, finished or not, is there already.
        """
        if (path / "zarr.json").exists():
            raise UserError(f"{path} holds a shard already: write into an empty directory")
        self._path, self._spec, self._attributes = path, spec, attributes
        self._root = zarr.open_group(path, mode="a", zarr_format=3)
        self._layouts = spec.decision_arrays()
        self._streams = {
            field: create_stream(self._root, layout) for field, layout in self._layouts.items() if layout.rows_per_file
        }
        self._rows: dict[str, list[np.ndarray]] = {
            field: [] for field, layout in self._layouts.items() if not layout.rows_per_file
        }
        self._episodes: dict[str, list[Any]] = {field: [] for field in EPISODE_ARRAYS}
        self._parts = self._no_parts()
        self._groups: dict[int, tuple[str, int]] = {}
        self._decisions = 0
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="shard-writer")
        self._flushing: deque[tuple[Future[None], int]] = deque()  # with their bytes
        self._growing = threading.Lock()
        self._closed = False

    def append(self, episode: EpisodeRecord) -> None:
        """Add an episode behind those added before.

        Args:
            episode: T decisions; it is the shard's from now on: nobody may change its arrays.

        Raises:
            InconsistentEpisode: it does not fit this shard, or holds what no shard may; nothing of it was added.
            UserError: what was written before cannot be read back.
        """
        if self._closed:
            raise ValueError(f"{self._path} is closed: append before close")
        check_record(episode, self._spec)
        if episode.task not in self._attributes.tasks:
            raise InconsistentEpisode(
                f"episodes/task: {episode.task!r} is not a task of this shard: {', '.join(self._attributes.tasks)}"
            )
        if (split := split_of(episode.seed)) != self._attributes.split:
            raise InconsistentEpisode(
                f"episodes/seed: {episode.seed} is a state of the split {split!r}, this shard is of "
                f"{self._attributes.split!r}; keep the two apart"
            )
        origin = (episode.task, episode.seed)
        if episode.group != NO_GROUP and self._groups.setdefault(episode.group, origin) != origin:
            raise InconsistentEpisode(
                f"episodes/group: group {episode.group} began with (task, seed) {self._groups[episode.group]}, "
                f"this episode has {origin}; give every initial state of an epoch its own group"
            )
        self._note(episode)
        for field, rows in self._rows.items():
            rows.append(getattr(episode, field))
        begin, whole = 0, self._spec.decisions_per_file
        while begin < len(episode):
            filled = self._decisions % whole
            count = min(len(episode) - begin, whole - filled)
            for field, parts in self._parts.items():
                parts.append(getattr(episode, field)[begin : begin + count])
            self._decisions += count
            begin += count
            if filled + count == whole:
                self._flush(whole)

    def close(self) -> Trajectories:
        """Write what is left, then open the shard again and check all of it.

        Returns:
            The shard as a reader sees it.

        Raises:
            InconsistentEpisode: no episode was added.
            UserError: what was written cannot be read back.
        """
        if self._closed:
            raise ValueError(f"{self._path} is closed already")
        if not self._episodes["start"]:
            self.abort()
            raise InconsistentEpisode(f"{self._path}: a shard needs an episode; none was added")
        try:
            if rest := self._decisions % self._spec.decisions_per_file:
                self._flush(rest)
            self._wait(0)
        finally:
            self.abort()
        for field, rows in self._rows.items():
            store_whole(self._root, self._layouts[field], np.concatenate(rows))
        for field, numbers in self._episodes.items():
            layout = EPISODE_ARRAYS[field]
            store_whole(self._root, layout, np.array(numbers, dtype=layout.dtype))
        # Last of all: a shard without attributes is one whose writer never got here.
        self._root.update_attributes(
            {
                "schema_version": SCHEMA_VERSION,
                "layout": dataclasses.asdict(self._spec),
                **dataclasses.asdict(self._attributes),
            }
        )
        return read(self._path)

    def abort(self) -> None:
        """Stop the threads; the shard stays unfinished unless it was closed."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ShardWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the shard, or leave it unfinished when an exception passes through."""
        if kind is not None:
            self.abort()
        elif not self._closed:
            self.close()

    def _note(self, episode: EpisodeRecord) -> None:
        numbers = {
            "start": self._decisions,
            "length": len(episode),
            "task": self._attributes.tasks.index(episode.task),
            "total_reward": episode.rewards.sum(dtype=np.float64),
        }
        for field, column in self._episodes.items():
            column.append(numbers[field] if field in numbers else getattr(episode, field))

    def _no_parts(self) -> dict[str, list[np.ndarray]]:
        return {field: [] for field in self._streams}

    def _flush(self, count: int) -> None:
        """Hand the gathered decisions to the threads; waits where too much is, so that memory stays bounded."""
        size = sum(part.nbytes for parts in self._parts.values() for part in parts)
        self._wait(WAITING_BYTES - size)
        self._flushing.append((self._threads.submit(self._write, self._parts, self._decisions - count), size))
        self._parts = self._no_parts()

    def _wait(self, most: int) -> None:
        """Wait until at most so many bytes are still to be written; raises what went wrong with the others."""
        waiting = sum(size for _, size in self._flushing)
        while self._flushing and (waiting > most or self._flushing[0][0].done()):
            written, size = self._flushing.popleft()
            written.result()
            waiting -= size

    def _write(self, parts: dict[str, list[np.ndarray]], begin: int) -> None:
        for field in parts:
            block = np.concatenate(parts[field])
            array = self._streams[field]
            end = begin + len(block)
            with self._growing:
                if array.shape[0] < end:
                    array.resize((end, *array.shape[1:]))
            array[begin:end] = block
            if not np.array_equal(np.asarray(array[begin:end]), block):
                raise UserError(
                    f"{self._path}: {self._layouts[field].path} of decisions {begin} to {end} is not read back as "
                    "it was written; check the file system, then run the unit again"
                )
