"""Draws scenes as robosuite does, with OpenGL through EGL or OSMesa, and only when somebody wants to look."""

from __future__ import annotations

import hashlib
import importlib
import os
from typing import Any

import mujoco
import numpy as np

from stages.simulators import opengl
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero import devices

HEAD, WRIST = "agentview", "robot0_eye_in_hand"
CAMERAS = (HEAD, WRIST)
_MOST_GEOMS = 1000  # as robosuite has it


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
    candidates = (wanted,) if wanted != "auto" else (asked,) if asked in opengl.LIBRARIES else tuple(opengl.LIBRARIES)
    problems = {}
    for name in candidates:
        device = devices.choose(os.environ, egl_device) if name == "egl" else None
        variables = {} if device is None else {devices.MUJOCO: str(device)}
        problem = opengl.problem(name, variables)
        if not problem:
            os.environ.update(variables)
            return name
        problems[name] = problem
    told = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    remedies = " or ".join(opengl.REMEDIES[name] for name in problems)
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
        self._window.make_current()
        # OpenGL draws into whichever canvas was drawn last until it is told.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
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
