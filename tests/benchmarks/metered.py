"""The household with a meter: the seconds that a worker spends in its simulator, where another process can read them.

`rollout_engine.py` puts it into its pools as the simulator `benchmarks.metered`. Options beside the household's own:
`meter`, a folder that gets a file a worker process, and `blind`, which draws nothing (images of one pixel).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.simulators import interface
from stages.simulators.interface import ChunkResult, Episode, Observation, Simulator

PARTS = ("reset", "physics", "images")


def read(meter: Path, pids: Sequence[int]) -> np.ndarray:
    """Seconds of each worker process in each of PARTS, [workers, 3]."""
    return np.stack([np.fromfile(meter / str(pid), np.float64) for pid in pids])


class Metered(Simulator):
    def __init__(self, inner: Simulator, meter: Path, blind: bool) -> None:
        self._inner, self._blind = inner, blind
        self.num_envs = inner.num_envs
        self.spec = dataclasses.replace(inner.spec, image_size=(1, 1)) if blind else inner.spec
        self._seconds = np.memmap(meter / str(os.getpid()), np.float64, "w+", shape=(len(PARTS),))

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        begin = time.perf_counter()
        self._inner.reset(slots, episodes, film)
        self._seconds[0] += time.perf_counter() - begin

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        begin = time.perf_counter()
        result = self._inner.step_chunk(slots, actions)
        self._seconds[1] += time.perf_counter() - begin
        return result

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        return self._inner.expert_chunk(slots, length)

    def observe(self, slots: Sequence[int]) -> Observation:
        if self._blind:
            count, proprio = len(slots), self.spec.proprio_dim
            images = np.zeros((count, 3, 3, 1, 1), np.uint8)
            return Observation(images[:, 0], images[:, 1:], np.zeros((count, proprio), np.float32))
        begin = time.perf_counter()
        seen = self._inner.observe(slots)
        self._seconds[2] += time.perf_counter() - begin
        return seen

    def save_state(self, slot: int) -> bytes:
        return self._inner.save_state(slot)

    def restore_state(self, slot: int, state: bytes) -> None:
        self._inner.restore_state(slot, state)

    def close(self) -> None:
        self._inner.close()


def make(num_envs: int, options: Mapping[str, Any]) -> Simulator:
    """Build the household and its meter."""
    own = {name: value for name, value in options.items() if name not in ("meter", "blind")}
    return Metered(interface.make("household", num_envs, own), Path(options["meter"]), options["blind"])
