"""Which OmniGibson this interpreter has, and whether it and its Isaac Sim fit together."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import sys
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of OmniGibson's interface.

    Attributes:
        letter: B or C.
        versions: what its versions begin with, in words.
        python: the Python it is made for.
        isaac: the Isaac Sim it is made for.
    """

    letter: str
    versions: str
    python: tuple[int, int]
    isaac: str


B = Generation("B", "3.7", (3, 10), "4.5")
C = Generation("C", "3.8 and 3.9", (3, 11), "5.1")
ANY_PYTHON = "BATON_OMNIGIBSON_ANY_PYTHON"  # for builds that someone has ported, and for tests


def of_version(version: str) -> Generation:
    """The generation of a version.

    Raises:
        SimulatorConfigError: Baton cannot use it; the message says why and what it can.
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if (3, 8) <= numbers < (4, 0):
        return C
    if numbers == (3, 7):
        return B
    if numbers < (3, 7):
        raise SimulatorConfigError(
            f"omnigibson: version {version} has no R1 Pro, no controller that holds its trunk and no challenge tasks "
            "(it is what PyPI has); install 3.7.2, `baton env create omnigibson` does"
        )
    raise SimulatorConfigError(f"omnigibson: version {version} is newer than Baton knows; it uses 3.7, 3.8 and 3.9")


def find() -> Generation:
    """What is installed here, found without importing it: an import starts things and fails in many words.

    Raises:
        ModuleNotFoundError: OmniGibson is not installed here.
        SimulatorConfigError: it is one that Baton cannot use, or Python or Isaac Sim do not fit it.
    """
    spec = importlib.util.find_spec("omnigibson")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'omnigibson'")
    written = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", Path(spec.origin).read_text(), re.MULTILINE)
    version = written[1] if written else importlib.metadata.version("omnigibson")
    generation = of_version(version)
    here = sys.version_info[:2]
    if here != generation.python and not os.environ.get(ANY_PYTHON):
        raise SimulatorConfigError(
            f"omnigibson: simulator.python is Python {here[0]}.{here[1]}, but OmniGibson {version} and its Isaac Sim "
            f"are made for {generation.python[0]}.{generation.python[1]}; name the interpreter they are installed in"
        )
    isaac = isaac_version()
    if isaac is not None and not isaac.startswith(generation.isaac):
        raise SimulatorConfigError(
            f"omnigibson: Isaac Sim here is {isaac}, but OmniGibson {version} needs {generation.isaac}; install that, "
            "or point ISAAC_PATH to it"
        )
    return generation


def isaac_version() -> str | None:
    """Version of Isaac Sim, from $ISAAC_PATH/VERSION or the package; None where neither says."""
    told = Path(os.environ.get("ISAAC_PATH", "/nowhere"), "VERSION")
    if told.is_file():
        return told.read_text().strip()
    try:
        return importlib.metadata.version("isaacsim")
    except importlib.metadata.PackageNotFoundError:
        return None
