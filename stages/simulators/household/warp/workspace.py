"""Room for many worlds of one scene on the device, and the control step that is replayed in it as one graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from stages.simulators.household import controller
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.warp import control, judging
from stages.simulators.household.warp import sight as seeing


@dataclasses.dataclass(frozen=True)
class Tables:
    """What kernels look up, for one scene.

    Attributes:
        arms: of the controller.
        goals: of the tasks.
        places: where things are in the scene's arrays.
        substeps: physics steps in a control step.
        dense: the reward is dense.
        cameras: whose images are drawn.
        image_size: height and width of images, in pixels; 0: none are drawn here.
    """

    arms: control.Arms
    goals: judging.Goals
    places: seeing.Places
    substeps: int
    dense: bool
    cameras: tuple[str, ...]
    image_size: int


@dataclasses.dataclass
class Rows:
    """All that the future of n worlds depends on.

    Attributes:
        state: float32 [n, nq + 2 nv], positions, velocities and the solver's warm start.
        targets: float64 [n, 2, control.WIDTH] of the controllers.
        task: int32 [n].
        steps: int32 [n], made in the episode.
        potential: float32 [n], of the dense reward.
    """

    state: np.ndarray
    targets: np.ndarray
    task: np.ndarray
    steps: np.ndarray
    potential: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """A copy of some worlds."""
        return Rows(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@wp.kernel(enable_backward=False)
def _load(
    state: wp.array2d[wp.float32],
    qpos: wp.array2d[wp.float32],
    qvel: wp.array2d[wp.float32],
    warmstart: wp.array2d[wp.float32],
) -> None:
    """Bring states into the physics."""
    row = wp.tid()
    positions = qpos.shape[1]
    velocities = qvel.shape[1]
    for i in range(positions):
        qpos[row, i] = state[row, i]
    for i in range(velocities):
        qvel[row, i] = state[row, positions + i]
        warmstart[row, i] = state[row, positions + velocities + i]


@wp.kernel(enable_backward=False)
def _count(step: wp.array[wp.int32]) -> None:
    """A control step of the chunk is over."""
    step[0] += 1


class Workspace:
    """Room for `capacity` worlds; all calls are made with its device and stream as the current ones.

    Attributes:
        capacity: how many worlds there is room for.
        data: MuJoCo Warp's arrays.
        ended: int32 [capacity], how worlds ended in the chunk; see `judging`.
        sight: what they look like after their last step.
    """

    def __init__(
        self,
        described: mujoco.MjModel,
        model: mjw.Model,
        benchmark: Benchmark,
        tables: Tables,
        capacity: int,
        contacts: int,
        constraints: int,
    ) -> None:
        """Allocate.

        Args:
            described: the scene.
            model: the scene on the device.
            benchmark: the tasks.
            tables: what the kernels look up.
            capacity: how many worlds.
            contacts: room for a world's contacts, on average over the worlds.
            constraints: room for the constraint rows of each world.
        """
        self.capacity = capacity
        self._described, self._model, self._tables = described, model, tables
        self.data = mjw.make_data(described, nworld=capacity, nconmax=contacts, njmax=constraints)
        self._state = wp.zeros((capacity, described.nq + 2 * described.nv), dtype=wp.float32)
        self._targets = wp.zeros((capacity, 2, control.WIDTH), dtype=wp.float64)
        self._task, self._steps, self.ended, self._solved = (wp.zeros(capacity, dtype=wp.int32) for _ in range(4))
        self._potential = wp.zeros(capacity, dtype=wp.float32)
        self.sight = seeing.room(benchmark.kit, capacity)
        self._step = wp.zeros(1, dtype=wp.int32)  # of the chunk
        self._graph: wp.Graph | None = None
        self._renderer: Any = None
        self._make_room(1)

    def put(self, rows: Rows) -> None:
        """Bring worlds in; where there are fewer than the capacity the last one fills the rest, to be ignored."""
        for name, array in self._arrays().items():
            array.assign(self._filled(getattr(rows, name)))

    def launch(self, actions: np.ndarray) -> None:
        """Start a chunk of actions [n, K, 14] on the worlds that are in."""
        length = actions.shape[1]
        if length > self._rewards.shape[1]:
            self._make_room(length)
        if self._graph is None:
            self._graph = self._captured()
        room = np.zeros((len(actions), self._rewards.shape[1] - length, controller.ACTION_DIM), np.float32)
        self._actions.assign(self._filled(np.concatenate([actions, room], axis=1)))
        for array in (self.ended, self.data.overflow, self._rewards, self._executed, self._step):
            array.zero_()
        self._load()
        mjw.kinematics(self._model, self.data)
        self._see()  # what a world looks like whose physics breaks down in the first step
        for _ in range(length):
            wp.capture_launch(self._graph)

    def step_once(self) -> None:
        """Carry out a control step without a graph: every kernel that a graph replays is compiled by it."""
        self._load()
        self._carry_out()

    def taken(self, length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rewards float32 [n, K] and which steps were executed bool [n, K], of the first n worlds in the last chunk."""
        return self._rewards.numpy()[:count, :length], self._executed.numpy()[:count, :length].astype(bool)

    def rows(self, count: int) -> Rows:
        """The first n worlds as they are after their last step."""
        return Rows(**{name: array.numpy()[:count].copy() for name, array in self._arrays().items()})

    def pose(self) -> None:
        """Compute where everything is in the worlds that are in."""
        self._load()
        mjw.kinematics(self._model, self.data)
        mjw.camlight(self._model, self.data)

    def draw(self, count: int) -> None:
        """Have the first n worlds drawn as they were posed; `drawn` waits for it."""
        self._draws().draw(count)

    def hang(self, places: np.ndarray, gallery: wp.array) -> None:
        """Have the first n worlds drawn as they were posed, into rows of a gallery: int [n]."""
        self._draws().hang(places, gallery)

    def drawn(self, count: int) -> np.ndarray:
        """What the cameras of the first n worlds saw: uint8 [n, cameras, 3, H, W], overwritten by `draw`."""
        images: np.ndarray = self._renderer.drawn(count)
        return images

    def look(self) -> None:
        """Find out what the worlds that are in look like, and what their potentials are."""
        self.pose()
        self.ended.zero_()
        self._see()
        inputs = [self._tables.goals, self._tables.places, self.sight, self._task]
        wp.launch(judging.value, dim=self.capacity, inputs=inputs, outputs=[self._solved, self._potential])

    def _draws(self) -> Any:
        """The renderer, built when something is drawn."""
        if self._renderer is None:
            # Imported late: drawing takes kernels of its own, which films and small images do without.
            from stages.simulators.household.warp.rendering import BatchRenderer

            cameras, size = self._tables.cameras, self._tables.image_size
            self._renderer = BatchRenderer(self._described, self._model, self.data, cameras, size)
        return self._renderer

    def _make_room(self, length: int) -> None:
        """Allocate what goes into and comes out of chunks of at most K = `length` steps."""
        shape = (self.capacity, length)
        self._actions = wp.zeros((*shape, controller.ACTION_DIM), dtype=wp.float32)
        self._rewards, self._executed = wp.zeros(shape, dtype=wp.float32), wp.zeros(shape, dtype=wp.int32)
        self._graph = None

    def _captured(self) -> wp.Graph:
        with wp.ScopedCapture() as capture:
            self._carry_out()
        return capture.graph

    def _carry_out(self) -> None:
        """Every launch of a control step, in order."""
        data, tables = self.data, self._tables
        moved = [tables.arms, self._actions, self._step, self.ended]
        wp.launch(control.move, dim=(self.capacity, 2), inputs=moved, outputs=[self._targets, data.ctrl])
        for _ in range(tables.substeps):
            mjw.step(self._model, data)
        # A step leaves the poses of bodies and sites one physics step behind.
        mjw.kinematics(self._model, data)
        after = [data.qpos, data.qvel, data.qacc_warmstart, self._step]
        kept = [self.ended, self._steps, self._executed, self._state]
        wp.launch(judging.keep, dim=self.capacity, inputs=after, outputs=kept)
        self._see()
        judged = [tables.goals, tables.places, self.sight, self._task, tables.dense, self._step, self._steps]
        outputs = [self.ended, self._potential, self._rewards]
        wp.launch(judging.judge, dim=self.capacity, inputs=judged, outputs=outputs)
        wp.launch(_count, dim=1, outputs=[self._step])

    def _load(self) -> None:
        physics = [self.data.qpos, self.data.qvel, self.data.qacc_warmstart]
        wp.launch(_load, dim=self.capacity, inputs=[self._state], outputs=physics)

    def _see(self) -> None:
        data = self.data
        inputs = [self._tables.places, self.ended, data.qpos, data.qvel, data.xpos, data.xmat]
        inputs += [data.site_xpos, data.site_xmat]
        wp.launch(seeing.look, dim=self.capacity, inputs=inputs, outputs=[self.sight])

    def _filled(self, values: np.ndarray) -> np.ndarray:
        if len(values) == self.capacity:
            return values
        return values[np.minimum(np.arange(self.capacity), len(values) - 1)]

    def _arrays(self) -> dict[str, wp.array]:
        return {
            "state": self._state,
            "targets": self._targets,
            "task": self._task,
            "steps": self._steps,
            "potential": self._potential,
        }
