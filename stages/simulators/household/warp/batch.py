"""The worlds of one scene in MuJoCo Warp, as many as there are: their states go in, a chunk is computed, they come out.

Between chunks the states live on the host: a world's is two kilobytes, and moving it takes far less time than a step.
So a chunk is a function of what goes in. A world that is done inside a chunk stays in the workspace, but what becomes
of it there is thrown away: its state, looks and reward are those of its last step. If a buffer of contacts or
constraints overflows, the workspace is built again with larger ones and the same chunk is computed once more.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import sys

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.state import Snapshot
from stages.simulators.household.warp import memory
from stages.simulators.household.warp import sight as seeing
from stages.simulators.household.warp.device import Device
from stages.simulators.household.warp.workspace import Rows, Tables, Workspace

CONTACTS, CONSTRAINTS = 64, 320  # room for a world's to begin with
GROWTH = 1.5
# With MuJoCo's 1e-6 the collider, in single precision, once in thousands of times finds half a metre of depth between a
# cylinder and the box it stands on, and shoots it off; from 3e-6 on it was not seen to.
COLLISION_TOLERANCE = 1e-5
_CONTACTS_OVER = int(mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE | mjw.OverflowType.CCD)
_CONTACT_LOST = int(mjw.OverflowType.EPA_HORIZON)  # of a fixed size: the pair has no contact for that physics step
_CONSTRAINTS_OVER = int(mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ)


@dataclasses.dataclass
class Outcome:
    """What a chunk of K steps led to, n worlds.

    Attributes:
        rows: the worlds after their last steps.
        seen: what they look like then.
        ended: int [n], how; see `judging`.
        rewards: float32 [n, K].
        executed: bool [n, K].
    """

    rows: Rows
    seen: Snapshot
    ended: np.ndarray
    rewards: np.ndarray
    executed: np.ndarray


def adapted(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of a scene's model, told what MuJoCo Warp does otherwise than MuJoCo."""
    described = copy.copy(model)
    # MuJoCo Warp never resets a world by itself, and refuses to be told not to.
    described.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    # MuJoCo has a routine of its own for two boxes, and MuJoCo Warp has it too, but takes the collider of all convex
    # shapes by default: slower, and in single precision now and then wrong. This flag changes that and nothing else.
    described.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
    described.opt.ccd_tolerance = COLLISION_TOLERANCE
    return described


class Batch:
    """A scene's model on a device, and the workspace for its worlds."""

    def __init__(
        self,
        name: str,
        model: mujoco.MjModel,
        benchmark: Benchmark,
        tables: Tables,
        device: Device,
    ) -> None:
        """Bring a scene to a device.

        Args:
            name: of the scene, for messages.
            model: the scene.
            benchmark: the tasks.
            tables: what the kernels look up.
            device: where.
        """
        self._name, self._benchmark, self._tables, self._device = name, benchmark, tables, device
        self._described = adapted(model)
        self._stream = device.stream()
        with device.current(self._stream):
            self._model = mjw.put_model(self._described)
        self._model.opt.warn_overflow = 0  # said here, and once
        self._capacity, self._contacts, self._constraints = 0, CONTACTS, CONSTRAINTS
        self._workspace: Workspace | None = None
        self._told_of_lost_contacts = False
        self._asked: tuple[Rows, np.ndarray] | None = None

    def reserve(self, count: int) -> Workspace:
        """Room for at least `count` worlds.

        Raises:
            SimulatorConfigError: the device has not got the memory.
        """
        self._capacity = max(self._capacity, self._device.rounded(count))
        if self._workspace is None or self._workspace.capacity < self._capacity:
            self._workspace = None  # its memory is free before more is taken
            self._check(self._capacity)
            room = (self._capacity, self._contacts, self._constraints)
            self._workspace = Workspace(self._described, self._model, self._benchmark, self._tables, *room)
        return self._workspace

    def warm_up(self, rows: Rows, expected: int) -> None:
        """Carry out a step in n worlds: what stepping takes is compiled by it.

        Args:
            rows: the worlds; there is room for them afterwards.
            expected: how many there will be.

        Raises:
            SimulatorConfigError: the device has not got the memory for those expected.
        """
        with self._device.current(self._stream):
            self._check(self._device.rounded(expected))
            workspace = self.reserve(len(rows.state))
            workspace.put(rows)
            workspace.look()
            workspace.step_once()
            if self._tables.image_size:
                workspace.draw(1)
            self._device.wait()

    def draw(self, rows: Rows) -> None:
        """Have worlds drawn; `drawn` waits for it."""
        with self._device.current(self._stream):
            workspace = self.reserve(len(rows.state))
            workspace.put(rows)
            workspace.pose()
            workspace.draw(len(rows.state))

    def drawn(self, count: int) -> np.ndarray:
        """What the cameras of the n worlds saw: uint8 [n, cameras, 3, H, W], overwritten by `draw`."""
        with self._device.current(self._stream):
            return self.reserve(count).drawn(count)

    def hang(self, rows: Rows, places: np.ndarray, gallery: wp.array) -> None:
        """Have worlds drawn into rows of a gallery [places, cameras, 3, H * W]; the device has to be waited for."""
        with self._device.current(self._stream):
            workspace = self.reserve(len(rows.state))
            workspace.put(rows)
            workspace.pose()
            workspace.hang(places, gallery)

    def start(self, rows: Rows, actions: np.ndarray) -> None:
        """Have a chunk of actions [n, K, 14] computed; `finish` waits for it."""
        with self._device.current(self._stream):
            workspace = self.reserve(len(actions))
            workspace.put(rows)
            workspace.launch(actions)
        self._asked = (rows, actions)

    def finish(self) -> Outcome:
        """What the chunk that was started led to."""
        assert self._asked is not None
        rows, actions = self._asked
        count = len(actions)
        with self._device.current(self._stream):
            while self._enlarged(overflow := self.reserve(count).data.overflow.numpy()):
                self.start(rows, actions)
            self._tell_of_lost_contacts(overflow[:count])
            workspace = self.reserve(count)
            rewards, executed = workspace.taken(actions.shape[1], count)
            ended = workspace.ended.numpy()[:count].copy()
            seen = seeing.read(workspace.sight, self._benchmark.kit, count)
            return Outcome(workspace.rows(count), seen, ended, rewards, executed)

    def look(self, rows: Rows) -> tuple[Snapshot, np.ndarray]:
        """What worlds look like, and their potentials float32 [n]."""
        count = len(rows.state)
        with self._device.current(self._stream):
            workspace = self.reserve(count)
            workspace.put(rows)
            workspace.look()
            return seeing.read(workspace.sight, self._benchmark.kit, count), workspace.rows(count).potential

    def _check(self, worlds: int) -> None:
        """Make sure that there is memory for so many worlds."""
        room, tables = (worlds, self._contacts, self._constraints), self._tables
        memory.check(self._device, self._described, *room, len(tables.cameras), tables.image_size)

    def _enlarged(self, overflow: np.ndarray) -> bool:
        """Whether buffers overflowed; then the next workspace has larger ones."""
        over = int(np.bitwise_or.reduce(overflow))
        if not over & (_CONTACTS_OVER | _CONSTRAINTS_OVER):
            return False
        if over & _CONTACTS_OVER:
            self._contacts = math.ceil(GROWTH * self._contacts)
        if over & _CONSTRAINTS_OVER:
            self._constraints = math.ceil(GROWTH * self._constraints)
        print(
            f"household: {self._name} has more contacts than there was room for; from here on there is room for "
            f"{self._contacts} contacts and {self._constraints} constraint rows a world",
            file=sys.stderr,
            flush=True,
        )
        self._workspace = None
        return True

    def _tell_of_lost_contacts(self, overflow: np.ndarray) -> None:
        """Say, once, that the collider gave up on a pair of things, of which no larger buffer would keep it."""
        lost = int(np.count_nonzero(overflow & _CONTACT_LOST))
        if lost and not self._told_of_lost_contacts:
            self._told_of_lost_contacts = True
            print(
                f"household: {self._name}: for a physics step the collider found no contact between two things that "
                f"touch (EPA_HORIZON), in {lost} of {len(overflow)} worlds; this is said once",
                file=sys.stderr,
                flush=True,
            )
