"""The household's worlds in MuJoCo: a model a scene, a world of data each, advanced one after another."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from stages.simulators.household import controller, robot
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.engine import Engine, Run
from stages.simulators.household.layouts import Start
from stages.simulators.household.options import Options
from stages.simulators.household.physics import Physics
from stages.simulators.household.state import Snapshot

# The numbers that belong to one world, an array each.
_PER_WORLD = ("task", "seed", "steps", "done", "_potential")


class PhysicsError(RuntimeError):
    """A world's state is not one that physics can go on from."""


class Worlds(Engine):
    """N worlds, each in the scene of its task."""

    name = f"mujoco {mujoco.__version__}"
    deterministic = True

    def __init__(self, benchmark: Benchmark, num_envs: int, options: Options, scenes: list[Physics]) -> None:
        """Make room for N = `num_envs` worlds in any of the scenes."""
        super().__init__(benchmark, num_envs)
        self._options, self._scenes = options, scenes
        self._data = [mujoco.MjData(scenes[0].model) for _ in range(num_envs)]
        self._targets = controller.home(num_envs, robot.HOME_JOINTS)
        self._potential = np.zeros(num_envs)

    def run(self, slots: np.ndarray, actions: np.ndarray) -> Run:
        """See Engine.run."""
        result = Run.blank(*actions.shape[:2])
        for step in range(actions.shape[1]):
            active = np.flatnonzero(~self.done[slots])
            if not len(active):
                break
            worlds = slots[active]
            self._advance(worlds, actions[active, step])
            success, reward = self._judge(worlds)
            result.rewards[active, step], result.executed[active, step] = reward, True
            result.success[active] = success
            limit = self.benchmark.step_limit[self.task[worlds]]
            result.truncated[active] = ~success & (self.steps[worlds] >= limit)
            self.done[worlds] = success | result.truncated[active]
        return result

    def snapshot(self, slots: np.ndarray) -> Snapshot:
        """See Engine.snapshot."""
        state = self.benchmark.kit.empty(len(slots))
        for row, slot in enumerate(slots):
            self._physics(slot).read(self._data[slot], state, row)
        self.benchmark.kit.locate(state)
        return state

    def targets(self, slots: np.ndarray) -> controller.Targets:
        """See Engine.targets."""
        return self._targets.take(slots)

    def view(self, slot: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """See Engine.view."""
        return self._physics(slot).model, self._data[slot]

    def save(self, slot: int) -> dict[str, Any]:
        """See Engine.save."""
        return {
            "physics": self._physics(slot).save(self._data[slot]),
            "targets": self._targets.take(np.array([slot])),
            **{name: getattr(self, name)[slot] for name in _PER_WORLD},
        }

    def restore(self, slot: int, saved: dict[str, Any]) -> None:
        """See Engine.restore."""
        self._enter(slot, saved["task"])
        self._physics(slot).restore(self._data[slot], saved["physics"])
        self._targets.put(np.array([slot]), saved["targets"])
        for name in _PER_WORLD:
            getattr(self, name)[slot] = saved[name]

    def close(self) -> None:
        """Nothing to free."""

    def _place(self, slots: np.ndarray, start: Start) -> None:
        self._targets.put(slots, controller.home(len(slots), robot.HOME_JOINTS))
        for row, slot in enumerate(slots):
            self._enter(slot, self.task[slot])
            physics, data = self._physics(slot), self._data[slot]
            physics.place(data, start, row)
            self._command(slot)
            mujoco.mj_forward(physics.model, data)
        self._potential[slots] = self.benchmark.goals.potential(self.task[slots], self.snapshot(slots))

    def _advance(self, worlds: np.ndarray, actions: np.ndarray) -> None:
        period = 1 / self._options.action_frequency
        self._targets.put(worlds, controller.move(self._targets.take(worlds), actions, period, robot.HOME_JOINTS))
        self.steps[worlds] += 1
        for slot in worlds:
            self._command(slot)
            if not self._physics(slot).step(self._data[slot], self._options.substeps):
                task = self.benchmark.tasks[self.task[slot]].name
                raise PhysicsError(
                    f"household: the physics of task {task}, seed {self.seed[slot]} broke down at step "
                    f"{self.steps[slot]}"
                )

    def _judge(self, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Success [a] and reward [a] of the step just made."""
        state, tasks = self.snapshot(worlds), self.task[worlds]
        success = self.benchmark.goals.succeeded(tasks, state)
        reward = success.astype(np.float64)
        if self._options.reward == "dense":
            potential = self.benchmark.goals.potential(tasks, state)
            reward += potential - self._potential[worlds]
            self._potential[worlds] = potential
        return success, reward

    def _physics(self, slot: int) -> Physics:
        """The scene that a world is in."""
        return self._scenes[self.benchmark.scene[self.task[slot]]]

    def _enter(self, slot: int, task: int) -> None:
        """Give a world the data of its task's scene."""
        self.task[slot] = task
        model = self._physics(slot).model
        if self._data[slot].model is not model:
            self._data[slot] = mujoco.MjData(model)

    def _command(self, slot: int) -> None:
        """Hand a world's targets to its actuators."""
        self._physics(slot).command(self._data[slot], self._targets.joints[slot], self._targets.finger[slot])
