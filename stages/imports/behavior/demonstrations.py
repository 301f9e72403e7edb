"""Demonstrations of BEHAVIOR as an import takes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import artifacts
from pipeline.config import Config
from stages.imports.behavior import episode as recorded
from stages.imports.behavior import robot
from stages.imports.behavior.layout import DataSet
from stages.imports.behavior.recipe import Recipe
from stages.imports.source import Episode
from stages.imports.windows import Recorded, windows
from stages.simulators.omnigibson.proprioception import select
from stages.trajectories import EpisodeRecord


class Demonstrations:
    """See `stages.imports.source.Source`.

    Args:
        path: the directory that holds meta, data and videos.
        config: `simulator` says which tasks and how large the pictures are, `policy` how long a chunk is and how many
            numbers an action has, `demonstrate` how far apart decisions are.
    """

    def __init__(self, path: Path, config: Config) -> None:
        """Check what can be checked before an episode is read.

        Raises:
            UserError: the config or the data set does not do.
        """
        self.path = path
        self._recipe, self._data = Recipe.of(config), DataSet.open(path)
        self.spec = self._recipe.spec
        self.instructions: Mapping[str, str] = self._recipe.instructions

    def episodes(self) -> list[Episode]:
        """See Source.episodes."""
        return self._data.episodes_of(list(self.instructions))

    def most_decisions(self, episode: Episode) -> int:
        """See Source.most_decisions."""
        return math.ceil(episode.frames / self._recipe.stride)

    def record(self, episode: Episode) -> tuple[EpisodeRecord | None, dict[str, float]]:
        """See Source.record."""
        recipe = self._recipe
        commands, states = recorded.numbers(self._data, episode)
        limits = (recipe.position_limit, recipe.rotation_limit)
        actions, usable = robot.convert(commands, states, recipe.action_dim, limits)
        rewards = np.zeros(len(actions), np.float32)  # none are recorded
        record, rows, numbers = windows(episode, Recorded(actions, usable, rewards), recipe.stride, recipe.chunk)
        if record is None:
            return None, numbers
        head, wrist = recorded.pictures(self._data, episode, rows, recipe.image_size)
        proprio = select(states[rows], recipe.proprio_keys)
        return dataclasses.replace(record, head=head, wrist=wrist, proprio=proprio), numbers

    def nothing_left(self, episodes: int) -> str:
        """See Source.nothing_left."""
        return (
            f"base or trunk move in all frames of its {episodes} episodes, so that 14 numbers cannot say what the "
            "robot did; choose tasks that are done in one place, or 23 numbers: simulator.options.action_mode=joint_23 "
            "policy.action_dim=23"
        )

    def digests(self) -> dict[str, str]:
        """See Source.digests."""
        return {"meta/info.json": artifacts.checksum(self.path / "meta" / "info.json")}

    def recipe(self) -> dict[str, Any]:
        """See Source.recipe."""
        return dataclasses.asdict(self._recipe)
