"""The household on the CPU: one MuJoCo model, N worlds of data, the task logic over all of them at once."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from stages.simulators.household import controller, expert, rendering, scene, tasks
from stages.simulators.household.options import Options
from stages.simulators.interface import (
    ChunkResult,
    Episode,
    Observation,
    Simulator,
    SimulatorConfigError,
    SimulatorSpec,
)

VERSION = "1.0"
_HEAD_FRAME, _WRIST_FRAME = 448, 224
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_LAYOUT_STREAM, _EXPERT_STREAM = 0, 1
_NEVER_RESET = -1
# The numbers that belong to one world, an array each.
_PER_WORLD = ("_task", "_side", "_steps", "_potential", "_done", "_film")

Policy = Callable[[np.ndarray, int], np.ndarray]


class Household(Simulator):
    """N worlds of the household scene."""

    def __init__(self, num_envs: int, options: Options) -> None:
        """Build the scene and its worlds; every world has to be reset before it is used."""
        self.num_envs = num_envs
        self._options = options
        cubes = tasks.cube_count(options)
        largest = max(options.image_size, _HEAD_FRAME)
        text = scene.build(options.object_size, options.plate_radius, cubes, options.physics_frequency, largest)
        self._model = mujoco.MjModel.from_xml_string(text)
        self._worlds = [mujoco.MjData(self._model) for _ in range(num_envs)]
        self._index = _Index(self._model, cubes)
        self._renderer = rendering.build(rendering.choose(options.renderer), self._model)
        self._targets = controller.home(num_envs, scene.HOME_JOINTS)
        self._memory = expert.fresh(num_envs)
        self._streams = [tasks.generator("", 0, _EXPERT_STREAM) for _ in range(num_envs)]
        self._task = np.zeros(num_envs, dtype=np.int64)
        self._side = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.full(num_envs, _NEVER_RESET)
        self._potential = np.zeros(num_envs)
        self._done = np.ones(num_envs, dtype=bool)
        self._film = np.zeros(num_envs, dtype=bool)
        self._frame: list[np.ndarray | None] = [None] * num_envs
        self.spec = SimulatorSpec(
            name="household",
            version=f"{VERSION}, mujoco {mujoco.__version__}",
            renderer=self._renderer.name,
            tasks=tasks.described(options.tasks),
            action_dim=controller.ACTION_DIM,
            proprio_dim=tasks.PROPRIO_DIM,
            image_size=(options.image_size, options.image_size),
            max_episode_steps=options.max_episode_steps,
            deterministic=True,
        )

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        """See Simulator.reset."""
        for episode in episodes:
            if episode.task not in self._options.tasks:
                raise SimulatorConfigError(
                    f"household: no task {episode.task!r} here; tasks: {', '.join(self._options.tasks)}"
                )
        if not len(slots):
            return
        rows = np.asarray(slots)
        names = [episode.task for episode in episodes]
        layout = tasks.sample_layouts(
            names, [tasks.generator(episode.task, episode.seed, _LAYOUT_STREAM) for episode in episodes], self._options
        )
        self._targets.put(rows, controller.home(len(rows), scene.HOME_JOINTS))
        self._memory.put(rows, expert.fresh(len(rows)))
        self._task[rows] = tasks.task_ids(names)
        self._side[rows] = layout.side
        self._steps[rows] = 0
        self._done[rows] = False
        self._film[rows] = film
        for i, slot in enumerate(slots):
            self._streams[slot] = tasks.generator(episodes[i].task, episodes[i].seed, _EXPERT_STREAM)
            self._frame[slot] = None
            data = self._worlds[slot]
            mujoco.mj_resetData(self._model, data)
            self._index.place(data, layout.position[i], layout.yaw[i])
            self._command(slot)
            mujoco.mj_forward(self._model, data)
        self._potential[rows] = tasks.potential(self._task[rows], self._snapshot(rows), self._options)

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe."""
        rows = self._rows(slots)
        size = self._options.image_size
        images = np.empty((len(slots), len(scene.CAMERAS), size, size, 3), dtype=np.uint8)
        for i, slot in enumerate(slots):
            mujoco.mj_camlight(self._model, self._worlds[slot])
            for j, camera in enumerate(scene.CAMERAS):
                images[i, j] = self._renderer.draw(self._worlds[slot], camera, size)
        planes = np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3))
        proprio = tasks.proprioception(self._snapshot(rows))
        return Observation(head=planes[:, 0], wrist=planes[:, 1:], proprio=proprio)

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """See Simulator.step_chunk."""
        expected = (len(slots), controller.ACTION_DIM)
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected:
            raise ValueError(f"actions are {list(actions.shape)}, not [{expected[0]}, K, {expected[1]}]")
        if not np.isfinite(actions).all():
            raise ValueError("an action is not a finite number")
        return self._run(slots, actions.shape[1], lambda active, step: actions[active, step])

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        """See Simulator.expert_chunk."""
        rows = self._rows(slots)
        actions = np.zeros((len(rows), length, controller.ACTION_DIM), dtype=np.float32)
        clean = np.ones((len(rows), length), dtype=bool)

        def decide(active: np.ndarray, step: int) -> np.ndarray:
            worlds = rows[active]
            chosen, clean[active, step] = self._expert_step(worlds)
            # Later steps hold the last executed action until they are executed themselves.
            actions[active, step:] = chosen[:, None]
            return chosen

        result = self._run(slots, length, decide)
        return actions, clean, result

    def save_state(self, slot: int) -> bytes:
        """See Simulator.save_state."""
        physics = np.empty(mujoco.mj_stateSize(self._model, _STATE))
        mujoco.mj_getState(self._model, self._worlds[slot], physics, _STATE)
        row = np.array([slot])
        return pickle.dumps(
            {
                "physics": physics,
                "targets": self._targets.take(row),
                "memory": self._memory.take(row),
                "stream": self._streams[slot].bit_generator.state,
                "frame": self._frame[slot],
                **{name: getattr(self, name)[slot] for name in _PER_WORLD},
            }
        )

    def restore_state(self, slot: int, state: bytes) -> None:
        """See Simulator.restore_state."""
        saved = pickle.loads(state)
        data = self._worlds[slot]
        mujoco.mj_resetData(self._model, data)
        mujoco.mj_setState(self._model, data, saved["physics"], _STATE)
        mujoco.mj_forward(self._model, data)
        # mj_forward moves the warm start, which the state fixes too.
        mujoco.mj_setState(self._model, data, saved["physics"], _STATE)
        row = np.array([slot])
        self._targets.put(row, saved["targets"])
        self._memory.put(row, saved["memory"])
        self._streams[slot].bit_generator.state = saved["stream"]
        self._frame[slot] = saved["frame"]
        for name in _PER_WORLD:
            getattr(self, name)[slot] = saved[name]

    def close(self) -> None:
        """See Simulator.close."""
        self._renderer.close()

    def _run(self, slots: Sequence[int], length: int, decide: Policy) -> ChunkResult:
        """Step worlds through a chunk; `decide` gives the actions [a, 14] of the still active rows [a] at a step."""
        rows = self._rows(slots)
        count = len(rows)
        result = ChunkResult(
            rewards=np.zeros((count, length), dtype=np.float32),
            executed=np.zeros((count, length), dtype=bool),
            success=np.zeros(count, dtype=bool),
            terminated=np.zeros(count, dtype=bool),
            truncated=np.zeros(count, dtype=bool),
            frames=[[] for _ in range(count)],
        )
        for step in range(length):
            active = np.flatnonzero(~self._done[rows])
            if not len(active):
                break
            worlds = rows[active]
            self._advance(worlds, decide(active, step))
            success, reward = self._judge(worlds)
            result.rewards[active, step] = reward
            result.executed[active, step] = True
            result.success[active] = result.terminated[active] = success
            result.truncated[active] = ~success & (self._steps[worlds] >= self._options.max_episode_steps)
            self._done[worlds] = success | result.truncated[active]
            for i in active[self._film[worlds]]:
                result.frames[i].append(self._filmed(slots[i]))
        return result

    def _advance(self, worlds: np.ndarray, actions: np.ndarray) -> None:
        period = 1 / self._options.action_frequency
        self._targets.put(worlds, controller.move(self._targets.take(worlds), actions, period, scene.HOME_JOINTS))
        self._steps[worlds] += 1
        for slot in worlds:
            self._command(slot)
            mujoco.mj_step(self._model, self._worlds[slot], self._options.substeps)
            # mj_step leaves the poses of bodies and sites one physics step behind.
            mujoco.mj_kinematics(self._model, self._worlds[slot])

    def _judge(self, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Success [a] and reward [a] of the step just made."""
        state = self._snapshot(worlds)
        success = tasks.succeeded(self._task[worlds], state, self._options)
        reward = success.astype(np.float64)
        if self._options.reward == "dense":
            potential = tasks.potential(self._task[worlds], state, self._options)
            reward += potential - self._potential[worlds]
            self._potential[worlds] = potential
        return success, reward

    def _expert_step(self, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The expert's actions [a, 14] and whether they are its own [a]."""
        memory = self._memory.take(worlds)
        sides = self._side[worlds]
        targets = self._targets.take(worlds)
        actions, memory = expert.act(self._task[worlds], sides, self._snapshot(worlds), targets, memory, self._options)
        clean = np.ones(len(worlds), dtype=bool)
        if self._options.expert_perturbation > 0:
            streams = [self._streams[slot] for slot in worlds]
            actions, clean, memory = expert.perturb(actions, sides, memory, streams, self._options.expert_perturbation)
        self._memory.put(worlds, memory)
        return actions.astype(np.float32), clean

    def _rows(self, slots: Sequence[int]) -> np.ndarray:
        rows = np.asarray(slots, dtype=np.int64)
        if (self._steps[rows] == _NEVER_RESET).any():
            raise ValueError(f"worlds {rows[self._steps[rows] == _NEVER_RESET].tolist()} were never reset")
        return rows

    def _command(self, slot: int) -> None:
        """Hand a world's targets to its actuators."""
        ctrl = self._worlds[slot].ctrl.reshape(2, -1)
        ctrl[:, :-2] = self._targets.joints[slot]
        ctrl[:, -2:] = self._targets.finger[slot][:, None]

    def _snapshot(self, worlds: np.ndarray) -> tasks.Snapshot:
        return self._index.snapshot([self._worlds[slot] for slot in worlds])

    def _filmed(self, slot: int) -> np.ndarray:
        """The frame of a world's last step: wrist cameras on the left, head camera on the right."""
        every = self._options.action_frequency // self._options.rendering_frequency
        last = self._frame[slot]
        if last is not None and self._steps[slot] % every:
            return last
        data = self._worlds[slot]
        mujoco.mj_camlight(self._model, data)
        left, right = (self._renderer.draw(data, f"{side}_wrist", _WRIST_FRAME) for side in scene.SIDES)
        if self._renderer.name == "raycast":  # its cost is its pixels
            head = self._renderer.draw(data, "head", _HEAD_FRAME // 2).repeat(2, axis=0).repeat(2, axis=1)
        else:
            head = self._renderer.draw(data, "head", _HEAD_FRAME)
        frame = np.concatenate([np.concatenate([left, right], axis=0), head], axis=1)
        self._frame[slot] = frame
        return frame


class _Index:
    """Where a world's numbers are in MuJoCo's arrays."""

    def __init__(self, model: mujoco.MjModel, cubes: int) -> None:
        names = scene.object_names(cubes)
        self._sites = np.array([model.site(f"{side}_grip").id for side in scene.SIDES])
        self._bodies = np.array([model.body(name).id for name in names])
        joints = model.body_jntadr[self._bodies]
        self._poses = model.jnt_qposadr[joints]
        self._velocities = model.jnt_dofadr[joints][:, None] + np.arange(3)
        self._arms = np.array(
            [[model.joint(f"{side}_joint{i + 1}").qposadr[0] for i in range(7)] for side in scene.SIDES]
        )
        self._fingers = np.array(
            [[model.joint(f"{side}_finger_{name}").qposadr[0] for name in "ab"] for side in scene.SIDES]
        )

    def place(self, data: mujoco.MjData, position: np.ndarray, yaw: np.ndarray) -> None:
        """Put the objects [O, 3], [O] down and the arms home."""
        data.qpos[self._arms] = scene.HOME_JOINTS
        data.qpos[self._fingers] = controller.FINGER_OPEN
        for address, point, angle in zip(self._poses, position, yaw, strict=True):
            data.qpos[address : address + 7] = [*point, np.cos(angle / 2), 0, 0, np.sin(angle / 2)]

    def snapshot(self, worlds: list[mujoco.MjData]) -> tasks.Snapshot:
        """The true state of some worlds."""
        speed = np.array([data.qvel[self._velocities] for data in worlds])
        return tasks.Snapshot(
            hand_position=np.array([data.site_xpos[self._sites] for data in worlds]),
            hand_rotation=np.array([data.site_xmat[self._sites] for data in worlds]).reshape(-1, 2, 3, 3),
            opening=np.array([data.qpos[self._fingers].sum(axis=1) for data in worlds]),
            object_position=np.array([data.xpos[self._bodies] for data in worlds]),
            object_rotation=np.array([data.xmat[self._bodies] for data in worlds]).reshape(len(worlds), -1, 3, 3),
            object_speed=np.linalg.norm(speed, axis=-1),
        )
