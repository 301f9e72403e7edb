"""Which versions of a simulator's packages this interpreter has, where an adapter was written for certain ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata

from stages.simulators.interface import SimulatorConfigError


def versions(simulator: str, needed: Mapping[str, str], remedy: str) -> dict[str, str]:
    """What is installed, by package.

    Args:
        simulator: its name.
        needed: package -> the version that is needed; all that begin with it where it ends in a dot, any if empty.
        remedy: what to do where another is installed.

    Raises:
        ModuleNotFoundError: a package is not installed.
        SimulatorConfigError: one is of another version.
    """
    found = {}
    for package, wanted in needed.items():
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise ModuleNotFoundError(f"No package named {package!r}") from None
        several = not wanted or wanted.endswith(".")
        if not (found[package].startswith(wanted) if several else found[package] == wanted):
            raise SimulatorConfigError(
                f"{simulator}: {package} {found[package]} is installed in {sys.executable}, {wanted.rstrip('.')} is "
                f"needed; {remedy}"
            )
    return found
