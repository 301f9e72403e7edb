"""One world of one task of the household, every state of it in view."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import mujoco
import numpy as np

from stages.simulators.household import controller, robot
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.options import parse
from stages.simulators.household.physics import Physics
from stages.simulators.household.state import Snapshot
from stages.simulators.interface import Episode


class Table:
    """The task's physics without the simulator around it."""

    def __init__(self, task: str) -> None:
        self._options = parse({"tasks": [task], "renderer": "raycast"})
        self._task = task
        self.benchmark = Benchmark(self._options)
        self.kit = self.benchmark.kit
        self.physics = Physics(self.benchmark.scenes[0], self.kit, self._options.physics_frequency, 64)
        self.data = mujoco.MjData(self.physics.model)

    def reset(self, seed: int, drawer: float | None = None) -> Snapshot:
        """Set the table, its only drawer open by `drawer` metres where that is given."""
        start = self.benchmark.start([Episode(self._task, seed)])
        if drawer is not None:
            start = dataclasses.replace(start, drawer=np.array([[drawer]]))
        mujoco.mj_resetData(self.physics.model, self.data)
        self.physics.place(self.data, start, 0)
        self._targets = controller.home(1, robot.HOME_JOINTS)
        self._command()
        mujoco.mj_forward(self.physics.model, self.data)
        self._memory = self.benchmark.begin(np.zeros(1, int), self.state())
        return self.state()

    def state(self) -> Snapshot:
        """What the table looks like."""
        state = self.kit.empty(1)
        self.physics.read(self.data, state, 0)
        self.kit.locate(state)
        return state

    def wait(self, seconds: float) -> Snapshot:
        """Let physics go on while the arms rest."""
        assert self.physics.step(self.data, round(seconds * self._options.physics_frequency))
        return self.state()

    def expert(self, lame: int | None = None) -> Iterator[Snapshot]:
        """The states after each of the expert's steps until the task is solved or the episode over.

        Args:
            lame: the arm (0 left, 1 right) that does not carry out what the expert wants.
        """
        for _ in range(self.benchmark.step_limit[0]):
            actions, self._memory = self.benchmark.act(np.zeros(1, int), self.state(), self._targets, self._memory)
            if lame is not None:
                actions[:, 7 * lame : 7 * lame + 7] = 0.0
            period = 1 / self._options.action_frequency
            self._targets = controller.move(self._targets, actions, period, robot.HOME_JOINTS)
            self._command()
            assert self.physics.step(self.data, self._options.substeps)
            yield self.state()
            if self.solved():
                return

    def solved(self) -> bool:
        """Whether the task is solved."""
        return bool(self.benchmark.goals.succeeded(np.zeros(1, int), self.state())[0])

    def gap_between_arms(self) -> float:
        """Least distance between a part of the left and a part of the right arm, in metres; negative if they meet."""
        model = self.physics.model
        names = [model.body(body).name for body in model.geom_bodyid]
        parts = [tuple(f"{side}_{part}" for part in ("link", "hand", "finger")) for side in robot.SIDES]
        left, right = ([i for i, name in enumerate(names) if name.startswith(part)] for part in parts)
        return min(mujoco.mj_geomDistance(model, self.data, a, b, 1.0, None) for a in left for b in right)

    def _command(self) -> None:
        self.physics.command(self.data, self._targets.joints[0], self._targets.finger[0])
