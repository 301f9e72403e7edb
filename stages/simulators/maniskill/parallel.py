"""ManiSkill on a GPU (physx_cuda): all worlds in one environment, stepped and drawn together.

This never ran on a GPU: PhysX's GPU library was out of reach. Its tests run it over physx_cpu with one world, and over
a stand-in for ManiSkill's environment with many; what is peculiar to the GPU follows ManiSkill's source.

An episode of a seed begins in the same way in any of the worlds, but otherwise than on the CPU, because torch draws
other numbers on a GPU. Whatever steps one world steps all: a world whose episode is over, or that is not asked for, is
stepped with the others and put back to where it was at the end of the chunk, so that nobody sees it move.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from stages.simulators.interface import (
    ChunkResult,
    Episode,
    Observation,
    Simulator,
    SimulatorConfigError,
    SimulatorSpec,
)
from stages.simulators.maniskill import expert, physx_library
from stages.simulators.maniskill.chunks import blank
from stages.simulators.maniskill.options import Options
from stages.simulators.maniskill.worlds import Outcome, State, Worlds, rows_of

_NEVER_RESET = -1

_SEEDS = 2**32  # numpy's generator takes no larger one
_HEAD_FRAME, _HAND_FRAME = 448, 224
# These draw the sizes of things when the scene is built, world by world, and not when an episode begins.
_UNLIKE_WORLDS = ("PegInsertionSide-v1",)

Policy = Callable[[np.ndarray, int], np.ndarray]


def build(num_envs: int, options: Options, drawn_by: str, renderer: str) -> Parallel:
    """Build N = `num_envs` worlds on the GPU.

    Args:
        num_envs: N.
        options: the simulator's.
        drawn_by: gpu or cpu.
        renderer: the device that draws, in words.

    Raises:
        SimulatorConfigError: PhysX cannot run on a GPU here, or not these tasks with this renderer.
    """
    from stages.simulators.maniskill import environment  # which loads ManiSkill, and SAPIEN without its warnings

    import sapien  # isort: skip

    physx_library.require(torch.cuda.device_count(), sapien.physx.version(), Path.home())
    check(options, drawn_by)
    worlds = Worlds(environment.build(options.tasks[0], options, drawn_by, num_envs), options.tasks[0])
    return Parallel(worlds, environment.spec(options, renderer), options)


def check(options: Options, drawn_by: str) -> None:
    """Refuse what physx_cuda cannot do.

    Raises:
        SimulatorConfigError: with what to change.
    """
    if drawn_by != "gpu":
        raise SimulatorConfigError(
            f"maniskill: renderer is {options.renderer!r}, which draws on the CPU here; physx_cuda draws on the GPU: "
            "set renderer: gpu, or take physx_cpu"
        )
    if options.tasks[0] in _UNLIKE_WORLDS:
        raise SimulatorConfigError(
            f"maniskill: the worlds of {options.tasks[0]} differ from each other, whatever their seeds, on physx_cuda; "
            "take physx_cpu"
        )


class Parallel(Simulator):
    """N worlds that share one clock and one task."""

    def __init__(self, worlds: Worlds, spec: SimulatorSpec, options: Options) -> None:
        """Take over worlds; each of them has to be reset before it is used.

        Args:
            worlds: N of them.
            spec: what to tell of them.
            options: the simulator's.
        """
        self.spec, self.num_envs = spec, worlds.count
        self._worlds, self._options = worlds, options
        self._steps = np.full(worlds.count, _NEVER_RESET)
        self._done = np.ones(worlds.count, dtype=bool)
        self._film = np.zeros(worlds.count, dtype=bool)
        self._frame: list[np.ndarray | None] = [None] * worlds.count
        self._memory = expert.begin(worlds.count)
        self._streams = [np.random.default_rng(0) for _ in range(worlds.count)]

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        """See Simulator.reset."""
        for episode in episodes:
            if episode.task != self._worlds.task:
                raise SimulatorConfigError(f"maniskill: no task {episode.task!r} here; tasks: {self._worlds.task}")
            if not 0 <= episode.seed < _SEEDS:
                raise SimulatorConfigError(f"maniskill: no seed {episode.seed}; seeds are from 0 to {_SEEDS - 1}")
        for slot, episode, filmed in zip(slots, episodes, film, strict=True):
            self._worlds.reset(slot, episode.seed)
            self._steps[slot], self._done[slot], self._film[slot] = 0, False, filmed
            self._streams[slot], self._frame[slot] = expert.stream(episode), None
        self._memory.put(np.asarray(slots, dtype=np.int64), expert.begin(len(slots)))

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe; images stay on the GPU until the asked ones are handed over."""
        rows = torch.as_tensor(self._rows(slots), device=self._worlds.device)
        head, wrist = self._worlds.look()
        return Observation(
            head=head[rows].contiguous().cpu().numpy(),
            wrist=wrist[rows].contiguous().cpu().numpy(),
            proprio=self._worlds.proprioception()[rows].cpu().numpy(),
        )

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """See Simulator.step_chunk."""
        expected = (len(slots), self.spec.action_dim)
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected:
            raise ValueError(f"actions are {list(actions.shape)}, not [{expected[0]}, K, {expected[1]}]")
        if not np.isfinite(actions).all():
            raise ValueError("an action is not a finite number")
        return self._run(self._rows(slots), actions.shape[1], lambda active, step: actions[active, step])

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        """See Simulator.expert_chunk.

        Raises:
            SimulatorConfigError: the task has no expert.
        """
        expert.require(self._worlds.task)
        rows = self._rows(slots)
        actions = np.zeros((len(rows), length, self.spec.action_dim), dtype=np.float32)
        clean = np.ones((len(rows), length), dtype=bool)

        def decide(active: np.ndarray, step: int) -> np.ndarray:
            chosen, clean[active, step] = self._expert_step(rows[active])
            # Later steps hold the last executed action until they are executed themselves.
            actions[active, step:] = chosen[:, None]
            return chosen

        result = self._run(rows, length, decide)
        return actions, clean, result

    def save_state(self, slot: int) -> bytes:
        """See Simulator.save_state; as exact as `Worlds.put`."""
        return pickle.dumps(
            {
                "physics": rows_of(self._worlds.state(), [slot]),
                "memory": self._memory.take(np.array([slot])),
                "stream": self._streams[slot].bit_generator.state,
                "steps": self._steps[slot],
                "done": self._done[slot],
                "film": self._film[slot],
                "frame": self._frame[slot],
            }
        )

    def restore_state(self, slot: int, state: bytes) -> None:
        """See Simulator.restore_state."""
        saved = pickle.loads(state)
        everywhere = self._worlds.state()
        for kind, named in saved["physics"].items():
            for name, row in named.items():
                everywhere[kind][name][slot] = torch.as_tensor(row[0], device=self._worlds.device)
        self._worlds.put([slot], everywhere)
        self._memory.put(np.array([slot]), saved["memory"])
        self._streams[slot].bit_generator.state = saved["stream"]
        self._steps[slot], self._done[slot] = saved["steps"], saved["done"]
        self._film[slot], self._frame[slot] = saved["film"], saved["frame"]

    def close(self) -> None:
        """See Simulator.close."""
        self._worlds.close()

    def _run(self, rows: np.ndarray, length: int, decide: Policy) -> ChunkResult:
        """Step worlds through a chunk; `decide` gives the actions [a, A] of the still active rows [a] at a step."""
        result = blank(len(rows), length)
        commands = np.zeros((self.num_envs, self.spec.action_dim), dtype=np.float32)
        resting = np.ones(self.num_envs, dtype=bool)
        resting[rows[~self._done[rows]]] = False
        kept = self._worlds.state()
        for step in range(length):
            active = np.flatnonzero(~self._done[rows])
            if not len(active):
                break
            playing = rows[active]
            commands[playing] = decide(active, step)
            outcome = self._worlds.step(torch.as_tensor(commands, device=self._worlds.device))
            self._note(result, step, active, playing, outcome)
            self._shoot(result, active, playing)
            stopped = playing[self._done[playing]]
            if len(stopped):
                _copy_rows(self._worlds.state(), kept, stopped)
                commands[stopped], resting[stopped] = 0.0, True
        if resting.any() and result.executed.any():
            self._worlds.put(np.flatnonzero(resting).tolist(), kept)
        return result

    def _note(self, result: ChunkResult, step: int, active: np.ndarray, playing: np.ndarray, outcome: Outcome) -> None:
        """Write down what a step brought to the worlds that are playing."""
        reward, success, failure = (
            part.cpu().numpy()[playing] for part in (outcome.reward, outcome.success, outcome.failure)
        )
        self._steps[playing] += 1
        late = self._steps[playing] >= self.spec.max_episode_steps
        result.rewards[active, step] = np.maximum(reward, 0.0)  # of ManiSkill's sparse one: a failure is -1
        result.executed[active, step] = True
        result.success[active] = success
        result.terminated[active] = success | failure
        result.truncated[active] = late & ~result.terminated[active]
        self._done[playing] = result.terminated[active] | result.truncated[active]

    def _shoot(self, result: ChunkResult, active: np.ndarray, playing: np.ndarray) -> None:
        """Add a frame to the films of the worlds that have just acted; one between the drawn ones is the one before."""
        filmed = np.flatnonzero(self._film[playing])
        every = self._options.action_frequency // self._options.rendering_frequency
        slots = playing[filmed]
        due = self._done[slots] | (self._steps[slots] % every == 1 % every)
        due |= np.array([self._frame[slot] is None for slot in slots], dtype=bool)
        if due.any():
            rows = torch.as_tensor(slots[due], device=self._worlds.device)
            head, wrist = self._worlds.look()
            drawn = frames(head[rows], wrist[rows]).cpu().numpy()
            for slot, frame in zip(slots[due], drawn, strict=True):
                self._frame[slot] = frame
        for row, slot in zip(active[filmed], slots, strict=True):
            result.frames[row].append(self._frame[slot])

    def _expert_step(self, playing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The expert's actions [a, A] and whether they are its own [a]."""
        task, memory = self._worlds.task, self._memory.take(playing)
        actions, memory = expert.act(task, self._worlds.sight().take(playing), memory)
        clean = np.ones(len(playing), dtype=bool)
        if self._options.expert_perturbation > 0:
            streams = [self._streams[slot] for slot in playing]
            actions, clean, memory = expert.perturb(task, actions, memory, streams, self._options.expert_perturbation)
        self._memory.put(playing, memory)
        return actions.astype(np.float32), clean

    def _rows(self, slots: Sequence[int]) -> np.ndarray:
        rows = np.asarray(slots, dtype=np.int64)
        if (self._steps[rows] == _NEVER_RESET).any():
            raise ValueError(f"worlds {rows[self._steps[rows] == _NEVER_RESET].tolist()} were never reset")
        return rows


def frames(head: torch.Tensor, wrist: torch.Tensor) -> torch.Tensor:
    """Frames of films, uint8 [n, 448, 672, 3], of what a policy sees, enlarged: cameras at the hands on the left.

    Args:
        head: uint8 [n, 3, H, W].
        wrist: uint8 [n, V, 3, H, W], V at most 2.
    """
    whole = torch.zeros((len(head), 3, _HEAD_FRAME, _HAND_FRAME + _HEAD_FRAME), dtype=torch.uint8, device=head.device)
    whole[..., _HAND_FRAME:] = _enlarged(head, _HEAD_FRAME)
    for i in range(wrist.shape[1]):
        whole[:, :, i * _HAND_FRAME : (i + 1) * _HAND_FRAME, :_HAND_FRAME] = _enlarged(wrist[:, i], _HAND_FRAME)
    return whole.permute(0, 2, 3, 1)


def _enlarged(pictures: torch.Tensor, size: int) -> torch.Tensor:
    scaled = torch.nn.functional.interpolate(pictures.float(), size=(size, size), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _copy_rows(source: State, target: State, rows: np.ndarray) -> None:
    """Overwrite some worlds' part of a state by that of another."""
    for kind, named in source.items():
        for name, values in named.items():
            target[kind][name][rows] = values[rows]
