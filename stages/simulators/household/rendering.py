"""What draws the household: OpenGL through EGL or OSMesa, or a software ray caster that needs no system library."""

from __future__ import annotations

import abc
import importlib
import os

import mujoco
import numpy as np

from stages.simulators import opengl
from stages.simulators.household.scene import CAMERAS
from stages.simulators.interface import SimulatorConfigError

_opened_by: int | None = None  # the process that OpenGL was first started in


class Renderer(abc.ABC):
    """Draws the worlds of a row of models through their cameras.

    Models differ in their bodies only, and these are made of primitive geoms: cameras and what OpenGL has to be told
    beforehand are the same. A mesh, texture, skin or flex would need a context and a scene for each model.
    """

    name: str

    @abc.abstractmethod
    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """One image.

        Args:
            model: the world's.
            data: the world.
            camera: one of scene.CAMERAS.
            size: height and width in pixels.

        Returns:
            uint8 [size, size, 3], RGB.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Free what drawing needed."""


def choose(wanted: str) -> str:
    """Settle on a renderer, without harm to this process where one does not work.

    Args:
        wanted: a member of options.RENDERERS; auto heeds MUJOCO_GL, then takes the first that works.

    Returns:
        egl, osmesa or raycast.

    Raises:
        SimulatorConfigError: the wanted renderer cannot start here.
    """
    if wanted == "raycast":
        return wanted
    if wanted != "auto":
        problem = opengl.problem(wanted)
        if problem:
            raise SimulatorConfigError(
                f"household: renderer {wanted} cannot start here ({problem}); {opengl.REMEDIES[wanted]}, "
                "or renderer: raycast"
            )
        return wanted
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    candidates = (asked,) if asked in opengl.LIBRARIES else () if asked else ("egl", "osmesa")
    return next((name for name in candidates if not opengl.problem(name)), "raycast")


def build(name: str, model: mujoco.MjModel) -> Renderer:
    """Start the renderer that `choose` settled on, for `model` and for what differs from it in its bodies only."""
    return RayCaster(model) if name == "raycast" else OpenGL(name, model)


class OpenGL(Renderer):
    """MuJoCo's own renderer on an off-screen context."""

    def __init__(self, name: str, model: mujoco.MjModel) -> None:
        """Open a context of the backend called `name` (egl or osmesa)."""
        global _opened_by
        if _opened_by not in (None, os.getpid()):  # it would hang
            raise SimulatorConfigError(
                "household: OpenGL does not survive a fork, and the parent of this process draws with it; start the "
                'process afresh, in gymnasium by vector_kwargs={"context": "spawn"}'
            )
        _opened_by = os.getpid()
        self.name = name
        # MuJoCo's OpenGL loader reads this variable when the first context is made.
        os.environ["MUJOCO_GL"] = name
        width, height = model.vis.global_.offwidth, model.vis.global_.offheight
        self._window = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        self._window.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
        ):
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._ids = {camera: model.camera(camera).id for camera in CAMERAS}

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """See Renderer.draw."""
        self._window.make_current()  # another simulator of this process may have drawn since
        self._camera.fixedcamid = self._ids[camera]
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
        viewport = mujoco.MjrRect(0, 0, size, size)
        image = np.empty((size, size, 3), dtype=np.uint8)
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, viewport, self._context)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Free the context while its display is still up, or it complains at exit."""
        self._window.make_current()
        self._context.free()
        self._window.free()


class RayCaster(Renderer):
    """One ray a pixel, flat colours, Lambert's cosine law."""

    name = "raycast"
    _AMBIENT, _DIFFUSE = 0.5, 0.5
    _SKY = (0.45, 0.47, 0.5)
    _LIGHT = np.array([0.35, -0.3, 0.9]) / np.linalg.norm([0.35, -0.3, 0.9])

    def __init__(self, model: mujoco.MjModel) -> None:
        """Prepare for the cameras of `model`."""
        self._ids = {camera: model.camera(camera).id for camera in CAMERAS}
        self._fields = {camera: float(model.cam_fovy[number]) for camera, number in self._ids.items()}
        self._rays: dict[tuple[str, int], np.ndarray] = {}

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """See Renderer.draw."""
        number = self._ids[camera]
        rays = self._directions(camera, size) @ data.cam_xmat[number].reshape(3, 3).T
        count = len(rays)
        geoms = np.empty(count, dtype=np.int32)
        distances = np.empty(count)
        normals = np.empty((count, 3))
        mujoco.mj_multiRay(
            model, data, data.cam_xpos[number], rays.ravel(), None, True, -1, geoms, distances, normals.ravel(),
            count, mujoco.mjMAXVAL,
        )  # fmt: skip
        # One more colour at the end, for rays that hit nothing (geom id -1).
        colours = np.concatenate([model.geom_rgba[:, :3], [self._SKY]]).astype(np.float32) * 255
        facing = np.clip(normals @ self._LIGHT, 0, 1).astype(np.float32)
        shade = np.where(geoms < 0, np.float32(1), self._AMBIENT + self._DIFFUSE * facing)
        image: np.ndarray = (colours[geoms] * shade[:, None]).astype(np.uint8)
        return image.reshape(size, size, 3)

    def close(self) -> None:
        """Nothing to free."""

    def _directions(self, camera: str, size: int) -> np.ndarray:
        """Unit vectors [size * size, 3] through the pixel centres, in the camera's frame; rows from the top."""
        if (camera, size) not in self._rays:
            reach = np.tan(np.radians(self._fields[camera]) / 2)
            steps = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
            x, y = np.meshgrid(steps, -steps)
            rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3)
            self._rays[camera, size] = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        return self._rays[camera, size]
