"""What is installed in this interpreter: nothing of another version, which may count actions in another way."""

from __future__ import annotations

from stages.simulators import packages

NEEDED = {"mani_skill": "3.0.1", "sapien": "3.0.3", "torch": ""}
REMEDY = "baton env create maniskill, and leave simulator.python out"


def versions() -> dict[str, str]:
    """What is installed, by package.

    Raises:
        ModuleNotFoundError: one of them is not.
        SimulatorConfigError: one is of a version that this is not written for.
    """
    return packages.versions("maniskill", NEEDED, REMEDY)
