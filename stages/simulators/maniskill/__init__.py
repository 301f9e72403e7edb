"""ManiSkill 3 on SAPIEN: two arms or one at a table, in an interpreter of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.simulators.interface import Simulator, SimulatorConfigError
from stages.simulators.maniskill.options import CUDA, parse


def make(num_envs: int, options: Mapping[str, Any]) -> Simulator:
    """Build ManiSkill's worlds.

    Args:
        num_envs: N, how many worlds.
        options: the simulator's config block; the fields of `options.Options`.

    Raises:
        ModuleNotFoundError: ManiSkill is not installed here.
        SimulatorConfigError: an option is wrong, another version is installed, or there is nothing here to draw with.
    """
    parsed = parse(options)
    if num_envs < 1:
        raise SimulatorConfigError(f"maniskill: num_envs is {num_envs}; it must be at least 1")
    # Imported late: a bad option is told before anything is loaded, and what draws is settled before SAPIEN is.
    from stages.simulators.maniskill import installed, vulkan

    installed.versions()
    drawn_by, device = vulkan.prepare(parsed.renderer)
    if parsed.backend == CUDA:
        from stages.simulators.maniskill import parallel

        return parallel.build(num_envs, parsed, drawn_by, str(device))
    from stages.simulators.maniskill.simulator import ManiSkill

    return ManiSkill(num_envs, parsed, drawn_by, str(device))
