"""The cabinet's drawers and the goal suite: what slides stays, opens by its handle, and carries what lies in it."""

import dataclasses
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from stages.simulators.household import controller, furniture, robot
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.goals import Goals, Placed, closed, inside
from stages.simulators.household.options import parse
from stages.simulators.household.physics import Physics
from stages.simulators.household.state import Snapshot
from stages.simulators.household.suites import goal
from stages.simulators.interface import HELD_OUT, Episode

OPTIONS = parse({"tasks": ["goal"], "renderer": "raycast"})
TASKS = goal.define(OPTIONS)
PERIOD = 1 / OPTIONS.action_frequency


class Table:
    """One world of the goal suite, every state of it in view."""

    def __init__(self) -> None:
        self.benchmark = Benchmark(OPTIONS)
        self.physics = Physics(self.benchmark.scenes[0], self.benchmark.kit, OPTIONS.physics_frequency, 64)
        self.data = mujoco.MjData(self.physics.model)

    def reset(self, task: str, seed: int, openings: tuple[float, ...] | None = None) -> Snapshot:
        """Set the table, its drawers as the task has them or as `openings` says."""
        self.task = np.array([self.benchmark.number(task)])
        start = self.benchmark.start([Episode(task, seed)])
        if openings:
            start = dataclasses.replace(start, drawer=np.array([openings]))
        self.physics.place(self.data, start, 0)
        self.targets = controller.home(1, robot.HOME_JOINTS)
        self._command()
        mujoco.mj_forward(self.physics.model, self.data)
        state = self.state()
        self.memory = self.benchmark.begin(self.task, state)
        return state

    def state(self) -> Snapshot:
        """What the table looks like."""
        state = self.benchmark.kit.empty(1)
        self.physics.read(self.data, state, 0)
        self.benchmark.kit.locate(state)
        return state

    def wait(self, seconds: float) -> Snapshot:
        """Let physics go on while the arms rest."""
        assert self.physics.step(self.data, round(seconds * OPTIONS.physics_frequency))
        return self.state()

    def expert(self) -> Iterator[Snapshot]:
        """The states after each of the expert's steps, until the task is solved."""
        for _ in range(self.benchmark.step_limit[self.task[0]]):
            actions, self.memory = self.benchmark.act(self.task, self.state(), self.targets, self.memory)
            self.targets = controller.move(self.targets, actions, PERIOD, robot.HOME_JOINTS)
            self._command()
            assert self.physics.step(self.data, OPTIONS.substeps)
            yield self.state()
            if self.solved():
                return

    def solved(self) -> bool:
        """Whether the task is solved."""
        return bool(self.benchmark.goals.succeeded(self.task, self.state())[0])

    def _command(self) -> None:
        self.physics.command(self.data, self.targets.joints[0], self.targets.finger[0])


@pytest.fixture(scope="module")
def table() -> Table:
    return Table()


@pytest.mark.parametrize("openings", [(0.0, 0.13), (0.02, 0.07), (0.13, 0.0)])
def test_a_drawer_that_nobody_touches_stays_where_it_is(table, openings):
    table.reset("goal_open_left_drawer", HELD_OUT, openings)
    states = [table.wait(seconds).drawer[0] for seconds in (0.05, 0.5, 3.0)]
    np.testing.assert_allclose(states, np.tile(openings, (3, 1)), atol=2e-4)


@pytest.mark.parametrize("drawer", [furniture.LEFT_DRAWER, furniture.RIGHT_DRAWER])
@pytest.mark.parametrize("seed", [1, HELD_OUT + 1])
def test_a_drawer_opens_only_while_fingers_hold_its_handle(table, drawer, seed):
    kit = table.benchmark.kit
    number, handle = kit.drawer(drawer), kit.frame(drawer.grip.frame)
    before = table.reset(f"goal_open_{drawer.name}", seed)
    for state in table.expert():
        if state.drawer[0, number] - before.drawer[0, number] > 2e-4:
            reach = np.linalg.norm(state.hand_position[0] - state.frame_position[0, handle], axis=-1)
            assert reach.min() < 0.015
            assert abs(state.opening[0, reach.argmin()] - drawer.width) < 0.004
        assert state.drawer[0, 1 - number] < 2e-4
        before = state
    assert table.solved()
    assert before.drawer[0, number] <= drawer.travel + 1e-3


@pytest.mark.parametrize("share", [(-1, -1), (0, 0), (1, 1)])
def test_a_drawer_that_is_pushed_shut_takes_along_what_lies_in_it(table, share):
    drawer, (put,) = furniture.RIGHT_DRAWER, TASKS["goal_cube_in_right_drawer"].goal
    cube, kit = put.item, table.benchmark.kit
    state = table.reset("goal_cube_in_right_drawer", HELD_OUT, (0.0, 0.12))
    room = np.array(drawer.room) - cube.radius
    place = state.frame_position[0, kit.frame(f"{drawer.name}.inside")] + [*room * share, cube.rest]
    model, data = table.physics.model, table.data
    data.joint(model.body(cube.name).jntadr[0]).qpos[:3] = place
    data.joint(drawer.name).qfrc_applied = -6.0
    pushed = table.wait(2.0)
    data.joint(drawer.name).qfrc_applied = 0.0
    both = Goals(kit, [(closed(drawer), inside(cube, drawer))])
    assert both.succeeded(np.zeros(1, dtype=np.int64), pushed)


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_reaches_the_goal_and_leaves_everything_else_alone(table, task):
    kit = table.benchmark.kit
    meant = {kit.object(atom.item) for atom in TASKS[task].goal if isinstance(atom, Placed)}
    others = [i for i in range(len(kit.props)) if i not in meant]
    for seed in (2, HELD_OUT + 2):
        start = table.reset(task, seed)
        assert not table.solved()
        *_, end = table.expert()
        assert table.solved()
        moved = np.linalg.norm(end.object_position - start.object_position, axis=-1)[0, others]
        assert moved.max() < 0.01
