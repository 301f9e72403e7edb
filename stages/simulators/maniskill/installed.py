"""What is installed in this interpreter: nothing of another version, which may count actions in another way."""

from __future__ import annotations

import sys
from importlib import metadata

from stages.simulators.interface import SimulatorConfigError

MANISKILL, SAPIEN, TORCH = "mani_skill", "sapien", "torch"
NEEDED = {MANISKILL: "3.0.1", SAPIEN: "3.0.3"}
REMEDY = "baton env create maniskill, and leave simulator.python out"


def versions() -> dict[str, str]:
    """What is installed, by package.

    Raises:
        ModuleNotFoundError: one of them is not.
        SimulatorConfigError: one is of a version that this is not written for.
    """
    found = {}
    for package in (*NEEDED, TORCH):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise ModuleNotFoundError(f"No package named {package!r}") from None
        wanted = NEEDED.get(package, found[package])
        if found[package] != wanted:
            raise SimulatorConfigError(
                f"maniskill: {package} {found[package]} is installed in {sys.executable}, {wanted} is needed; {REMEDY}"
            )
    return found
