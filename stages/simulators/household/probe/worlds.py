"""Checks of worlds that stand, whatever moves them: do they start, move, and show something."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from stages.simulators.household import controller
from stages.simulators.household.options import Options
from stages.simulators.household.probe.order import IMAGES, START, STEP
from stages.simulators.household.simulator import Household
from stages.simulators.interface import HELD_OUT, Episode
from stages.simulators.probing import Broken, Finding, guarded

CHUNK = 8
LEAST_MOVED = 1e-3  # of some number of proprioception, within a chunk of full pushes
LEAST_SPREAD = 1.0  # of a picture's numbers, 0 to 255
REPORT = "say in an issue of Baton which machine this is"


def checks(options: Options, num_envs: int) -> Iterator[Finding]:
    """Make the checks, each of which needs those before it.

    Args:
        options: the config's.
        num_envs: N, worlds to build.
    """
    made = _Checks(options, num_envs)
    for name, check in ((START, made.start), (STEP, made.step), (IMAGES, made.images)):
        yield guarded("household", name, check, REPORT)


class _Checks:
    def __init__(self, options: Options, num_envs: int) -> None:
        self._options, self._slots = options, list(range(num_envs))

    def start(self) -> Finding:
        """Whether the worlds are built and reset."""
        begin = time.monotonic()
        self._household = Household(len(self._slots), self._options)
        tasks = self._options.tasks
        episodes = [Episode(tasks[slot % len(tasks)], HELD_OUT + slot) for slot in self._slots]
        self._household.reset(self._slots, episodes, [False] * len(self._slots))
        seconds = time.monotonic() - begin
        return Finding(
            START, "pass", f"{len(self._slots)} worlds within {seconds:.1f} s, {self._household.spec.version}"
        )

    def step(self) -> Finding:
        """Whether hands move when told to."""
        before = self._household.observe(self._slots).proprio
        actions = np.zeros((len(self._slots), CHUNK, controller.ACTION_DIM), np.float32)
        actions[:, :, 2::7] = 1.0  # up, both
        begin = time.monotonic()
        result = self._household.step_chunk(self._slots, actions)
        rate = int(result.executed.sum()) / (time.monotonic() - begin)
        moved = np.abs(self._household.observe(self._slots).proprio - before).max(1)
        if still := int((moved < LEAST_MOVED).sum()):
            raise Broken(f"{still} of {len(self._slots)} worlds did not move", REPORT)
        return Finding(STEP, "pass", f"all worlds move, {rate:.0f} steps a second, images not counted")

    def images(self) -> Finding:
        """Whether every camera of every world shows something."""
        begin = time.monotonic()
        seen = self._household.observe(self._slots)
        seconds = time.monotonic() - begin
        views = np.concatenate([seen.head[:, None], seen.wrist], axis=1)
        for name, pictures in zip(self._options.cameras, views.swapaxes(0, 1), strict=True):
            if blank := sum(1 for picture in pictures if picture.std() < LEAST_SPREAD):
                raise Broken(f"the camera {name} shows one colour only in {blank} worlds", REPORT)
        self._household.close()
        each = seconds / views.shape[0] / views.shape[1]
        words = f"{self._options.image_size} pixels, drawn by {self._household.spec.renderer}, {each * 1e3:.2f} ms each"
        return Finding(IMAGES, "pass", words)
