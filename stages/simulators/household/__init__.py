"""A two-armed robot at a table: Baton's own simulator, on plain MuJoCo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.simulators.household.options import parse
from stages.simulators.interface import Simulator, SimulatorConfigError


def make(num_envs: int, options: Mapping[str, Any]) -> Simulator:
    """Build the household.

    Args:
        num_envs: N, how many worlds.
        options: the simulator's config block; the fields of `options.Options`.

    Raises:
        SimulatorConfigError: an option is wrong, or the wanted renderer cannot start here.
    """
    parsed = parse(options)
    if num_envs < 1:
        raise SimulatorConfigError(f"household: num_envs is {num_envs}; it must be at least 1")
    # Imported late: a bad option is told before the engine is loaded.
    from stages.simulators.household.simulator import Household

    return Household(num_envs, parsed)
