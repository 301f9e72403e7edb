"""Starts the process of the checks and passes on what it finds, also where that process dies.

    python -m stages.simulators.maniskill.probe '{"options": {...}, "num_envs": 1, "steps": 1000, "seconds": 600}'

A line of JSON after `baton-check: ` for each check; everything else is what SAPIEN says.
"""

from __future__ import annotations

from stages.simulators import probing
from stages.simulators.maniskill.probe.order import ORDER

if __name__ == "__main__":
    remedy = "a driver may be broken: try simulator.options.renderer=cpu"
    probing.run("stages.simulators.maniskill.probe.inside", ORDER, remedy)
