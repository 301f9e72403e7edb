"""3.7 and 3.8: a `VectorEnvironment` of `Environment`s, whose `step` takes other keywords in every build."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.simulators.omnigibson.worlds import Worlds


class VectorWorlds(Worlds):
    """Upstream's, and the builds of RLinf's fork."""

    def scene(self, slot: int) -> Any:
        """See Worlds.scene."""
        return self.environment.envs[slot].scene

    def task(self, slot: int) -> Any:
        """See Worlds.task."""
        return self.environment.envs[slot].task

    def scope(self, slot: int) -> Mapping[str, Any]:
        """See Worlds.scope."""
        scope: Mapping[str, Any] = self.task(slot).object_scope
        return scope

    def look(self, slot: int) -> Mapping[str, Any]:
        """See Worlds.look."""
        observation: Mapping[str, Any] = self.environment.envs[slot].get_obs()[0]
        return observation

    def _build(self, config: dict[str, Any]) -> None:
        vector = importlib.import_module("omnigibson.envs").VectorEnvironment
        self.environment = vector(self.num_envs, config)
        self._keywords = set(inspect.signature(self.environment.step).parameters)
        takes = inspect.signature(self.environment.envs[0].reset).parameters
        self._reset_keywords = {"get_obs": False} if "get_obs" in takes else {}

    def _place(self, slot: int) -> int:
        return 0

    def _reset(self, slot: int) -> None:
        self.environment.envs[slot].reset(**self._reset_keywords)

    def _step(self, commands: np.ndarray, draw: bool) -> tuple[Sequence[Any], Sequence[Mapping[str, Any]]]:
        # Always all worlds: `env_indices` of the fork would leave the others to their last command.
        keywords: dict[str, bool] = {}
        with contextlib.ExitStack() as stack:
            if "render" in self._keywords:
                keywords["render"] = draw
            else:
                stack.enter_context(self._og.sim.render_on_step(draw))
            if "get_obs" in self._keywords:
                keywords["get_obs"] = self._options.observe_every_step
            else:
                stack.enter_context(self._unseeing(self.environment.envs, ({}, {})))
            _, rewards, _, _, infos = self.environment.step(list(commands), **keywords)
        return rewards, infos
