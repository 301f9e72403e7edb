"""The household's worlds in MuJoCo Warp: a thousand of them advance together, a batch a scene."""

from __future__ import annotations

import sys
import time
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from stages.simulators.household import controller, robot
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.engine import Engine, Run
from stages.simulators.household.layouts import Start
from stages.simulators.household.options import Options
from stages.simulators.household.physics import Physics
from stages.simulators.household.state import Snapshot
from stages.simulators.household.warp import control, judging, rendering
from stages.simulators.household.warp import sight as seeing
from stages.simulators.household.warp.batch import Batch
from stages.simulators.household.warp.device import Device
from stages.simulators.household.warp.workspace import Rows, Tables
from stages.simulators.interface import Episode, Gallery

# The numbers that belong to one world, an array each.
_PER_WORLD = ("task", "seed", "steps", "done", "_state", "_targets", "_potential")


class WarpWorlds(Engine):
    """N worlds, each in the batch of its scene while it is being moved.

    On the CPU the same episode and actions give the same numbers. On a GPU they do not, to the last bit: contacts are
    found in an order that varies from run to run, and sums over them are rounded in that order.
    """

    def __init__(
        self, benchmark: Benchmark, num_envs: int, options: Options, scenes: list[Physics], device: Device
    ) -> None:
        """Bring the scenes to the device and compile what moves them.

        Raises:
            SimulatorConfigError: the device has too little memory for the worlds.
        """
        super().__init__(benchmark, num_envs)
        self.name = f"mujoco_warp {mjw.__version__}, mujoco {mujoco.__version__}, warp {wp.__version__}, {device.name}"
        self.deterministic = not device.is_gpu
        if rendering.draws(options, device):
            self.images, self.gpu = self._draw, device.uuid
        self._scenes = scenes
        self._images = np.empty((0, len(options.cameras), 3, options.image_size, options.image_size), np.uint8)
        self._data = [mujoco.MjData(physics.model) for physics in scenes]
        self._state = np.zeros((num_envs, max(_width(physics.model) for physics in scenes)), np.float32)
        self._targets = control.packed(controller.home(num_envs, robot.HOME_JOINTS))
        self._potential = np.zeros(num_envs, np.float32)
        self._seen = benchmark.kit.empty(num_envs)
        self._batches = self._build(options, device)
        self._device = device
        self._gallery: wp.array | None = None
        self._first = 0  # our first row in the gallery

    def run(self, slots: np.ndarray, actions: np.ndarray) -> Run:
        """See Engine.run."""
        result = Run.blank(*actions.shape[:2])
        active = np.flatnonzero(~self.done[slots])
        parts = [(scene, active[rows]) for scene, rows in self._by_scene(slots[active])]
        for scene, rows in parts:  # all are under way before the first is waited for
            self._batches[scene].start(self._taken(slots[rows], scene), actions[rows])
        for scene, rows in parts:
            outcome = self._batches[scene].finish()
            self._keep(slots[rows], outcome.rows, outcome.seen)
            self.steps[slots[rows]] = outcome.rows.steps
            self.done[slots[rows]] = outcome.ended != judging.GOES_ON
            result.rewards[rows], result.executed[rows] = outcome.rewards, outcome.executed
            result.success[rows] = outcome.ended == judging.SUCCESS
            result.broken[rows] = broken = outcome.ended == judging.BROKEN
            result.truncated[rows] = broken | (outcome.ended == judging.TRUNCATED)
            for slot in slots[rows[broken]]:
                self._say_broken(slot)
        return result

    def snapshot(self, slots: np.ndarray) -> Snapshot:
        """See Engine.snapshot."""
        return self._seen.take(slots)

    def targets(self, slots: np.ndarray) -> controller.Targets:
        """See Engine.targets."""
        return control.unpacked(self._targets[slots])

    def view(self, slot: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """See Engine.view."""
        scene = self.benchmark.scene[self.task[slot]]
        model, data = self._scenes[scene].model, self._data[scene]
        data.qpos[:] = self._state[slot, : model.nq]
        mujoco.mj_kinematics(model, data)
        return model, data

    def _draw(self, slots: np.ndarray) -> np.ndarray:
        """See Engine.images."""
        parts = self._by_scene(slots)
        for scene, rows in parts:  # as in `run`
            self._batches[scene].draw(self._taken(slots[rows], scene))
        if len(parts) == 1:
            return self._batches[parts[0][0]].drawn(len(slots))
        if len(self._images) < len(slots):  # kept: new memory of this size costs as much as what is written to it
            self._images = np.empty((len(slots), *self._images.shape[1:]), np.uint8)
        images = self._images[: len(slots)]
        for scene, rows in parts:
            images[rows] = self._batches[scene].drawn(len(rows))
        return images

    def borrow(self, gallery: Gallery) -> None:
        """See Engine.borrow."""
        _, cameras, _, height, width = self._images.shape
        shape = (gallery.worlds, cameras, 3, height * width)
        self._gallery, self._first = self._device.opened(gallery.handle, shape), gallery.first

    def hang(self, slots: np.ndarray) -> None:
        """See Engine.hang."""
        assert self._gallery is not None, "no gallery was lent"
        for scene, rows in self._by_scene(slots):  # as in `run`
            self._batches[scene].hang(self._taken(slots[rows], scene), self._first + slots[rows], self._gallery)
        self._device.wait()

    def save(self, slot: int) -> dict[str, Any]:
        """See Engine.save."""
        saved = {name: getattr(self, name)[slot].copy() for name in _PER_WORLD}
        return {**saved, "_seen": self._seen.take(np.array([slot]))}

    def restore(self, slot: int, saved: dict[str, Any]) -> None:
        """See Engine.restore."""
        for name in _PER_WORLD:
            getattr(self, name)[slot] = saved[name]
        self._seen.put(np.array([slot]), saved["_seen"])

    def close(self) -> None:
        """Free what is on the device."""
        self._gallery = None
        self._batches.clear()

    def _build(self, options: Options, device: Device) -> list[Batch]:
        """Bring the scenes to the device, each with room for its share of the worlds."""
        if not device.is_gpu:
            _say("backend mujoco_warp finds no CUDA device and computes on the CPU, slower than backend mujoco would")
        _say(f"MuJoCo Warp compiles its kernels at first use, for a minute or two, and keeps them in {device.cache}")
        since, batches = time.monotonic(), []
        with device.current(None):
            arms, goals = control.arms(1 / options.action_frequency), judging.compiled(self.benchmark)
        drawn = options.image_size if self.images else 0
        for scene, physics in enumerate(self._scenes):
            with device.current(None):
                places = seeing.places(physics, self.benchmark.kit)
            tables = Tables(arms, goals, places, options.substeps, options.reward == "dense", options.cameras, drawn)
            name = f"scene {scene + 1} of {len(self._scenes)}"
            batches.append(Batch(name, physics.model, self.benchmark, tables, device))
            share = self._share(scene)
            # With one scene it is the commands that say how many worlds move at a time: a group of them, not all. With
            # several that varies from command to command, and room for a scene's share is enough for nearly all.
            first = share if len(self._scenes) > 1 else share.take(np.array([0]))
            batches[-1].warm_up(first, len(share.state))
            _say(f"{name} is ready after {time.monotonic() - since:.0f} s")
        return batches

    def _share(self, scene: int) -> Rows:
        """As many worlds as a scene has if all tasks have equally many, at the start of one of its tasks."""
        tasks = np.flatnonzero(self.benchmark.scene == scene)
        count = -(-len(self.task) * len(tasks) // len(self.benchmark.tasks))
        start = self.benchmark.start([Episode(self.benchmark.tasks[tasks[0]].name, 0)] * count)
        return self._begun(scene, np.full(count, tasks[0]), start, np.arange(count))

    def _place(self, slots: np.ndarray, start: Start) -> None:
        for scene, rows in self._by_scene(slots):
            begun = self._begun(scene, self.task[slots[rows]], start, rows)
            seen, begun.potential = self._batches[scene].look(begun)
            self._keep(slots[rows], begun, seen)

    def _begun(self, scene: int, tasks: np.ndarray, start: Start, rows: np.ndarray) -> Rows:
        """The worlds of some rows of `start` as they are before the first step."""
        count, model = len(rows), self._scenes[scene].model
        state = np.zeros((count, _width(model)), np.float32)
        state[:, : model.nq] = self._scenes[scene].positions(start, rows)
        targets = control.packed(controller.home(count, robot.HOME_JOINTS))
        return Rows(state, targets, tasks, np.zeros(count, np.int32), np.zeros(count, np.float32))

    def _by_scene(self, slots: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """The scenes that worlds are in, and which rows of `slots` are in each."""
        scenes = self.benchmark.scene[self.task[slots]]
        return [(int(scene), np.flatnonzero(scenes == scene)) for scene in np.unique(scenes)]

    def _taken(self, slots: np.ndarray, scene: int) -> Rows:
        state = self._state[slots, : _width(self._scenes[scene].model)]
        return Rows(state, self._targets[slots], self.task[slots], self.steps[slots], self._potential[slots])

    def _keep(self, slots: np.ndarray, rows: Rows, seen: Snapshot) -> None:
        self._state[slots, : rows.state.shape[1]] = rows.state
        self._targets[slots], self._potential[slots] = rows.targets, rows.potential
        self._seen.put(slots, seen)

    def _say_broken(self, slot: int) -> None:
        task = self.benchmark.tasks[self.task[slot]].name
        _say(
            f"the physics of task {task}, seed {self.seed[slot]} broke down at step {self.steps[slot]}; its episode "
            "ends there, unsolved"
        )


def _width(model: mujoco.MjModel) -> int:
    """How many numbers a world's state has."""
    return model.nq + 2 * model.nv


def _say(message: str) -> None:
    print(f"household: {message}", file=sys.stderr, flush=True)
