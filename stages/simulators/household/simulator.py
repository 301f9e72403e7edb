"""The household behind the simulator interface: tasks, expert, images and films, over an engine that moves worlds."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from stages.simulators.household import backend, controller, rendering, robot
from stages.simulators.household.benchmark import EXPERT_STREAM, Benchmark, generator
from stages.simulators.household.engine import Run
from stages.simulators.household.options import Options
from stages.simulators.household.physics import Physics
from stages.simulators.household.state import PROPRIO_DIM, proprioception
from stages.simulators.interface import (
    ChunkResult,
    Episode,
    Gallery,
    Observation,
    Simulator,
    SimulatorConfigError,
    SimulatorSpec,
)

VERSION = "2.0"
_HEAD_FRAME, _WRIST_FRAME = 448, 224

Policy = Callable[[np.ndarray, int], np.ndarray]
Frames = list[list[np.ndarray]]  # of each world


class Household(Simulator):
    """N worlds, each in the scene of its task.

    Attributes:
        engine: what moves them.
    """

    def __init__(self, num_envs: int, options: Options) -> None:
        """Build the scenes; every world has to be reset before it is used."""
        self.num_envs = num_envs
        self._options = options
        self._benchmark = benchmark = Benchmark(options)
        largest = max(options.image_size, _HEAD_FRAME)
        self._scenes = [Physics(s, benchmark.kit, options.physics_frequency, largest) for s in benchmark.scenes]
        self.engine = backend.build(benchmark, num_envs, options, self._scenes)
        self._filmed_by = rendering.choose("auto" if self.engine.images else options.renderer)
        self._memory = benchmark.no_memory(num_envs)
        # Of the experts' bursts, made when the first is asked for: most episodes have no expert.
        self._streams: list[np.random.Generator | None] = [None] * num_envs
        self._was_reset = np.zeros(num_envs, dtype=bool)
        self._film = np.zeros(num_envs, dtype=bool)
        self._frame: list[np.ndarray | None] = [None] * num_envs
        self.spec = SimulatorSpec(
            name="household",
            version=f"{VERSION}, {self.engine.name}",
            renderer="mujoco_warp" if self.engine.images else self._filmed_by,
            tasks=benchmark.tasks,
            action_dim=controller.ACTION_DIM,
            proprio_dim=PROPRIO_DIM,
            image_size=(options.image_size, options.image_size),
            max_episode_steps=int(benchmark.step_limit.max()),
            deterministic=self.engine.deterministic,
            gpu=self.engine.gpu if options.images_on_gpu else None,
            wrist_cameras=options.wrist_cameras,
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
        tasks = np.array([self._benchmark.number(episode.task) for episode in episodes])
        seeds = np.array([episode.seed for episode in episodes])
        self.engine.reset(rows, tasks, seeds, self._benchmark.start(episodes))
        self._was_reset[rows] = True
        self._film[rows] = film
        for slot in slots:
            self._streams[slot] = self._frame[slot] = None
        self._memory.put(rows, self._benchmark.begin(tasks, self.engine.snapshot(rows)))

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe."""
        rows = self._rows(slots)
        images = (self.engine.images or self._images)(rows)
        proprio = proprioception(self.engine.snapshot(rows))
        return Observation(head=images[:, 0], wrist=images[:, 1:], proprio=proprio)

    def borrow(self, gallery: Gallery) -> None:
        """See Simulator.borrow."""
        self.engine.borrow(gallery)
        self.borrows = True

    def hang(self, slots: Sequence[int]) -> np.ndarray:
        """See Simulator.hang."""
        rows = self._rows(slots)
        self.engine.hang(rows)
        return proprioception(self.engine.snapshot(rows))

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """See Simulator.step_chunk."""
        expected = (len(slots), controller.ACTION_DIM)
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected:
            raise ValueError(f"actions are {list(actions.shape)}, not [{expected[0]}, K, {expected[1]}]")
        if not np.isfinite(actions).all():
            raise ValueError("an action is not a finite number")
        rows = self._rows(slots)
        filmed, others = np.flatnonzero(self._film[rows]), np.flatnonzero(~self._film[rows])
        whole, frames = Run.blank(*actions.shape[:2]), _no_frames(len(rows))
        whole.put(others, self.engine.run(rows[others], actions[others]))
        run, shot = self._step_by_step(
            rows[filmed], actions.shape[1], lambda active, step: actions[filmed[active], step]
        )
        whole.put(filmed, run)
        for row, of_one in zip(filmed, shot, strict=True):
            frames[row] = of_one
        return _result(whole, frames)

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

        return actions, clean, _result(*self._step_by_step(rows, length, decide))

    def save_state(self, slot: int) -> bytes:
        """See Simulator.save_state."""
        return pickle.dumps(
            {
                "engine": self.engine.save(slot),
                "memory": self._memory.take(np.array([slot])),
                "stream": self._stream(slot).bit_generator.state,
                "film": self._film[slot],
                "frame": self._frame[slot],
            }
        )

    def restore_state(self, slot: int, state: bytes) -> None:
        """See Simulator.restore_state."""
        saved = pickle.loads(state)
        self.engine.restore(slot, saved["engine"])
        self._memory.put(np.array([slot]), saved["memory"])
        self._stream(slot).bit_generator.state = saved["stream"]
        self._was_reset[slot] = True
        self._film[slot], self._frame[slot] = saved["film"], saved["frame"]

    def close(self) -> None:
        """See Simulator.close."""
        if "_renderer" in vars(self):
            self._renderer.close()
        self.engine.close()

    def frame(self, slot: int) -> np.ndarray:
        """What a world looks like to an audience: wrist cameras on the left, the head camera on the right.

        Args:
            slot: the world.

        Returns:
            uint8 [448, 672, 3], RGB.
        """
        model, data = self.engine.view(slot)
        mujoco.mj_camlight(model, data)
        left, right = (self._renderer.draw(model, data, f"{side}_wrist", _WRIST_FRAME) for side in robot.SIDES)
        if self._renderer.name == "raycast":  # its cost is its pixels
            head = self._renderer.draw(model, data, "head", _HEAD_FRAME // 2).repeat(2, axis=0).repeat(2, axis=1)
        else:
            head = self._renderer.draw(model, data, "head", _HEAD_FRAME)
        return np.concatenate([np.concatenate([left, right], axis=0), head], axis=1)

    @functools.cached_property
    def _renderer(self) -> rendering.Renderer:
        """Opened when the first image is drawn: a process can be forked until OpenGL is up, and not afterwards."""
        return rendering.build(self._filmed_by, self._scenes[0].model)

    def _step_by_step(self, rows: np.ndarray, length: int, decide: Policy) -> tuple[Run, Frames]:
        """Step worlds through a chunk; `decide` gives the actions [a, 14] of the still active rows [a] at a step."""
        whole, frames = Run.blank(len(rows), length), _no_frames(len(rows))
        for step in range(length):
            active = np.flatnonzero(~self.engine.done[rows])
            if not len(active):
                break
            run = self.engine.run(rows[active], decide(active, step)[:, None])
            whole.rewards[active, step], whole.executed[active, step] = run.rewards[:, 0], run.executed[:, 0]
            whole.success[active], whole.truncated[active] = run.success, run.truncated
            whole.broken[active] = run.broken
            for i in active[self._film[rows[active]]]:
                frames[i].append(self._filmed(rows[i]))
        return whole, frames

    def _expert_step(self, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The expert's actions [a, 14] and whether they are its own [a]."""
        memory, targets = self._memory.take(worlds), self.engine.targets(worlds)
        actions, memory = self._benchmark.act(self.engine.task[worlds], self.engine.snapshot(worlds), targets, memory)
        clean = np.ones(len(worlds), dtype=bool)
        if self._options.expert_perturbation > 0:
            streams = [self._stream(slot) for slot in worlds]
            actions, clean, memory = self._benchmark.perturb(
                actions, memory, streams, self._options.expert_perturbation
            )
        self._memory.put(worlds, memory)
        return actions.astype(np.float32), clean

    def _stream(self, slot: int) -> np.random.Generator:
        """The random stream of a world's expert."""
        stream = self._streams[slot]
        if stream is None:
            engine = self.engine
            episode = Episode(self._benchmark.tasks[engine.task[slot]].name, int(engine.seed[slot]))
            stream = self._streams[slot] = generator(episode, EXPERT_STREAM)
        return stream

    def _rows(self, slots: Sequence[int]) -> np.ndarray:
        rows = np.asarray(slots, dtype=np.int64)
        if not self._was_reset[rows].all():
            raise ValueError(f"worlds {rows[~self._was_reset[rows]].tolist()} were never reset")
        return rows

    def _images(self, rows: np.ndarray) -> np.ndarray:
        """What the cameras of worlds see, drawn one after another: uint8 [n, cameras, 3, H, W]."""
        size, cameras = self._options.image_size, self._options.cameras
        images = np.empty((len(rows), len(cameras), size, size, 3), dtype=np.uint8)
        for i, slot in enumerate(rows):
            model, data = self.engine.view(slot)
            mujoco.mj_camlight(model, data)
            for j, camera in enumerate(cameras):
                images[i, j] = self._renderer.draw(model, data, camera, size)
        return np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3))

    def _filmed(self, slot: int) -> np.ndarray:
        """The frame of a world's last step; between the moments that are drawn it is the one before.

        An episode's first and last steps are always drawn.
        """
        every = self._options.action_frequency // self._options.rendering_frequency
        frame = self._frame[slot]
        if frame is None or self.engine.done[slot] or self.engine.steps[slot] % every == 1 % every:
            frame = self._frame[slot] = self.frame(slot)
        return frame


def _no_frames(count: int) -> Frames:
    return [[] for _ in range(count)]


def _result(run: Run, frames: Frames) -> ChunkResult:
    return ChunkResult(
        run.rewards, run.executed, run.success, run.success.copy(), run.truncated, frames, broken=run.broken
    )
