"""Checks of MuJoCo Warp: what it computes on, whether that is compiled already, and whether the worlds fit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.options import Options
from stages.simulators.household.physics import Physics
from stages.simulators.household.probe.order import DEVICE, KERNELS, MEMORY
from stages.simulators.household.warp import memory, rendering
from stages.simulators.household.warp.batch import CONSTRAINTS, CONTACTS, adapted
from stages.simulators.household.warp.device import Device
from stages.simulators.probing import Broken, Finding, guarded

ON_CPU = "set simulator.options.backend=mujoco, or put env on GPUs (cluster.component_placement)"


class Checks:
    """What is looked at before the worlds are built."""

    def __init__(self, options: Options, num_envs: int) -> None:
        """Note what is asked: the config's options, and how many worlds a process has."""
        self._options, self._num_envs = options, num_envs

    def all(self) -> Iterator[Finding]:
        """The checks, in their order."""
        for name, check in ((DEVICE, self.device), (KERNELS, self.kernels), (MEMORY, self.memory)):
            yield guarded("household", name, check, ON_CPU)

    def device(self) -> Finding:
        """What Warp computes on, and whether what is compiled for it can be kept."""
        try:
            self._device = Device()
            tempfile.TemporaryFile(dir=self._device.cache).close()
        except OSError as error:
            found = f"Warp cannot keep compiled kernels in {error.filename}: {error.strerror}"
            raise Broken(found, "export WARP_CACHE_PATH=/a/folder/that/nodes/share in slurm.setup") from None
        if self._device.is_gpu:
            return Finding(DEVICE, "pass", f"{self._device.name}, CUDA_VISIBLE_DEVICES={_visible()}")
        found = f"Warp finds no CUDA device (CUDA_VISIBLE_DEVICES={_visible()})"
        if self._options.backend == "auto":
            return Finding(DEVICE, "pass", f"{found}: MuJoCo moves the worlds")
        return Finding(DEVICE, "warn", f"{found} and computes on the CPU, slower than MuJoCo would", ON_CPU)

    def kernels(self) -> Finding:
        """Whether kernels are compiled for this device."""
        if not self._by_warp:
            return Finding(KERNELS, "skip", "MuJoCo takes none")
        cache, target = Path(self._device.cache), self._device.target
        count = sum(1 for _ in cache.glob(f"*/*.{target}*"))
        if count:
            return Finding(KERNELS, "pass", f"{count} modules are compiled for {target} in {cache}")
        return Finding(KERNELS, "pass", f"none is compiled for {target} in {cache} yet: the first start takes minutes")

    def memory(self) -> Finding:
        """How many worlds there is memory for, as many of each scene as if all tasks had equally many."""
        if not self._by_warp:
            return Finding(MEMORY, "skip", "MuJoCo's worlds are small")
        options, benchmark = self._options, Benchmark(self._options)
        cameras, drawn = len(options.cameras), options.image_size if rendering.draws(options, self._device) else 0
        tasks = np.bincount(benchmark.scene, minlength=len(benchmark.scenes)) / len(benchmark.tasks)
        built = (Physics(scene, benchmark.kit, options.physics_frequency, drawn or 1) for scene in benchmark.scenes)
        models = [adapted(physics.model) for physics in built]
        each = sum(
            share * (memory.of_world(model, CONTACTS, CONSTRAINTS) + memory.of_images(model, cameras, drawn))
            for share, model in zip(tasks, models, strict=True)
        )
        free = self._device.free_memory()
        where, free = ("the GPU's", free) if free is not None else ("main", _available())
        fit = int(memory.SPARED * free / each)
        found = (
            f"a world takes {each / 1e6:.1f} MB, {free / 1e9:.1f} GB of {where} memory are free: {fit} worlds fit, "
            f"{self._num_envs} are asked for a process"
        )
        if self._num_envs > fit:
            remedy = "lower rollout.num_envs, or spread it over more processes and GPUs (rollout.num_workers)"
            return Finding(MEMORY, "fail", found, remedy)
        return Finding(MEMORY, "pass", found)

    @property
    def _by_warp(self) -> bool:
        return self._device.is_gpu or self._options.backend == "mujoco_warp"


def _visible() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "unset")


def _available() -> int:
    """Bytes of main memory that can be had."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])
