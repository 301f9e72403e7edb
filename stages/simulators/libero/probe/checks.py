"""Checks 2 to 7: of LIBERO as it is installed, each of which needs those before it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.simulators.interface import HELD_OUT, Episode
from stages.simulators.libero import catalogue, devices, installed, rendering
from stages.simulators.libero.options import Options
from stages.simulators.libero.probe.order import ASSETS, IMAGES, MEMORY, RENDERER, SPEED, STEP
from stages.simulators.libero.scene import ACTION_DIM
from stages.simulators.libero.simulator import Libero
from stages.simulators.probing import Broken, Finding

CHUNK = 8
LEAST_MEAN, LEAST_SPREAD = 8.0, 1.0  # of a picture's numbers, 0 to 255
SLOW_STEPS, SLOW_IMAGE = 40.0, 0.05  # steps a second, seconds an image
RESETS, MOST_GROWTH = 30, 0.5  # MB a reset
SOFTWARE = ("llvmpipe", "softpipe", "swrast")
REPORT = "say in an issue of Baton which machine this is"


class Checks:
    """What is looked at: one world of LIBERO, from the third check on."""

    def __init__(self, options: Options, steps: int) -> None:
        """Note what is asked: the config's options, and how many steps to measure speed over."""
        self._options, self._steps = options, steps

    def all(self) -> dict[str, Callable[[], Finding]]:
        """The checks by name, in the order in which they are to be made."""
        return {
            ASSETS: self.assets,
            RENDERER: self.renderer,
            STEP: self.step,
            IMAGES: self.images,
            SPEED: self.speed,
            MEMORY: self.memory,
        }

    def assets(self) -> Finding:
        """Whether models, tasks and initial states are there."""
        entries = [catalogue.entries()[name] for name in self._options.tasks]
        installed.environments(self._renderer())
        tasks, states = installed.folder("bddl_files"), installed.folder("init_states")
        wanted = [tasks / entry.suite / f"{entry.name}.bddl" for entry in entries]
        wanted += [states / entry.suite / f"{entry.name}.pruned_init.npz" for entry in entries]
        for path in wanted:
            if not path.is_file():
                raise Broken(f"{path} is missing", installed.REMEDY)
        models = sum(1 for path in installed.folder("assets").rglob("*.xml") if path.is_file())
        return Finding(ASSETS, "pass", f"{models} models; initial states of {len(entries)} tasks, 50 of each")

    def renderer(self) -> Finding:
        """Who draws, and on which card."""
        name = self._renderer()
        painter = rendering.Painter(name, 64)
        drawn = painter.describe()
        painter.close()
        index, card = os.environ.get(devices.MUJOCO), os.environ.get(devices.CUDA)
        listed = devices.devices() if name == "egl" else []
        words = f"{name}: {drawn}"
        if listed:
            numbers = ", ".join(f"{one.index} is CUDA's {one.cuda}" for one in listed if one.cuda is not None)
            words += f", {f'device {index}' if index else 'the first'} of EGL's {len(listed)}" + (
                f" ({numbers})" if numbers else ""
            )
            words += f", {devices.CUDA}={card}" if card else ""
        if any(word in drawn.lower() for word in SOFTWARE):
            remedy = "put env on GPUs (cluster.component_placement) if images are to be quick"
            return Finding(RENDERER, "warn", f"{words}: the CPU draws", remedy)
        return Finding(RENDERER, "pass", words)

    def step(self) -> Finding:
        """Whether a scene is built and moves."""
        begin = time.monotonic()
        self._libero = Libero(1, dataclasses.replace(self._options, wrist_cameras=1, max_episode_steps=100_000))
        self._task = self._options.tasks[0]
        self._libero.reset([0], [Episode(self._task, HELD_OUT)], [False])
        built = time.monotonic() - begin
        before = self._libero.observe([0]).proprio
        self._libero.step_chunk([0], self._motion(CHUNK))
        if np.array_equal(self._libero.observe([0]).proprio, before):
            raise Broken(f"{self._task}: the arm did not move", REPORT)
        return Finding(STEP, "pass", f"{self._task}: the scene was up in {built:.1f} s, and the arm moves")

    def images(self) -> Finding:
        """Whether pictures show something, and how long one takes."""
        begin = time.monotonic()
        seen = self._libero.observe([0])
        seconds = (time.monotonic() - begin) / len(rendering.CAMERAS)
        for name, image in (("head", seen.head[0]), ("wrist", seen.wrist[0, 0])):
            if image.mean() < LEAST_MEAN or image.std() < LEAST_SPREAD:
                raise Broken(f"the {name} camera shows nothing (mean {image.mean():.1f} of 255)", REPORT)
        words = f"{self._options.image_size} pixels, {seconds * 1e3:.1f} ms each"
        if seconds > SLOW_IMAGE:
            return Finding(IMAGES, "warn", words, "let a GPU draw: put env on GPUs, with the driver's EGL")
        return Finding(IMAGES, "pass", words)

    def speed(self) -> Finding:
        """Steps a second of this process alone, without images."""
        chunks = max(1, self._steps // CHUNK)
        begin = time.monotonic()
        for _ in range(chunks):
            self._libero.step_chunk([0], self._motion(CHUNK))
        rate = chunks * CHUNK / (time.monotonic() - begin)
        words = f"{rate:.0f} steps/s in one process, images not counted ({chunks * CHUNK} steps)"
        if rate < SLOW_STEPS:
            return Finding(SPEED, "warn", words, "give each worker a core of its own: rollout.num_workers")
        return Finding(SPEED, "pass", words)

    def memory(self) -> Finding:
        """Whether resetting makes the process grow."""
        for seed in range(RESETS):
            if seed == RESETS // 3:  # what is opened once is open
                begin = _resident()
            self._libero.reset([0], [Episode(self._task, seed)], [False])
            self._libero.step_chunk([0], self._motion(1))
        growth = (_resident() - begin) / (RESETS - RESETS // 3)
        words = f"{_resident():.0f} MB, {max(0.0, growth):.2f} MB more a reset"
        self._libero.close()
        if growth > MOST_GROWTH:
            return Finding(MEMORY, "warn", words, "set simulator.recycle_episodes=200, and " + REPORT)
        return Finding(MEMORY, "pass", words)

    def _renderer(self) -> str:
        return rendering.choose(self._options.renderer, self._options.egl_device)

    def _motion(self, length: int) -> np.ndarray:
        """A chunk of small random motion: float32 [1, length, 7]."""
        stream = np.random.default_rng(0)
        return stream.uniform(-0.3, 0.3, (1, length, ACTION_DIM)).astype(np.float32)


def _resident() -> float:
    """MB of main memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
