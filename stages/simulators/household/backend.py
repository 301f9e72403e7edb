"""Which engine moves the worlds: MuJoCo on the CPU, or MuJoCo Warp."""

from __future__ import annotations

import importlib.util

from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.engine import Engine
from stages.simulators.household.options import Options
from stages.simulators.household.physics import Physics
from stages.simulators.household.worlds import Worlds
from stages.simulators.interface import SimulatorConfigError

MANY = 64  # worlds in a process, from which on a GPU is ahead of the cores that would do it
_PACKAGES = {"warp": "warp-lang", "mujoco_warp": "mujoco-warp"}


def build(benchmark: Benchmark, num_envs: int, options: Options, scenes: list[Physics]) -> Engine:
    """The engine that a config asks for, with N = `num_envs` worlds.

    Raises:
        SimulatorConfigError: mujoco_warp is wanted and not installed, or the GPU has too little memory.
    """
    missing = _missing()
    if options.backend == "mujoco_warp" and missing:
        raise SimulatorConfigError(
            f"household: backend mujoco_warp needs {' and '.join(missing)}, which this interpreter lacks; "
            "pip install 'baton-vla[warp]', or backend: mujoco"
        )
    if asks_for_warp(options, num_envs):
        # Imported late: the other backend does without its packages.
        from stages.simulators.household.warp.device import Device
        from stages.simulators.household.warp.worlds import WarpWorlds

        device = Device()
        if options.backend == "mujoco_warp" or device.is_gpu:
            return WarpWorlds(benchmark, num_envs, options, scenes, device)
    if options.renderer == "mujoco_warp":
        raise SimulatorConfigError(
            f"household: renderer mujoco_warp draws what backend mujoco_warp moves, but {num_envs} worlds are moved by "
            "mujoco here; choose backend: mujoco_warp, or renderer: auto"
        )
    return Worlds(benchmark, num_envs, options, scenes)


def asks_for_warp(options: Options, num_envs: int) -> bool:
    """Whether MuJoCo Warp is to move the worlds, or is to if there is a GPU (backend auto)."""
    return options.backend == "mujoco_warp" or (options.backend == "auto" and num_envs >= MANY and not _missing())


def _missing() -> list[str]:
    """Packages that MuJoCo Warp takes and this interpreter lacks."""
    return [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
