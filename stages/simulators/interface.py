"""What every simulator offers: a row of worlds that are reset, observed and stepped by chunks of actions.

A simulator lives in a worker process under its own interpreter (`simulator.python`), so this package imports numpy and
the simulator itself, nothing else of Baton, and is written for Python 3.10. One worker may host one world or a
thousand: every array below has a leading world axis N, and a world is named by its slot in `range(num_envs)`.

Shapes: N worlds, K actions a chunk, A action numbers, P proprioception numbers, V wrist cameras, H x W camera pixels.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HELD_OUT = 2**31  # episodes of smaller seeds are for training, from here on for evaluation


def split_of(seed: int) -> str:
    """Which initial states an episode's seed belongs to: `train` or `evaluation`."""
    return "evaluation" if seed >= HELD_OUT else "train"


class SimulatorConfigError(ValueError):
    """The user asked for something this simulator does not have; the message says what it has."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing the robot can be asked to do."""

    name: str
    instruction: str


@dataclasses.dataclass(frozen=True)
class Episode:
    """What a world is reset to: the same task and seed give the same initial state in any process."""

    task: str
    seed: int


@dataclasses.dataclass
class Observation:
    """What a policy sees at a decision.

    Attributes:
        head: uint8 [N, 3, H, W], RGB of the head camera.
        wrist: uint8 [N, V, 3, H, W], RGB of the wrist cameras: left and right, the only one, or none (V = 0).
        proprio: float32 [N, P].
    """

    head: np.ndarray
    wrist: np.ndarray
    proprio: np.ndarray


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Memory of a GPU that a stage lends its simulators for the images of all worlds: uint8 [worlds, 1 + V, 3, H, W].

    Attributes:
        handle: what the driver opens it by in another process (cuIpcGetMemHandle).
        worlds: of all workers together.
        first: row of the worker's first world; the others follow in the order of their slots.
    """

    handle: bytes
    worlds: int
    first: int = 0


@dataclasses.dataclass
class ChunkResult:
    """What happened while a chunk of actions ran.

    A world stops at the step that succeeds or exhausts its step limit: the rest of its chunk is not executed.

    Attributes:
        rewards: float32 [N, K], zero where not executed.
        executed: bool [N, K], which actions of the chunk were carried out.
        success: bool [N], the task's predicate held at the last executed step.
        terminated: bool [N], the episode ended by itself (success or failure).
        truncated: bool [N], the episode ran into its step limit.
        frames: one list a world of uint8 [448, 672, 3] RGB frames, one an executed step; empty unless the world is
            filmed.
        scores: float32 [N], how much of its task a world has done, from 0 to 1; None: not measured here.
        broken: bool [N], the physics of a world broke down: it is back before that step, and its episode truncated;
            None: not looked for here.
    """

    rewards: np.ndarray
    executed: np.ndarray
    success: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    frames: list[list[np.ndarray]]
    scores: np.ndarray | None = None
    broken: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SimulatorSpec:
    """What a simulator tells of itself once it is up.

    Attributes:
        name: its name in a config.
        version: version of the simulator and of the engine below it.
        renderer: what draws the images.
        tasks: the tasks it was made for, in the config's order.
        action_dim: A.
        proprio_dim: P.
        image_size: (H, W) of every camera.
        max_episode_steps: step limit of an episode.
        deterministic: the same episode and actions give the same numbers in any process.
        one_clock: time passes for all worlds of a process whenever it does for one, so none may wait for another.
        wrist_cameras: V, from 0 to 2.
        gpu: UUID of the GPU that it draws on, if images can stay there (`Simulator.borrow`); else None.
    """

    name: str
    version: str
    renderer: str
    tasks: tuple[Task, ...]
    action_dim: int
    proprio_dim: int
    image_size: tuple[int, int]
    max_episode_steps: int
    deterministic: bool
    one_clock: bool = False
    wrist_cameras: int = 2
    gpu: str | None = None

    def looks(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Type and shape of each part of an `Observation` of one world."""
        image = (3, *self.image_size)
        return {
            "head": (np.uint8, image),
            "wrist": (np.uint8, (self.wrist_cameras, *image)),
            "proprio": (np.float32, (self.proprio_dim,)),
        }


class Simulator(abc.ABC):
    """A row of worlds advanced together.

    Attributes:
        spec: what it tells of itself.
        num_envs: N.
        borrows: it has been lent a gallery.
    """

    spec: SimulatorSpec
    num_envs: int
    borrows: bool = False

    @abc.abstractmethod
    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        """Put the worlds of `slots` at the start of `episodes`; a filmed world returns frames from then on."""

    @abc.abstractmethod
    def observe(self, slots: Sequence[int]) -> Observation:
        """Render and return what the worlds of `slots` look like now, in their order; good until the next call."""

    def borrow(self, gallery: Gallery) -> None:
        """Be lent memory for `hang`; only one whose `spec` names a GPU is."""
        raise NotImplementedError(f"simulator {self.spec.name} returns its images")

    def hang(self, slots: Sequence[int]) -> np.ndarray:
        """Render into the gallery what `observe` would return, and be done when this returns: head camera, then wrists.

        Args:
            slots: n worlds, each with a row in the gallery.

        Returns:
            Proprioception, float32 [n, P].
        """
        raise NotImplementedError(f"simulator {self.spec.name} returns its images")

    @abc.abstractmethod
    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """Carry out a chunk of actions; no image is rendered except the frames of filmed worlds.

        Args:
            slots: the worlds to step, n of them.
            actions: float32 [n, K, A] in [-1, 1].

        Returns:
            The outcome, rows in the order of `slots`.
        """

    @abc.abstractmethod
    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        """Let the scripted expert act for a chunk, closed loop, step by step.

        Args:
            slots: the worlds to step, n of them.
            length: K, steps in the chunk.

        Returns:
            actions: float32 [n, K, A] in [-1, 1] as executed (the last executed action is held where not executed).
            clean: bool [n, K], False where the expert's action was perturbed to visit states off its path.
            result: the outcome, as `step_chunk` gives it.
        """

    @abc.abstractmethod
    def save_state(self, slot: int) -> bytes:
        """Everything needed to put a world back exactly where it is."""

    @abc.abstractmethod
    def restore_state(self, slot: int, state: bytes) -> None:
        """Put a world back to where `save_state` was called."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the simulator."""


def make(name: str, num_envs: int, options: Mapping[str, Any]) -> Simulator:
    """Build the simulator called `name` with its own options (the fields of its config block).

    Args:
        name: folder name under `stages/simulators`, or the full name of a module elsewhere, e.g. "lab.worlds".
        num_envs: N, how many worlds.
        options: passed to the simulator's `make(num_envs, options)`.

    Raises:
        SimulatorConfigError: no simulator has this name, or an option is wrong.
    """
    import importlib
    import importlib.util

    package = name if "." in name else f"stages.simulators.{name}"
    if not all(part.isidentifier() for part in name.split(".")):
        raise SimulatorConfigError(f"no simulator is called {name!r}")
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError as error:  # a package on the way to it is missing
        raise SimulatorConfigError(f"no simulator is called {name!r}: {error}") from error
    if found is None:
        raise SimulatorConfigError(f"no simulator is called {name!r}")
    simulator: Simulator = importlib.import_module(package).make(num_envs, options)
    return simulator
