"""3.9: one `Environment` that holds several scenes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson.worlds import Worlds


class SceneWorlds(Worlds):
    """The scenes of one environment."""

    def scene(self, slot: int) -> Any:
        """See Worlds.scene."""
        return self.environment.scenes[slot]

    def task(self, slot: int) -> Any:
        """See Worlds.task."""
        return self.environment.task

    def scope(self, slot: int) -> Mapping[str, Any]:
        """See Worlds.scope."""
        task = self.environment.task
        scope: Mapping[str, Any] = task.object_scopes[slot] if hasattr(task, "object_scopes") else task.object_scope
        return scope

    def look(self, slot: int) -> Mapping[str, Any]:
        """See Worlds.look."""
        observation: Mapping[str, Any] = self.environment.get_obs(env_indices=[slot])[0][0]
        return observation

    def _build(self, config: dict[str, Any]) -> None:
        config["env"] |= {
            "num_envs": self.num_envs,
            "num_rerenders_on_reset": self._options.renders_per_observation,
        }
        self.environment = self._og.Environment(configs=config)
        if self.num_envs > 1 and not hasattr(self.environment.task, "object_scopes"):
            raise SimulatorConfigError(
                f"omnigibson: the tasks of version {self.version} know one world a process; use one (num_workers equal "
                "to num_envs), or 3.9.3"
            )

    def _place(self, slot: int) -> int:
        return slot

    def _reset(self, slot: int) -> None:
        torch = importlib.import_module("torch")
        self.environment.reset(env_indices=torch.tensor([slot]), get_obs=False)

    def _step(self, commands: np.ndarray, draw: bool) -> tuple[Sequence[Any], Sequence[Mapping[str, Any]]]:
        torch = importlib.import_module("torch")
        empty: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        with self._og.sim.render_on_step(draw), self._unseeing([self.environment], (empty, empty)):
            _, rewards, _, _, infos = self.environment.step(torch.from_numpy(commands))
        return list(rewards), infos
