"""What `libero.py` measures Baton against, run by LIBERO's own interpreter: bare processes, and gymnasium's vectors.

    python -m tests.benchmarks.libero_alone KIND '{"task": ..., "image_size": ..., ...}'

It builds its environments, prints READY, resets and measures once for every line that it reads. An answer is a JSON
object: the steps that all environments made, the seconds that they took, and the seconds of processors, without resets.

    libero      LIBERO as it is, one environment: images at the end of each chunk
    adapter     stages/simulators/libero, one environment, without a pool: the same
    vector      LIBERO as it is in AsyncVectorEnv: images at every step, which is what its environments give
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from stages.simulators import interface
from stages.simulators.interface import Episode
from stages.simulators.libero import catalogue, installed, rendering

READY = "READY"
CAMERAS = ("agentview", "robot0_eye_in_hand")


def main() -> None:
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    contender = {"libero": Bare, "adapter": Adapter, "vector": Vector}[kind](**options)
    print(READY, flush=True)
    for number, _ in enumerate(sys.stdin):
        contender.reset(number)
        begun, worked = time.perf_counter(), processor_seconds(contender.pids)
        steps = contender.play()
        seconds, work = time.perf_counter() - begun, processor_seconds(contender.pids) - worked
        print(json.dumps({"steps": steps, "seconds": seconds, "work": work}), flush=True)
    contender.close()


def processor_seconds(pids: Iterable[int]) -> float:
    """Seconds of processors that some processes have used so far."""
    ticks = 0
    for pid in pids:
        # Behind the name, which may hold anything but a closing bracket, fields 14 and 15 of proc(5): user and system.
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def plain(task: str, image_size: int, renderer: str, **settings: Any) -> Any:
    """An environment of LIBERO, with its own defaults but for the size of images."""
    entry = catalogue.entries()[task]
    module = installed.environments(rendering.choose(renderer, None))
    file = installed.folder("bddl_files") / entry.suite / f"{entry.name}.bddl"
    sizes = {"camera_heights": image_size, "camera_widths": image_size}
    environment = module.ControlEnv(bddl_file_name=str(file), has_renderer=False, **sizes, **settings)
    environment.seed(0)
    return environment


def actions(steps: int) -> np.ndarray:
    """Random actions, the same for everyone: float32 [steps, 7]."""
    return np.random.default_rng(0).uniform(-1, 1, (steps, 7)).astype(np.float32)


class Bare:
    """LIBERO as it is in this process, without a camera among its observations: they are drawn when they are wanted."""

    def __init__(self, task: str, image_size: int, renderer: str, steps: int, chunk: int, processes: int) -> None:
        self.pids = [os.getpid()]
        self._size, self._steps, self._chunk = image_size, steps, chunk
        self._environment = plain(task, image_size, renderer, use_camera_obs=False, has_offscreen_renderer=True)

    def reset(self, number: int) -> None:
        self._environment.reset()

    def play(self) -> int:
        simulation = self._environment.sim
        for step, action in enumerate(actions(self._steps), 1):
            self._environment.step(action)
            if step % self._chunk == 0:
                for camera in CAMERAS:
                    simulation.render(width=self._size, height=self._size, camera_name=camera)
        return self._steps

    def close(self) -> None:
        os._exit(0)  # robosuite's contexts raise errors when they are collected at the end


class Adapter:
    """Baton's own simulator in this process."""

    def __init__(self, task: str, image_size: int, renderer: str, steps: int, chunk: int, processes: int) -> None:
        settings = {"tasks": [task], "image_size": image_size, "renderer": renderer, "max_episode_steps": steps}
        self._simulator = interface.make("libero", 1, settings)
        self.pids = [os.getpid()]
        self._task, self._steps, self._chunk = task, steps, chunk

    def reset(self, number: int) -> None:
        self._simulator.reset([0], [Episode(self._task, number)], [False])
        self._simulator.observe([0])

    def play(self) -> int:
        made = 0
        for chunk in actions(self._steps).reshape(-1, 1, self._chunk, 7):
            made += int(self._simulator.step_chunk([0], chunk).executed.sum())
            self._simulator.observe([0])
        return made

    def close(self) -> None:
        self._simulator.close()


class Plain(gymnasium.Env):
    """LIBERO as it is, as a Gymnasium environment: what it draws and feels at every step."""

    def __init__(self, task: str, image_size: int, renderer: str) -> None:
        self._environment = plain(task, image_size, renderer, use_camera_obs=True, has_offscreen_renderer=True)
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        felt = gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"head": image, "wrist": image, "proprio": felt})
        self.action_space = gymnasium.spaces.Box(-1, 1, (7,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self._seen(self._environment.reset()), {}

    def step(self, action: np.ndarray) -> Any:
        seen, reward, _, _ = self._environment.step(action)
        return self._seen(seen), float(reward), False, False, {}

    def _seen(self, seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        head, wrist = (np.ascontiguousarray(seen[f"{camera}_image"][::-1, ::-1]) for camera in CAMERAS)
        felt = (seen["robot0_eef_pos"], seen["robot0_eef_quat"][:3], seen["robot0_gripper_qpos"])
        return {"head": head, "wrist": wrist, "proprio": np.concatenate(felt).astype(np.float32)}


class Vector:
    """As many of them as there are processes, at their best: observations are not copied again."""

    def __init__(self, task: str, image_size: int, renderer: str, steps: int, chunk: int, processes: int) -> None:
        make = functools.partial(Plain, task, image_size, renderer)
        self._vector = gymnasium.vector.AsyncVectorEnv([make] * processes, copy=False, context="spawn")
        self.pids = [os.getpid(), *(process.pid for process in self._vector.processes)]
        self._steps, self._processes = steps, processes

    def reset(self, number: int) -> None:
        self._vector.reset()

    def play(self) -> int:
        for action in actions(self._steps):
            self._vector.step(np.broadcast_to(action, (self._processes, 7)))
        return self._steps * self._processes

    def close(self) -> None:
        self._vector.close()


if __name__ == "__main__":
    main()
