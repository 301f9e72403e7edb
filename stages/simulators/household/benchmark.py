"""The tasks of a config, compiled to arrays: what every backend of the household takes its task logic from."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from stages.simulators.household import catalogue, controller, suites
from stages.simulators.household.expert import act, progress, tables
from stages.simulators.household.goals import Goals
from stages.simulators.household.kit import Kit
from stages.simulators.household.layouts import Layouts, Start
from stages.simulators.household.options import Options
from stages.simulators.household.state import Snapshot
from stages.simulators.interface import Episode, Task

LAYOUT_STREAM, EXPERT_STREAM = 0, 1


class Benchmark:
    """T tasks; a task is named by its number in `tasks`.

    Attributes:
        tasks: names and instructions.
        scenes: the scenes that there are, each once.
        scene: int [T], which scene a task takes place in.
        step_limit: int [T].
        kit: objects, drawers and frames of all scenes.
        goals: what solves the tasks.
    """

    def __init__(self, options: Options) -> None:
        """Define and compile the tasks of a config."""
        self.tasks = tuple(Task(name, catalogue.entries()[name].instruction) for name in options.tasks)
        self._numbers = {task.name: i for i, task in enumerate(self.tasks)}
        definitions = suites.definitions(options.tasks, options)
        self.scenes = tuple(dict.fromkeys(definition.scene for definition in definitions))
        self.scene = np.array([self.scenes.index(definition.scene) for definition in definitions])
        limits = [options.max_episode_steps or definition.step_limit for definition in definitions]
        self.step_limit = np.array(limits)
        self.kit = Kit(self.scenes)
        self.goals = Goals(self.kit, [definition.goal for definition in definitions])
        scenes, layouts = [d.scene for d in definitions], [d.layout for d in definitions]
        self._layouts = Layouts(self.kit, scenes, layouts, options.spread)
        self._plans = tables.compile_plans(self.kit, self.goals, [definition.plan for definition in definitions])
        self._period = 1 / options.action_frequency

    def number(self, name: str) -> int:
        """Number of a task."""
        return self._numbers[name]

    def start(self, episodes: Sequence[Episode]) -> Start:
        """Where everything is at the start of N episodes; those of a group are the same and drawn once."""
        rows = {episode: row for row, episode in enumerate(dict.fromkeys(episodes))}
        streams = [generator(episode, LAYOUT_STREAM) for episode in rows]
        drawn = self._layouts.sample(np.array([self.number(episode.task) for episode in rows]), streams)
        return drawn.take(np.array([rows[episode] for episode in episodes]))

    def no_memory(self, count: int) -> progress.Memory:
        """Room for what the experts of N = `count` worlds remember."""
        return progress.blank(count, self._plans)

    def begin(self, tasks: np.ndarray, state: Snapshot) -> progress.Memory:
        """What the experts of N worlds at their start remember."""
        return progress.begin(self._plans, self.goals, tasks, state)

    def act(
        self, tasks: np.ndarray, state: Snapshot, targets: controller.Targets, memory: progress.Memory
    ) -> tuple[np.ndarray, progress.Memory]:
        """The experts' actions [N, 14], and what they remember; see expert.act.act."""
        return act.act(self._plans, self.goals, tasks, state, targets, memory, self._period)

    def perturb(
        self, actions: np.ndarray, memory: progress.Memory, streams: list[np.random.Generator], probability: float
    ) -> tuple[np.ndarray, np.ndarray, progress.Memory]:
        """Perturbed actions, which are not, and what the experts remember; see expert.act.perturb."""
        return act.perturb(self._plans, actions, memory, streams, probability)


def generator(episode: Episode, stream: int) -> np.random.Generator:
    """The random stream of an episode: the same task, seed and stream number give the same numbers in any process."""
    seed = np.random.SeedSequence([episode.seed, zlib.crc32(episode.task.encode()), stream])
    return np.random.Generator(np.random.Philox(seed))
