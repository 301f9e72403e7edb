"""The household on the CPU: a MuJoCo model a scene, N worlds of data, the task logic over all of them at once."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from stages.simulators.household import controller, rendering, robot
from stages.simulators.household.benchmark import EXPERT_STREAM, Benchmark, generator
from stages.simulators.household.options import Options
from stages.simulators.household.physics import Physics
from stages.simulators.household.scene import CAMERAS
from stages.simulators.household.state import PROPRIO_DIM, Snapshot, proprioception
from stages.simulators.interface import (
    ChunkResult,
    Episode,
    Observation,
    Simulator,
    SimulatorConfigError,
    SimulatorSpec,
)

VERSION = "2.0"
_HEAD_FRAME, _WRIST_FRAME = 448, 224
_NEVER_RESET = -1
# The numbers that belong to one world, an array each.
_PER_WORLD = ("_task", "_seed", "_steps", "_potential", "_done", "_film")

Policy = Callable[[np.ndarray, int], np.ndarray]


class PhysicsError(RuntimeError):
    """A world's state is not one that physics can go on from."""


class Household(Simulator):
    """N worlds, each in the scene of its task."""

    def __init__(self, num_envs: int, options: Options) -> None:
        """Build the scenes; every world has to be reset before it is used."""
        self.num_envs = num_envs
        self._options = options
        self._benchmark = benchmark = Benchmark(options)
        largest = max(options.image_size, _HEAD_FRAME)
        self._scenes = [Physics(s, benchmark.kit, options.physics_frequency, largest) for s in benchmark.scenes]
        self._drawn_by = rendering.choose(options.renderer)
        self._worlds = [mujoco.MjData(self._scenes[0].model) for _ in range(num_envs)]
        self._targets = controller.home(num_envs, robot.HOME_JOINTS)
        self._memory = benchmark.no_memory(num_envs)
        self._streams = [generator(Episode("", 0), EXPERT_STREAM) for _ in range(num_envs)]
        self._task = np.zeros(num_envs, dtype=np.int64)
        self._seed = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.full(num_envs, _NEVER_RESET)
        self._potential = np.zeros(num_envs)
        self._done = np.ones(num_envs, dtype=bool)
        self._film = np.zeros(num_envs, dtype=bool)
        self._frame: list[np.ndarray | None] = [None] * num_envs
        self.spec = SimulatorSpec(
            name="household",
            version=f"{VERSION}, mujoco {mujoco.__version__}",
            renderer=self._drawn_by,
            tasks=benchmark.tasks,
            action_dim=controller.ACTION_DIM,
            proprio_dim=PROPRIO_DIM,
            image_size=(options.image_size, options.image_size),
            max_episode_steps=int(benchmark.step_limit.max()),
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
        start = self._benchmark.start(episodes)
        self._targets.put(rows, controller.home(len(rows), robot.HOME_JOINTS))
        self._seed[rows] = [episode.seed for episode in episodes]
        self._steps[rows] = 0
        self._done[rows] = False
        self._film[rows] = film
        for i, slot in enumerate(slots):
            self._streams[slot] = generator(episodes[i], EXPERT_STREAM)
            self._frame[slot] = None
            self._enter(slot, self._benchmark.number(episodes[i].task))
            self._physics(slot).place(self._worlds[slot], start, i)
            self._command(slot)
            mujoco.mj_forward(self._physics(slot).model, self._worlds[slot])
        state = self._snapshot(rows)
        self._memory.put(rows, self._benchmark.begin(self._task[rows], state))
        self._potential[rows] = self._benchmark.goals.potential(self._task[rows], state)

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe."""
        rows = self._rows(slots)
        size = self._options.image_size
        images = np.empty((len(slots), len(CAMERAS), size, size, 3), dtype=np.uint8)
        for i, slot in enumerate(slots):
            model, data = self._physics(slot).model, self._worlds[slot]
            mujoco.mj_camlight(model, data)
            for j, camera in enumerate(CAMERAS):
                images[i, j] = self._renderer.draw(model, data, camera, size)
        planes = np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3))
        proprio = proprioception(self._snapshot(rows))
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
        row = np.array([slot])
        return pickle.dumps(
            {
                "physics": self._physics(slot).save(self._worlds[slot]),
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
        self._enter(slot, saved["_task"])
        self._physics(slot).restore(self._worlds[slot], saved["physics"])
        row = np.array([slot])
        self._targets.put(row, saved["targets"])
        self._memory.put(row, saved["memory"])
        self._streams[slot].bit_generator.state = saved["stream"]
        self._frame[slot] = saved["frame"]
        for name in _PER_WORLD:
            getattr(self, name)[slot] = saved[name]

    def close(self) -> None:
        """See Simulator.close."""
        if "_renderer" in vars(self):
            self._renderer.close()

    def frame(self, slot: int) -> np.ndarray:
        """What a world looks like to an audience: wrist cameras on the left, the head camera on the right.

        Args:
            slot: the world.

        Returns:
            uint8 [448, 672, 3], RGB.
        """
        model, data = self._physics(slot).model, self._worlds[slot]
        mujoco.mj_camlight(model, data)
        left, right = (self._renderer.draw(model, data, f"{side}_wrist", _WRIST_FRAME) for side in robot.SIDES)
        if self._drawn_by == "raycast":  # its cost is its pixels
            head = self._renderer.draw(model, data, "head", _HEAD_FRAME // 2).repeat(2, axis=0).repeat(2, axis=1)
        else:
            head = self._renderer.draw(model, data, "head", _HEAD_FRAME)
        return np.concatenate([np.concatenate([left, right], axis=0), head], axis=1)

    @functools.cached_property
    def _renderer(self) -> rendering.Renderer:
        """Opened when the first image is drawn: a process can be forked until OpenGL is up, and not afterwards."""
        return rendering.build(self._drawn_by, self._scenes[0].model)

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
            result.truncated[active] = ~success & (
                self._steps[worlds] >= self._benchmark.step_limit[self._task[worlds]]
            )
            self._done[worlds] = success | result.truncated[active]
            for i in active[self._film[worlds]]:
                result.frames[i].append(self._filmed(slots[i]))
        return result

    def _advance(self, worlds: np.ndarray, actions: np.ndarray) -> None:
        period = 1 / self._options.action_frequency
        self._targets.put(worlds, controller.move(self._targets.take(worlds), actions, period, robot.HOME_JOINTS))
        self._steps[worlds] += 1
        for slot in worlds:
            self._command(slot)
            if not self._physics(slot).step(self._worlds[slot], self._options.substeps):
                task = self._benchmark.tasks[self._task[slot]].name
                raise PhysicsError(
                    f"household: the physics of task {task}, seed {self._seed[slot]} broke down at step "
                    f"{self._steps[slot]}"
                )

    def _judge(self, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Success [a] and reward [a] of the step just made."""
        state = self._snapshot(worlds)
        success = self._benchmark.goals.succeeded(self._task[worlds], state)
        reward = success.astype(np.float64)
        if self._options.reward == "dense":
            potential = self._benchmark.goals.potential(self._task[worlds], state)
            reward += potential - self._potential[worlds]
            self._potential[worlds] = potential
        return success, reward

    def _expert_step(self, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The expert's actions [a, 14] and whether they are its own [a]."""
        memory = self._memory.take(worlds)
        targets = self._targets.take(worlds)
        actions, memory = self._benchmark.act(self._task[worlds], self._snapshot(worlds), targets, memory)
        clean = np.ones(len(worlds), dtype=bool)
        if self._options.expert_perturbation > 0:
            streams = [self._streams[slot] for slot in worlds]
            actions, clean, memory = self._benchmark.perturb(
                actions, memory, streams, self._options.expert_perturbation
            )
        self._memory.put(worlds, memory)
        return actions.astype(np.float32), clean

    def _rows(self, slots: Sequence[int]) -> np.ndarray:
        rows = np.asarray(slots, dtype=np.int64)
        if (self._steps[rows] == _NEVER_RESET).any():
            raise ValueError(f"worlds {rows[self._steps[rows] == _NEVER_RESET].tolist()} were never reset")
        return rows

    def _physics(self, slot: int) -> Physics:
        """The scene that a world is in."""
        return self._scenes[self._benchmark.scene[self._task[slot]]]

    def _enter(self, slot: int, task: int) -> None:
        """Give a world the task; another scene needs other data."""
        before = self._physics(slot)
        self._task[slot] = task
        after = self._physics(slot)
        if after is not before:
            self._worlds[slot] = mujoco.MjData(after.model)

    def _command(self, slot: int) -> None:
        """Hand a world's targets to its actuators."""
        self._physics(slot).command(self._worlds[slot], self._targets.joints[slot], self._targets.finger[slot])

    def _snapshot(self, worlds: np.ndarray) -> Snapshot:
        state = self._benchmark.kit.empty(len(worlds))
        for row, slot in enumerate(worlds):
            self._physics(slot).read(self._worlds[slot], state, row)
        self._benchmark.kit.locate(state)
        return state

    def _filmed(self, slot: int) -> np.ndarray:
        """The frame of a world's last step; between the moments that are drawn it is the one before."""
        every = self._options.action_frequency // self._options.rendering_frequency
        frame = self._frame[slot]
        if frame is None or self._steps[slot] % every == 0:
            frame = self._frame[slot] = self.frame(slot)
        return frame
