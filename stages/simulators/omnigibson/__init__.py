"""BEHAVIOR-1K in OmniGibson, on Isaac Sim: the R1 Pro in a house, in an interpreter of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.simulators.interface import Simulator, SimulatorConfigError
from stages.simulators.omnigibson.options import parse


def make(num_envs: int, options: Mapping[str, Any]) -> Simulator:
    """Start Isaac Sim in this process and build the worlds.

    Args:
        num_envs: N, how many worlds; they share physics, renderer and activity.
        options: the simulator's config block; the fields of `options.Options`.

    Raises:
        ModuleNotFoundError: OmniGibson is not installed here.
        SimulatorConfigError: an option is wrong, or what is installed cannot be used.
    """
    parsed = parse(options)
    if num_envs < 1:
        raise SimulatorConfigError(f"omnigibson: num_envs is {num_envs}; it must be at least 1")
    # Imported late: a bad option is told before anything is started.
    from stages.simulators.omnigibson.simulator import OmniGibson

    return OmniGibson(num_envs, parsed)
