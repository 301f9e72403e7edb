"""Whether OpenGL can draw without a screen here, through EGL or OSMesa, for simulators on MuJoCo."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping

LIBRARIES = {"egl": ("libEGL.so.1", "libOpenGL.so.0"), "osmesa": ("libOSMesa.so.8",)}
REMEDIES = {
    "egl": "apt-get install --no-install-recommends libegl1 libgl1-mesa-dri libopengl0",
    "osmesa": "apt-get install --no-install-recommends libosmesa6",
}
_PROBE = """
import importlib, mujoco
context = importlib.import_module("mujoco." + "{name}").GLContext(64, 64)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100).free()
context.free()
"""
_PROBE_SECONDS = 60


def problem(name: str, variables: Mapping[str, str] | None = None) -> str:
    """Why a backend of OpenGL cannot start here, empty if it can.

    Args:
        name: egl or osmesa.
        variables: environment variables that it would start with.
    """
    for library in LIBRARIES[name]:
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"{library} is missing"
    loaded = os.environ.get("PYOPENGL_PLATFORM", name)
    if loaded != name:
        return f"PYOPENGL_PLATFORM is {loaded}"
    # A broken driver can end the process that tries it, so another one tries.
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _PROBE.format(name=name)],
            env={**os.environ, "MUJOCO_GL": name, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_PROBE_SECONDS} s"
    if tried.returncode:
        lines = tried.stderr.strip().splitlines()
        return lines[-1] if lines else f"it ended with status {tried.returncode}"
    return ""
