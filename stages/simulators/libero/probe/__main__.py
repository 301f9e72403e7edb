"""Starts the process of the checks and passes on what it finds, whatever becomes of it.

    python -m stages.simulators.libero.probe '{"options": {...}, "num_envs": 1, "steps": 1000, "seconds": 1500}'

A line of JSON after `baton-check: ` for each of the checks; everything else is what LIBERO says.
"""

from __future__ import annotations

from stages.simulators import probing
from stages.simulators.libero.probe.order import ORDER

if __name__ == "__main__":
    probing.run("stages.simulators.libero.probe.inside", ORDER, "baton env create libero")
