"""Whole episodes in memory, their images on disk until asked for; several shards as one.

Shapes: D decisions, E episodes, K actions a chunk, A action numbers, P proprioception numbers, V wrist cameras, H x W
camera pixels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.errors import UserError
from stages.trajectories.consistency import check_groups
from stages.trajectories.schema import (
    EPISODE_ARRAYS,
    IMAGES,
    TAKEN,
    InconsistentEpisode,
    ShardAttributes,
    ShardSpec,
)
from stages.trajectories.storage import REMEDY, fetch

NEAR = 16
"""Decisions on disk that lie this near to one another are read in one call."""


@dataclasses.dataclass(frozen=True)
class Episodes:
    """The episodes of a shard; every array is [E].

    Attributes:
        start: int64, index of the first decision.
        length: int64, number of decisions.
        task: int64, index into `Trajectories.tasks`.
        seed: int64, of the initial state.
        group: int64, `NO_GROUP` for an episode that stands alone.
        success: bool.
        total_reward: float32, sum of the rewards; stored as `episodes/return`.
        terminated: bool, ended by itself.
        truncated: bool, cut off by a limit.
        bootstrap_value: float32, value of the observation after the last step.
    """

    start: np.ndarray
    length: np.ndarray
    task: np.ndarray
    seed: np.ndarray
    group: np.ndarray
    success: np.ndarray
    total_reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    bootstrap_value: np.ndarray

    def __len__(self) -> int:
        """How many episodes: E."""
        return len(self.start)


@dataclasses.dataclass(frozen=True)
class ShardImages:
    """The images of one shard, on disk.

    Attributes:
        path: of the shard.
        head: uint8 [D, 3, H, W].
        wrist: uint8 [D, V, 3, H, W]; None where V is 0.
    """

    path: Path
    head: zarr.Array[Any]
    wrist: zarr.Array[Any] | None

    def __len__(self) -> int:
        """How many decisions: D."""
        return int(self.head.shape[0])

    def load(self, field: str, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Read images of some decisions; where there is no such camera, nothing.

        Args:
            field: `head` or `wrist`.
            rows: int64 [n], decisions of this shard, ascending and each once.
            out: where images go.
            places: int64 [n], the row of `out` for each decision.

        Raises:
            UserError: a file is damaged.
        """
        array = getattr(self, field)
        if array is None:
            return
        # A call costs more than a few decisions: near ones are read together, up to the end of a file.
        apart = (np.diff(rows) > NEAR) | (np.diff(rows // (array.shards or array.chunks)[0]) > 0)
        for near in np.split(np.arange(len(rows)), np.flatnonzero(apart) + 1):
            first, last = int(rows[near[0]]), int(rows[near[-1]])
            part = fetch(array, slice(first, last + 1), self.path, f"observations/{field}")
            out[places[near]] = part[rows[near] - first]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Whole episodes of one shard or of several, flat over their decisions. Arrays the kind does not have are None.

    Attributes:
        spec: sizes of the arrays.
        sources: attributes of every shard in it, in order.
        tasks: names of the tasks.
        instructions: one sentence a task.
        episodes: the episodes, in order.
        stored_images: the shards' images; use `images` and `load_images`.
        proprio: float32 [D, P].
        actions: float32 [D, K, A], what the simulator was given.
        rewards: float32 [D, K], zero where not executed.
        executed: bool [D, K].
        tokens: int16 [D, K, A].
        chain: float32 [D, N + 1, H', A'].
        step: int16 [D].
        log_probs: float32 [D, K, A].
        values: float32 [D].
        entropies: float32 [D, K, A].
        clean: bool [D, K], False where an expert's action was perturbed.
    """

    spec: ShardSpec
    sources: tuple[ShardAttributes, ...]
    tasks: tuple[str, ...]
    instructions: tuple[str, ...]
    episodes: Episodes
    stored_images: tuple[ShardImages, ...]
    proprio: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    executed: np.ndarray
    tokens: np.ndarray | None = None
    chain: np.ndarray | None = None
    step: np.ndarray | None = None
    log_probs: np.ndarray | None = None
    values: np.ndarray | None = None
    entropies: np.ndarray | None = None
    clean: np.ndarray | None = None

    def __len__(self) -> int:
        """How many decisions: D."""
        return len(self.executed)

    @functools.cached_property
    def episode_of_decision(self) -> np.ndarray:
        """The episode of each decision, int64 [D]."""
        return np.repeat(np.arange(len(self.episodes)), self.episodes.length)

    @property
    def ends_episode(self) -> np.ndarray:
        """Flags [D], True at the last decision of an episode."""
        flags = np.zeros(len(self), dtype=bool)
        flags[self.episodes.start + self.episodes.length - 1] = True
        return flags

    @property
    def valid(self) -> np.ndarray:
        """Flags [D, K] of the actions to learn from: executed and, in a demonstration, clean."""
        return self.executed if self.clean is None else self.executed & self.clean

    @property
    def taken(self) -> dict[str, np.ndarray]:
        """What a policy needs to judge the decisions again, [D, ...] by name; nothing of demonstrations."""
        return {field: getattr(self, field) for field in TAKEN[self.spec.kind]}

    def instructions_of(self, decisions: np.ndarray | Sequence[int]) -> list[str]:
        """The sentences the policy was given.

        Args:
            decisions: int [n], from 0 to D - 1.

        Returns:
            n sentences.
        """
        tasks = self.episodes.task[self.episode_of_decision[np.asarray(decisions, dtype=np.int64)]]
        return [self.instructions[task] for task in tasks]

    def images(self, decisions: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Read the images of some decisions from disk.

        Args:
            decisions: int [n], from 0 to D - 1, in any order, repeated or not.

        Returns:
            head uint8 [n, 3, H, W] and wrist uint8 [n, V, 3, H, W], in the order asked for.

        Raises:
            IndexError: there is no such decision.
            UserError: a file is damaged.
        """
        wanted = np.asarray(decisions, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"decisions from {wanted.min()} to {wanted.max()} were asked for: there are {len(self)}")
        rows, back = np.unique(wanted, return_inverse=True)
        head, wrist = self._load(rows)
        # The usual case, all or a range in order, needs no second copy.
        return (head, wrist) if np.array_equal(rows, wanted) else (head[back], wrist[back])

    def load_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Read all images from disk.

        Returns:
            head uint8 [D, 3, H, W] and wrist uint8 [D, V, 3, H, W].

        Raises:
            UserError: a file is damaged.
        """
        return self._load(np.arange(len(self)))

    def _load(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of ascending decisions, each asked for once."""
        loaded = {field: np.empty((len(rows), *shape), np.uint8) for field, shape in self.spec.image_shapes().items()}
        offset = 0
        for shard in self.stored_images:
            places = np.flatnonzero((rows >= offset) & (rows < offset + len(shard)))
            for field in IMAGES if len(places) else ():
                shard.load(field, rows[places] - offset, loaded[field], places)
            offset += len(shard)
        return loaded["head"], loaded["wrist"]


def concatenate(shards: Sequence[Trajectories]) -> Trajectories:
    """Several shards as one, in the order given; tasks are joined by name.

    Args:
        shards: at least one, all of one spec.

    Returns:
        All their episodes.

    Raises:
        UserError: the specs differ, a task has two instructions, or shards share a group that is not one.
    """
    if not shards:
        raise ValueError("concatenate needs at least one shard")
    instructions: dict[str, str] = {}
    for shard in shards:
        place = shard.stored_images[0].path
        if shard.spec != shards[0].spec:
            raise UserError(f"{place}: its layout {shard.spec} is not the first shard's {shards[0].spec}; {REMEDY}")
        for task, sentence in zip(shard.tasks, shard.instructions, strict=True):
            if instructions.setdefault(task, sentence) != sentence:
                raise UserError(f"{place}: task {task!r} means {sentence!r}, before {instructions[task]!r}; {REMEDY}")
    names = list(instructions)
    columns = {field: np.concatenate([getattr(shard.episodes, field) for shard in shards]) for field in EPISODE_ARRAYS}
    columns["start"] = np.cumsum(columns["length"]) - columns["length"]
    columns["task"] = np.concatenate(
        [np.array([names.index(task) for task in shard.tasks])[shard.episodes.task] for shard in shards]
    )
    try:
        check_groups(columns)
    except InconsistentEpisode as error:
        places = ", ".join(str(shard.stored_images[0].path) for shard in shards)
        raise UserError(f"{places}: {error}: groups must be numbered within the epoch; {REMEDY}") from None
    fields = [field for field in shards[0].spec.decision_arrays() if field not in IMAGES]
    return Trajectories(
        spec=shards[0].spec,
        sources=tuple(source for shard in shards for source in shard.sources),
        tasks=tuple(names),
        instructions=tuple(instructions.values()),
        episodes=Episodes(**columns),
        stored_images=tuple(images for shard in shards for images in shard.stored_images),
        **{field: np.concatenate([getattr(shard, field) for shard in shards]) for field in fields},
    )
