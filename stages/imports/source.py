"""What an import needs of recorded demonstrations, whatever holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import UserError
from stages.trajectories import EpisodeRecord, ShardSpec


@dataclasses.dataclass(frozen=True)
class Episode:
    """A recorded episode.

    Attributes:
        number: what `--episodes` calls it.
        task: name of its task.
        frames: how many it has, as the metadata say.
    """

    number: int
    task: str
    frames: int


class Source(Protocol):
    """Recorded demonstrations of the tasks of a config.

    Attributes:
        path: where they are.
        spec: sizes of the shards that they become.
        instructions: task -> what a policy is asked; the config's tasks, in its order.
    """

    path: Path
    spec: ShardSpec
    instructions: Mapping[str, str]

    def episodes(self) -> list[Episode]:
        """All episodes of the tasks, in the order of their numbers.

        Raises:
            UserError: there is none of a task, or the metadata are damaged.
        """

    def most_decisions(self, episode: Episode) -> int:
        """How many decisions an episode becomes if all of it can be learnt from."""

    def record(self, episode: Episode) -> tuple[EpisodeRecord | None, dict[str, float]]:
        """Read an episode.

        Returns:
            The episode, None if nothing of it can be learnt from; its numbers for the manifest: `import/episodes`,
            `import/frames`, `import/frames_left_out` and `import/decisions`.

        Raises:
            UserError: a file is missing or damaged.
        """

    def nothing_left(self, episodes: int) -> str:
        """Why nothing of so many episodes can be learnt from, and what to do about it."""

    def digests(self) -> dict[str, str]:
        """File -> its checksum, of the files that tell this set from another."""

    def recipe(self) -> dict[str, Any]:
        """Everything else that decides what the shards hold."""


def choose(source: Source, count: int) -> list[Episode]:
    """The first episodes of each task, in turn.

    Args:
        source: the demonstrations.
        count: how many in all.

    Raises:
        UserError: there are too few.
    """
    tasks = list(source.instructions)
    wanted = {task: len(range(place, count, len(tasks))) for place, task in enumerate(tasks)}
    found: dict[str, list[Episode]] = {task: [] for task in tasks}
    for episode in source.episodes():
        found[episode.task].append(episode)
    for task, episodes in found.items():
        if len(episodes) < wanted[task]:
            most = min(len(episodes) for episodes in found.values()) * len(tasks)
            raise UserError(
                f"{source.path}: it has {len(episodes)} episodes of {task}, but demonstrate.episodes={count} over "
                f"{len(tasks)} tasks needs {wanted[task]}: set demonstrate.episodes to {most} or less"
            )
    return [found[tasks[place % len(tasks)]][place // len(tasks)] for place in range(count)]


def numbered(source: Source, numbers: Sequence[range]) -> list[Episode]:
    """The episodes with some numbers, in the order of their numbers.

    Args:
        source: the demonstrations.
        numbers: ranges of episode numbers, each of which holds at least one of them.

    Raises:
        UserError: a range holds no episode of the tasks.
    """
    listed = source.episodes()
    for some in numbers:
        if not any(episode.number in some for episode in listed):
            which = f"{some[0]}" if len(some) == 1 else f"{some[0]}-{some[-1]}"
            there = f"{listed[0].number} to {listed[-1].number}" if listed else "none"
            raise UserError(
                f"--episodes {which}: {source.path} has no such episode of {', '.join(source.instructions)} (it has "
                f"{there}): name others, or set simulator.tasks to their tasks"
            )
    return [episode for episode in listed if any(episode.number in some for some in numbers)]
