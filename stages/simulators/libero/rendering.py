"""Draws scenes as robosuite does, with OpenGL through EGL or OSMesa, and only when somebody wants to look."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import subprocess
import sys
from typing import Any

import mujoco
import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero import devices

HEAD, WRIST = "agentview", "robot0_eye_in_hand"
CAMERAS = (HEAD, WRIST)
_MOST_GEOMS = 1000  # as robosuite has it
_LIBRARIES = {"egl": ("libEGL.so.1", "libOpenGL.so.0"), "osmesa": ("libOSMesa.so.8",)}
_REMEDIES = {
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


def choose(wanted: str, egl_device: int | None) -> str:
    """Settle on a renderer and its device, without harm to this process where one does not work.

    Args:
        wanted: a member of options.RENDERERS; auto heeds MUJOCO_GL, then takes the first that works.
        egl_device: EGL's number of the device to draw on; None: see devices.choose.

    Returns:
        egl or osmesa; MUJOCO_EGL_DEVICE_ID then names the device.

    Raises:
        SimulatorConfigError: none can start here, or which device to draw on cannot be told.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    candidates = (wanted,) if wanted != "auto" else (asked,) if asked in _LIBRARIES else tuple(_LIBRARIES)
    problems = {}
    for name in candidates:
        device = devices.choose(os.environ, egl_device) if name == "egl" else None
        problem = _problem(name, device)
        if not problem:
            if device is not None:
                os.environ[devices.MUJOCO] = str(device)
            return name
        problems[name] = problem
    told = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    remedies = " or ".join(_REMEDIES[name] for name in problems)
    raise SimulatorConfigError(f"libero: no renderer can start here ({told}); {remedies}")


class Painter:
    """One OpenGL context of this process, which all scenes are drawn in."""

    def __init__(self, name: str, size: int) -> None:
        """Open it.

        Args:
            name: egl or osmesa.
            size: height and width of the largest image, in pixels.
        """
        self._size = size
        self._window = importlib.import_module(f"mujoco.{name}").GLContext(size, size)

    def take(self, model: mujoco.MjModel) -> Canvas:
        """Hand a model's meshes and textures to OpenGL."""
        self._window.make_current()
        return Canvas(model, self._window, self._size)

    def describe(self) -> str:
        """What OpenGL says of who draws, e.g. "NVIDIA H100" or "llvmpipe"."""
        from OpenGL import GL

        self._window.make_current()
        return str(GL.glGetString(GL.GL_RENDERER).decode())

    def close(self) -> None:
        """Free the context while its display is still up, or it complains at exit."""
        self._window.make_current()
        self._window.free()


class Canvas:
    """Meshes and textures as OpenGL holds them, for all models that have the same."""

    def __init__(self, model: mujoco.MjModel, window: Any, size: int) -> None:
        """Upload them into the current context."""
        self._window = window
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=_MOST_GEOMS)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """One image, turned by 180 degrees from OpenGL's as the field does: upright, left and right exchanged.

        Args:
            model: one with the meshes and textures of this canvas.
            data: the world.
            camera: one of CAMERAS.
            size: height and width in pixels.

        Returns:
            uint8 [size, size, 3], RGB.
        """
        self._window.make_current()  # another scene may have been drawn since
        self._camera.fixedcamid = model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
        viewport = mujoco.MjrRect(0, 0, size, size)
        image = np.empty((size, size, 3), dtype=np.uint8)
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, viewport, self._context)
        return np.ascontiguousarray(image[::-1, ::-1])

    def close(self) -> None:
        """Free what OpenGL holds."""
        self._window.make_current()
        self._context.free()
        del self._scene


def drawn_with(model: mujoco.MjModel) -> bytes:
    """A digest of a model's meshes and textures: the tasks of a suite often differ in nothing of what is uploaded."""
    digest = hashlib.sha256(model.paths)
    for part in (model.mesh_vert, model.mesh_facenum, model.tex_type, model.tex_height, model.tex_width):
        digest.update(part.tobytes())
    for part in (model.mesh_pathadr, model.tex_pathadr, model.mat_texid):
        digest.update(part.tobytes())
    return digest.digest()


def _problem(name: str, device: int | None) -> str:
    """Why an OpenGL backend cannot start here, empty if it can."""
    for library in _LIBRARIES[name]:
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"{library} is missing"
    loaded = os.environ.get("PYOPENGL_PLATFORM", name)
    if loaded != name:
        return f"PYOPENGL_PLATFORM is {loaded}"
    # A broken driver can end the process that tries it, so another one tries.
    environment = {**os.environ, "MUJOCO_GL": name}
    if device is not None:
        environment[devices.MUJOCO] = str(device)
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _PROBE.format(name=name)],
            env=environment,
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
