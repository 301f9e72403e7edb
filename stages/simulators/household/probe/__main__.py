"""Starts the process of the checks and passes on what it finds, also where that process dies.

    python -m stages.simulators.household.probe '{"options": {...}, "num_envs": 256, "steps": 1000, "seconds": 1500}'

A line of JSON after `baton-check: ` for each check; everything else is what Warp says.
"""

from __future__ import annotations

from stages.simulators import probing
from stages.simulators.household.probe.order import ORDER

if __name__ == "__main__":
    remedy = "a driver may be broken: try simulator.options.backend=mujoco and simulator.options.renderer=raycast"
    probing.run("stages.simulators.household.probe.inside", ORDER, remedy)
