"""A simulator for tests: worlds are a few numbers driven by the actions, and trouble happens on demand, once each."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.simulators.interface import (
    ChunkResult,
    Episode,
    Gallery,
    Observation,
    Simulator,
    SimulatorConfigError,
    SimulatorSpec,
    Task,
)

ACTIONS, PROPRIO, LIMIT = 3, 5, 20


@dataclasses.dataclass
class World:
    state: np.ndarray
    random: np.random.Generator
    goal: int
    film: bool
    step: int = 0


class Counting(Simulator):
    def __init__(self, num_envs: int, options: Mapping[str, Any]) -> None:
        known = {
            "refuses",
            "trouble",
            "at",
            "at_reset",
            "marker",
            "delay",
            "reset_delay",
            "close_delay",
            "image",
            "wrists",
        }
        unknown = set(options) - known
        if unknown:
            raise SimulatorConfigError(f"simulator.{unknown.pop()}: the counting simulator has no such option")
        self.num_envs = num_envs
        self.trouble, self.at, self.at_reset = options.get("trouble"), options.get("at", 0), options.get("at_reset")
        self.marker = Path(options["marker"]) if "marker" in options else None
        self.delay, self.close_delay = options.get("delay", 0.0), options.get("close_delay", 0.0)
        self.reset_delay = options.get("reset_delay", 0.0)
        image = options.get("image", 8)
        tasks = (Task("count", "count the steps"),)
        self.spec = SimulatorSpec(
            *("counting", "1", "none", tasks, ACTIONS, PROPRIO, (image, image), LIMIT, True),
            wrist_cameras=options.get("wrists", 2),
            gpu=os.environ.get("GPU_FOR_TESTS"),
        )
        self.refuses = options.get("refuses", False)
        self.worlds: list[World | None] = [None] * num_envs
        self.calls = 0
        if self.trouble == "no start":
            raise RuntimeError("no graphics card")
        print("counting is up\n", end="", flush=True)  # in one write: several workers share a pipe

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        time.sleep(self.reset_delay)
        for slot, episode, filmed in zip(slots, episodes, film, strict=True):
            if episode.seed == self.at_reset:
                self._make_trouble(None)
            if episode.task != "count":
                raise SimulatorConfigError(f"the counting simulator has no task {episode.task!r}; it has count")
            random = np.random.default_rng(episode.seed)
            # Worlds whose seed is a multiple of four run into the step limit.
            goal = 3 + episode.seed % 15 if episode.seed % 4 else LIMIT + 1
            self.worlds[slot] = World(random.random(PROPRIO), random, goal, filmed)

    def observe(self, slots: Sequence[int]) -> Observation:
        states = np.stack([self._world(slot).state for slot in slots])
        pixels = (states[:, 0] * 1e6).astype(np.int64).astype(np.uint8)
        (height, width), count = self.spec.image_size, len(slots)
        head = np.broadcast_to(pixels[:, None, None, None], (count, 3, height, width)).copy()
        wrists = (count, self.spec.wrist_cameras, 3, height, width)
        wrist = np.broadcast_to(pixels[:, None, None, None, None] + np.uint8(1), wrists).copy()
        return Observation(head, wrist, states.astype(np.float32))

    def borrow(self, gallery: Gallery) -> None:
        if self.refuses:
            raise SimulatorConfigError("the counting simulator opens nothing")
        shape = (gallery.worlds, 1 + self.spec.wrist_cameras, 3, *self.spec.image_size)
        # Instead of a GPU's memory a file, which its handle names.
        rows = np.memmap(gallery.handle.decode(), np.uint8, "r+", shape=shape)
        self.gallery, self.borrows = rows[gallery.first : gallery.first + self.num_envs], True

    def hang(self, slots: Sequence[int]) -> np.ndarray:
        seen = self.observe(slots)
        self.gallery[list(slots)] = np.concatenate([seen.head[:, None], seen.wrist], axis=1)
        return seen.proprio

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        return self._run(slots, actions.shape[1], lambda row, step, world: actions[row, step])[0]

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        def act(row: int, step: int, world: World) -> np.ndarray:
            return world.random.uniform(-1, 1, ACTIONS).astype(np.float32)

        result, actions = self._run(slots, length, act)
        return actions, actions[:, :, 0] < 0.5, result

    def _run(self, slots: Sequence[int], length: int, act: Any) -> tuple[ChunkResult, np.ndarray]:
        time.sleep(self.delay)
        count = len(slots)
        result = ChunkResult(
            rewards=np.zeros((count, length), np.float32),
            executed=np.zeros((count, length), np.bool_),
            success=np.zeros(count, np.bool_),
            terminated=np.zeros(count, np.bool_),
            truncated=np.zeros(count, np.bool_),
            frames=[[] for _ in slots],
        )
        actions = np.zeros((count, length, ACTIONS), np.float32)
        for row, slot in enumerate(slots):
            world = self._world(slot)
            for step in range(length):
                actions[row, step] = act(row, step, world)
                world.state = 0.9 * world.state + np.resize(actions[row, step], PROPRIO) * world.random.random()
                world.step += 1
                result.rewards[row, step] = world.state.sum()
                result.executed[row, step] = True
                if world.film:
                    result.frames[row].append(np.full((448, 672, 3), world.step, np.uint8))
                result.success[row] = result.terminated[row] = world.step == world.goal
                result.truncated[row] = world.step == LIMIT
                if result.terminated[row] or result.truncated[row]:
                    break
        self.calls += 1
        if self.calls == self.at:
            self._make_trouble(result)
        return result, actions

    def _make_trouble(self, result: Any) -> None:
        if self.marker is not None:
            if self.marker.exists():
                return
            self.marker.touch()
        print("trouble ahead", flush=True)
        if self.trouble == "crash":
            os._exit(7)
        elif self.trouble == "segfault":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.trouble == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        elif self.trouble == "hold":
            ctypes.PyDLL(None).sleep(1000)  # keeps Python's lock: no other thread runs
        elif self.trouble == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.trouble == "nan":
            result.rewards[0, 0] = np.nan
        elif self.trouble == "raise":
            raise RuntimeError("the engine lost its contacts")
        elif self.trouble == "shape":
            result.rewards = result.rewards[:, 1:]
        elif self.trouble == "dtype":
            result.success = result.success.astype(np.int64)
        elif self.trouble == "type":
            result.executed = result.executed.tolist()

    def _world(self, slot: int) -> World:
        world = self.worlds[slot]
        assert world is not None
        return world

    def save_state(self, slot: int) -> bytes:
        raise NotImplementedError

    def restore_state(self, slot: int, state: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        time.sleep(self.close_delay)


def make(num_envs: int, options: Mapping[str, Any]) -> Counting:
    return Counting(num_envs, options)
