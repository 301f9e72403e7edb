"""One scene in MuJoCo, and where the numbers that tasks and controller speak of are in its arrays."""

from __future__ import annotations

import sys

import mujoco
import numpy as np

from stages.simulators.household import controller, robot, scene
from stages.simulators.household.kit import Kit, Scene
from stages.simulators.household.layouts import Start
from stages.simulators.household.state import Snapshot

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
# By itself MuJoCo would write them to MUJOCO_LOG.TXT, wherever the process happens to run.
mujoco.set_mju_user_warning(lambda message: print(f"mujoco: {message}", file=sys.stderr, flush=True))
_BROKEN = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{name}")) for name in ("QPOS", "QVEL", "QACC")]


class Physics:
    """A scene's model; each world in that scene has an MjData of its own.

    Attributes:
        model: the compiled scene.
    """

    def __init__(self, described: Scene, kit: Kit, physics_frequency: int, largest_image: int) -> None:
        """Build a scene; the other arguments are those of `scene.build`."""
        self.model = model = mujoco.MjModel.from_xml_string(scene.build(described, physics_frequency, largest_image))
        self._objects = np.array([kit.object(prop) for prop in described.props])
        self._drawers = np.array([kit.drawer(drawer) for drawer in described.drawers], dtype=np.int64)
        self._sites = np.array([model.site(f"{side}_grip").id for side in robot.SIDES])
        self._bodies = np.array([model.body(prop.name).id for prop in described.props])
        joints = model.body_jntadr[self._bodies]
        self._poses = model.jnt_qposadr[joints]
        self._velocities = model.jnt_dofadr[joints][:, None] + np.arange(3)
        self._slides = np.array([model.joint(drawer.name).qposadr[0] for drawer in described.drawers], dtype=np.int64)
        self._arms = np.array(
            [[model.joint(f"{side}_joint{i + 1}").qposadr[0] for i in range(7)] for side in robot.SIDES]
        )
        self._fingers = np.array(
            [[model.joint(f"{side}_finger_{name}").qposadr[0] for name in "ab"] for side in robot.SIDES]
        )

    def positions(self, start: Start, rows: np.ndarray) -> np.ndarray:
        """What qpos [n, nq] is with objects and drawers where n rows of `start` have them, and the arms home."""
        qpos = np.tile(self.model.qpos0, (len(rows), 1))
        qpos[:, self._arms] = robot.HOME_JOINTS
        qpos[:, self._fingers] = controller.FINGER_OPEN
        qpos[:, self._slides] = start.drawer[rows[:, None], self._drawers]
        for address, number in zip(self._poses, self._objects, strict=True):
            half = start.yaw[rows, number] / 2
            zero = np.zeros(len(rows))
            qpos[:, address : address + 3] = start.position[rows, number]
            qpos[:, address + 3 : address + 7] = np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)
        return qpos

    def place(self, data: mujoco.MjData, start: Start, row: int) -> None:
        """Put a world's objects and drawers where a row of `start` has them, and the arms home."""
        mujoco.mj_resetData(self.model, data)
        data.qpos[:] = self.positions(start, np.array([row]))[0]

    def addresses(self, objects: int, drawers: int) -> dict[str, np.ndarray]:
        """Where things are in the model's arrays, by their numbers in a kit; -1 where the scene does not have them.

        Args:
            objects: O, how many the kit has.
            drawers: D, likewise.

        Returns:
            body: [O] of an object; velocity: [O] its address in qvel; slide: [D] a drawer's address in qpos;
            site: [2] of a hand's grip point; finger: [2, 2] addresses in qpos of its fingers.
        """
        body, velocity, slide = np.full(objects, -1), np.full(objects, -1), np.full(drawers, -1)
        body[self._objects], velocity[self._objects] = self._bodies, self._velocities[:, 0]
        slide[self._drawers] = self._slides
        return {"body": body, "velocity": velocity, "slide": slide, "site": self._sites, "finger": self._fingers}

    def command(self, data: mujoco.MjData, joints: np.ndarray, finger: np.ndarray) -> None:
        """Hand targets of joints [2, 7] and fingers [2] to a world's actuators."""
        ctrl = data.ctrl.reshape(2, -1)
        ctrl[:, :-2] = joints
        ctrl[:, -2:] = finger[:, None]

    def step(self, data: mujoco.MjData, substeps: int) -> bool:
        """Advance a world by some physics steps; False if its state is no longer one that physics can go on from."""
        mujoco.mj_step(self.model, data, substeps)
        # mj_step leaves the poses of bodies and sites one physics step behind.
        mujoco.mj_kinematics(self.model, data)
        return not data.warning.number[_BROKEN].any()

    def read(self, data: mujoco.MjData, state: Snapshot, row: int) -> None:
        """Write what a world looks like into a row of `state`; rows of objects that it does not have stay."""
        state.hand_position[row] = data.site_xpos[self._sites]
        state.hand_rotation[row] = data.site_xmat[self._sites].reshape(2, 3, 3)
        state.opening[row] = data.qpos[self._fingers].sum(axis=1)
        state.object_position[row, self._objects] = data.xpos[self._bodies]
        state.object_rotation[row, self._objects] = data.xmat[self._bodies].reshape(-1, 3, 3)
        velocity = data.qvel[self._velocities]
        state.object_speed[row, self._objects] = np.sqrt(np.sum(velocity * velocity, axis=-1))
        if len(self._slides):
            state.drawer[row, self._drawers] = data.qpos[self._slides]

    def save(self, data: mujoco.MjData) -> np.ndarray:
        """Everything that a world's future depends on."""
        numbers = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, data, numbers, STATE)
        return numbers

    def restore(self, data: mujoco.MjData, numbers: np.ndarray) -> None:
        """Put a world back to where `save` was called."""
        mujoco.mj_resetData(self.model, data)
        mujoco.mj_setState(self.model, data, numbers, STATE)
        mujoco.mj_forward(self.model, data)
        # mj_forward moves the warm start, which the state fixes too.
        mujoco.mj_setState(self.model, data, numbers, STATE)
