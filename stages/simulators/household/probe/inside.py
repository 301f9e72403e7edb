"""The process that makes the checks, one after the other, until one fails."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from stages.simulators import packages
from stages.simulators.household import backend
from stages.simulators.household.options import Options, parse
from stages.simulators.household.probe import worlds
from stages.simulators.household.probe.order import DEVICE, KERNELS, MEMORY, VERSIONS
from stages.simulators.probing import Broken, Finding, guarded

NEEDED = {"mujoco": "4.0.0", "warp-lang": "1.19.0", "mujoco-warp": "4.0.0"}
REMEDY = "pip install 'baton-vla[warp]', or set simulator.options.backend=mujoco"


def main() -> None:
    """Make the checks that the first argument asks for."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    for finding in _checks(parse(asked["options"]), asked["num_envs"]):
        finding.tell()
        if finding.verdict == "fail":
            return


def _checks(options: Options, num_envs: int) -> Iterator[Finding]:
    if backend.asks_for_warp(options, num_envs):
        yield guarded("household", VERSIONS, _versions, REMEDY)
        # Imported late: it needs what the first check has looked for.
        from stages.simulators.household.probe.warp import Checks

        yield from Checks(options, num_envs).all()
    else:
        yield guarded("household", VERSIONS, _version, "pip install baton-vla")
        what = f"simulator.options.backend={options.backend} with {num_envs} worlds a process"
        for name in (DEVICE, KERNELS, MEMORY):
            yield Finding(name, "skip", f"{what} takes no MuJoCo Warp")
    yield from worlds.checks(options, num_envs)


def _version() -> Finding:
    """Whether MuJoCo, which is enough without MuJoCo Warp, is what the household was written for."""
    found = packages.versions("household", {"mujoco": NEEDED["mujoco"]}, "pip install baton-vla")
    return Finding(VERSIONS, "pass", f"mujoco {found['mujoco']}, which moves the worlds")


def _versions() -> Finding:
    """Whether what is installed is what the household was written for, and can be imported."""
    try:
        found = packages.versions("household", NEEDED, REMEDY)
    except ModuleNotFoundError as error:
        raise Broken(f"{error} in {sys.executable}", REMEDY) from None
    for module in ("warp", "mujoco_warp"):
        importlib.import_module(module)
    return Finding(VERSIONS, "pass", ", ".join(f"{name} {version}" for name, version in found.items()))


if __name__ == "__main__":
    main()
