"""What the household needs of whatever moves its worlds; `worlds.py` does it with MuJoCo, `warp/` with MuJoCo Warp."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.controller import Targets
from stages.simulators.household.layouts import Start
from stages.simulators.household.state import Snapshot
from stages.simulators.interface import Gallery


@dataclasses.dataclass
class Run:
    """What happened to n worlds in K steps; fields as in ChunkResult."""

    rewards: np.ndarray
    executed: np.ndarray
    success: np.ndarray
    truncated: np.ndarray
    broken: np.ndarray

    @classmethod
    def blank(cls, count: int, length: int) -> Run:
        """Of n = `count` worlds that have not made any of K = `length` steps."""
        rewards, executed = np.zeros((count, length), np.float32), np.zeros((count, length), bool)
        return cls(rewards, executed, *(np.zeros(count, bool) for _ in range(3)))

    def put(self, rows: np.ndarray, values: Run) -> None:
        """Overwrite some worlds of it."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


class Engine(abc.ABC):
    """N worlds: their physics, their controllers' targets, and the judgement on their tasks.

    Attributes:
        name: of the engine below, with its version.
        deterministic: the same episode and actions give the same numbers in any process.
        images: draws what the cameras of the worlds of `slots` [n] see, all at once: uint8 [n, cameras, 3, H, W], good
            until the next call; None: it does not draw, and they are drawn one after another as `view` shows them.
        gpu: UUID of the GPU that `images` draws on, if they can stay there; else None.
        task: int [N], number of each world's task in the benchmark.
        seed: int [N] of each world's episode, named when something goes wrong.
        steps: int [N], made in the episode.
        done: bool [N], the episode is over.
    """

    name: str
    deterministic: bool
    images: Callable[[np.ndarray], np.ndarray] | None = None
    gpu: str | None = None

    def __init__(self, benchmark: Benchmark, num_envs: int) -> None:
        """Nobody is anywhere yet."""
        self.benchmark = benchmark
        self.task = np.zeros(num_envs, dtype=np.int64)
        self.seed = np.zeros(num_envs, dtype=np.int64)
        self.steps = np.zeros(num_envs, dtype=np.int64)
        self.done = np.ones(num_envs, dtype=bool)

    def reset(self, slots: np.ndarray, tasks: np.ndarray, seeds: np.ndarray, start: Start) -> None:
        """Put the worlds of `slots` [n] at the start of episodes, which row by row is in `start`."""
        self.task[slots], self.seed[slots] = tasks, seeds
        self.steps[slots], self.done[slots] = 0, False
        self._place(slots, start)

    @abc.abstractmethod
    def run(self, slots: np.ndarray, actions: np.ndarray) -> Run:
        """Carry out actions [n, K, 14] in the worlds of `slots` [n], until they are done."""

    @abc.abstractmethod
    def snapshot(self, slots: np.ndarray) -> Snapshot:
        """What worlds look like."""

    @abc.abstractmethod
    def targets(self, slots: np.ndarray) -> Targets:
        """Where their controllers send the hands."""

    @abc.abstractmethod
    def view(self, slot: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """A world as MuJoCo's renderer wants it, until the next is asked for."""

    def borrow(self, gallery: Gallery) -> None:
        """Open memory for `hang`; only an engine with a `gpu` is asked to."""
        raise NotImplementedError(self.name)

    def hang(self, slots: np.ndarray) -> None:
        """Draw what `images` would return into the gallery, and wait until it hangs there."""
        raise NotImplementedError(self.name)

    @abc.abstractmethod
    def save(self, slot: int) -> dict[str, Any]:
        """Everything that a world's future depends on."""

    @abc.abstractmethod
    def restore(self, slot: int, saved: dict[str, Any]) -> None:
        """Put a world back to where `save` was called."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free what the engine holds."""

    @abc.abstractmethod
    def _place(self, slots: np.ndarray, start: Start) -> None:
        """Begin the episodes in physics, controller and reward."""
