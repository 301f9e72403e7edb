"""The worlds of a process, behind one interface for the generations of OmniGibson's.

`vector_worlds` has 3.7 and 3.8, `scene_worlds` 3.9. Physics and rendering are those of the whole process in both.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import environment_config, instances, robot, rooms
from stages.simulators.omnigibson.actions import ActionMapping
from stages.simulators.omnigibson.dataset import ActivityFiles
from stages.simulators.omnigibson.observations import to_numpy
from stages.simulators.omnigibson.options import Options


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a step brought to a world.

    Attributes:
        reward: the task's potential difference.
        success: the goal is reached.
        terminated: a condition other than the step limit ended the episode.
        truncated: the step limit did.
    """

    reward: float
    success: bool
    terminated: bool
    truncated: bool


class Worlds(abc.ABC):
    """N worlds of one activity.

    Attributes:
        generation: "B" or "C".
        version: of OmniGibson.
        environment: OmniGibson's own object.
        card: Kit's index of the graphics card.
        files: of the activity.
    """

    environment: Any

    def __init__(self, omnigibson: Any, generation: str, options: Options, num_envs: int, card: int | None) -> None:
        """Note what is used; `enter` builds."""
        self._og, self.generation, self._options = omnigibson, generation, options
        self.num_envs, self.card = num_envs, card
        self.version = str(omnigibson.__version__)
        self.files: ActivityFiles
        self._instances: list[int] = []

    def enter(self, files: ActivityFiles) -> None:
        """Build the worlds of an activity, in place of those of another."""
        if self._og.sim is not None:
            self._og.clear()
        start = rooms.start_of(files.activity.name)
        loaded = rooms.rooms_of(files.activity.name, files.scene_model, self._options)
        self._build(environment_config.build(self._options, files, loaded, start, self.generation))
        self.files, self._instances = files, [0] * self.num_envs
        self._fit_out()
        for slot in range(self.num_envs):
            self.reset(slot, 0)

    @property
    def robots(self) -> list[Any]:
        """The robot of each world."""
        return [self.scene(slot).robots[0] for slot in range(self.num_envs)]

    def joints(self, slot: int) -> np.ndarray:
        """Where a robot's joints are, [28]."""
        return to_numpy(self.robots[slot].get_joint_positions()).astype(np.float64)

    def reset(self, slot: int, instance: int) -> None:
        """Put a world at the start of an instance; `settle` has to follow.

        Raises:
            SimulatorConfigError: the instance has no file.
        """
        self._reset(slot)
        if instance != self._instances[slot]:
            path: Path = self.files.file_of(instance)
            instances.load(path, self._og.sim, self.scene(slot), self.scope(slot), self.robots[slot])
            self._instances[slot] = instance
            self._reset(slot)

    def settle(self) -> None:
        """The one step that OmniGibson makes after a reset; it is part of no episode."""
        with self._og.sim.render_on_step(False):
            self._og.sim.step()

    def shut_down(self) -> None:
        """End Isaac Sim, and with it this process."""
        self._og.shutdown()

    def command(self, slot: int, command: np.ndarray) -> None:
        """Give a robot a command without a step."""
        torch = importlib.import_module("torch")
        self.robots[slot].apply_action(torch.from_numpy(command))

    def step(self, commands: np.ndarray, draw: bool) -> list[Outcome]:
        """Advance all worlds by a step.

        Args:
            commands: float32 [N, robot's action numbers].
            draw: whether pictures are drawn.
        """
        draw = draw or self._options.render_every_step
        rewards, infos = self._step(commands, draw)
        return [_outcome(float(reward), info) for reward, info in zip(rewards, infos, strict=True)]

    def render(self, times: int) -> None:
        """Draw the cameras of all worlds."""
        for _ in range(times):
            self._og.sim.render()

    def predicates(self, slot: int) -> list[list[bool]]:
        """Which predicates of the goal hold, by the ways to ground it."""
        task = self.task(slot)
        if hasattr(task, "get_goal_option_satisfaction"):  # late 3.9
            return [[bool(one) for one in option] for option in task.get_goal_option_satisfaction(self._place(slot))]
        options = task.ground_goal_state_options
        # bddl before 3.7 knows the objects by itself
        told = inspect.signature(options[0][0].evaluate).parameters
        arguments = [task._evaluate_predicate] if told else []
        return [[bool(head.evaluate(*arguments)) for head in option] for option in options]

    @abc.abstractmethod
    def scene(self, slot: int) -> Any:
        """The scene of a world."""

    @abc.abstractmethod
    def task(self, slot: int) -> Any:
        """The task object of a world."""

    @abc.abstractmethod
    def scope(self, slot: int) -> Mapping[str, Any]:
        """BDDL name -> object of a world."""

    @abc.abstractmethod
    def look(self, slot: int) -> Mapping[str, Any]:
        """What a world's sensors show, as it was drawn last."""

    @abc.abstractmethod
    def _build(self, config: dict[str, Any]) -> None: ...

    @abc.abstractmethod
    def _place(self, slot: int) -> int:
        """Which of its task's worlds a world is."""

    @abc.abstractmethod
    def _reset(self, slot: int) -> None: ...

    @abc.abstractmethod
    def _step(self, commands: np.ndarray, draw: bool) -> tuple[Sequence[Any], Sequence[Mapping[str, Any]]]: ...

    def _fit_out(self) -> None:
        """Check the robots, and give them what the demonstrations were made with."""
        mapping = ActionMapping(self._options.action_mode, self._options.trunk)
        for one in self.robots:
            dims = {name: int(controller.command_dim) for name, controller in one.controllers.items()}
            mapping.check(list(one.controller_order), dims, int(one.action_dim))
            for name, sensor in one.sensors.items():
                if name.endswith(robot.HEAD):
                    sensor.horizontal_aperture = robot.HEAD_APERTURE
        if self._options.base_mass is not None:
            with self._og.sim.stopped():
                for one in self.robots:
                    one.base_footprint_link.mass = self._options.base_mass

    @contextlib.contextmanager
    def _unseeing(self, environments: Sequence[Any], nothing: Any) -> Iterator[None]:
        """Have steps of builds without a keyword for it skip the sensors, unless they are wanted."""
        if not self._options.observe_every_step:
            for environment in environments:
                environment.get_obs = lambda *arguments, **keywords: nothing
        try:
            yield
        finally:
            for environment in environments:
                vars(environment).pop("get_obs", None)  # the method is there again


def _outcome(reward: float, info: Mapping[str, Any]) -> Outcome:
    done = info.get("done", {})
    if "success" not in done:
        raise SimulatorConfigError(
            f"omnigibson: info of a step has no done/success (it has {', '.join(info)}): this build tells outcomes "
            "otherwise; run `baton doctor --simulator omnigibson CONFIG`"
        )
    # Some builds leave the booleans that `step` returns False, so the conditions themselves are read.
    conditions = {name: bool(one["done"]) for name, one in done["termination_conditions"].items()}
    truncated = conditions.pop("timeout", False)
    return Outcome(reward, bool(done["success"]), any(conditions.values()), truncated)
