"""Goals: what holds, what does not, and a potential that rises on the way."""

import dataclasses

import numpy as np
import pytest

from stages.simulators.household import catalogue, controller, furniture, shapes, suites
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.goals import Goals, Placed, beside, between, closed, inside, on, opened
from stages.simulators.household.kit import Kit, Scene
from stages.simulators.household.options import Options
from stages.simulators.household.state import Snapshot, proprioception
from stages.simulators.interface import Episode

CUBE, OTHER, THIRD = (shapes.cube(f"cube_{i}", "1 0 0 1", 0.04) for i in range(3))
PLATE = shapes.plate("a_plate", 0.08)
BASKET = shapes.basket("a_basket", "1 1 0 1", (0.07, 0.09), 0.05, "1 1 0 1")
DRAWER = furniture.CABINET.drawers[0]
KIT = Kit([Scene((CUBE, OTHER, THIRD, PLATE, BASKET), (furniture.CABINET,))])

ALL = tuple(catalogue.entries())


def _away(kit: Kit, count: int = 1) -> Snapshot:
    """Hands open and aside, everything at rest."""
    state = kit.empty(count)
    state.hand_position[:] = [[-0.16, 0.27, 0.25], [-0.16, -0.27, 0.25]]
    state.hand_rotation[:] = controller.HAND_DOWN
    state.opening[:] = 0.1
    return state


def _holds(atom, places: dict, drawer: float = 0.0, **changes) -> bool:
    goals = Goals(KIT, [[atom]])
    state = dataclasses.replace(_away(KIT), **changes)
    for prop, place in places.items():
        state.object_position[:, KIT.object(prop)] = place
    state.drawer[:] = drawer
    KIT.locate(state)
    return bool(goals.succeeded(np.array([0]), state)[0])


def test_relations_mean_what_they_say():
    table = CUBE.rest
    reference = (0.0, 0.0, table)
    # As the robot sees it: it looks along +x, its left is +y.
    for direction, (x, y) in {"left": (0, 1), "right": (0, -1), "front": (-1, 0), "behind": (1, 0)}.items():
        atom = beside(CUBE, OTHER, direction, 0.1)
        assert _holds(atom, {OTHER: reference, CUBE: (0.1 * x, 0.1 * y, table)})
        assert not _holds(atom, {OTHER: reference, CUBE: (-0.1 * x, -0.1 * y, table)})
        assert not _holds(atom, {OTHER: reference, CUBE: (0.1 * y, 0.1 * x, table)})
    middle = between(CUBE, OTHER, THIRD, half=(0.03, 0.03))
    assert _holds(middle, {OTHER: (0, 0.1, table), THIRD: (0, -0.1, table), CUBE: (0.02, 0.01, table)})
    assert not _holds(middle, {OTHER: (0, 0.1, table), THIRD: (0, -0.1, table), CUBE: (0.05, 0, table)})


def test_on_and_inside_ask_for_height():
    on_plate = on(CUBE, PLATE, radius=0.08)
    assert _holds(on_plate, {PLATE: (0, 0, 0.004), CUBE: (0.05, 0.05, 0.028)})
    assert not _holds(on_plate, {PLATE: (0, 0, 0.004), CUBE: (0.06, 0.06, 0.028)})
    assert not _holds(on_plate, {PLATE: (0, 0, 0.004), CUBE: (0, 0, 0.045)})
    in_basket = inside(CUBE, BASKET)
    assert _holds(in_basket, {BASKET: (0, 0, 0.003), CUBE: (0.06, 0.08, 0.026)})
    assert not _holds(in_basket, {BASKET: (0, 0, 0.003), CUBE: (0.08, 0.06, 0.026)})
    assert not _holds(in_basket, {BASKET: (0, 0, 0.003), CUBE: (0, 0, 0.09)})


def test_a_container_turns_and_a_drawer_takes_its_content_along():
    turned = _away(KIT)
    turned.object_rotation[0, KIT.object(BASKET)] = controller.rotation_of(np.array([0.0, 0.0, np.pi / 2]))
    rotation = turned.object_rotation
    place = {BASKET: (0, 0, 0.003), CUBE: (0.08, 0.06, 0.026)}
    assert _holds(inside(CUBE, BASKET), place, object_rotation=rotation)
    x, y, z = np.add(furniture.CABINET.at, DRAWER.inside)
    for opening in (0.0, 0.1):
        assert _holds(inside(CUBE, DRAWER), {CUBE: (x - opening, y, z + CUBE.rest)}, drawer=opening)
        assert not _holds(inside(CUBE, DRAWER), {CUBE: (x - opening, y, z + CUBE.rest)}, drawer=0.1 - opening)


def test_drawers_open_and_close():
    assert _holds(opened(DRAWER), {}, drawer=DRAWER.travel)
    assert not _holds(opened(DRAWER), {}, drawer=0.5 * DRAWER.travel)
    assert _holds(closed(DRAWER), {}, drawer=0.005)
    assert not _holds(closed(DRAWER), {}, drawer=0.05)


@pytest.mark.parametrize("name", ALL)
def test_an_item_in_its_place_counts_only_at_rest_and_let_go_of(name):
    definition = suites.definitions([name], Options())[0]
    kit = Kit([definition.scene])
    for atom in definition.goal:
        if not isinstance(atom, Placed):
            continue
        goals = Goals(kit, [[atom]])
        item = kit.object(atom.item)

        def solved(state: Snapshot, kit=kit, goals=goals) -> bool:
            kit.locate(state)
            return bool(goals.succeeded(np.array([0]), state)[0])

        done = _away(kit)
        _set_apart(kit, done)
        kit.locate(done)
        first, second = kit.ends(atom.place)
        middle = 0.5 * (done.frame_position[0, first] + done.frame_position[0, second])
        done.object_position[0, item] = middle + atom.place.offset
        assert solved(done)
        for change in ([0.0, 0.0, atom.height + 0.002], [0.0, 0.0, -atom.height - 0.002], [0.2, 0.2, 0.0]):
            state = done.take(np.array([0]))
            state.object_position[0, item] += change
            assert not solved(state)
        moving = done.take(np.array([0]))
        moving.object_speed[0, item] = 0.2
        assert not solved(moving)
        for grip in atom.item.grips:
            held = done.take(np.array([0]))
            held.hand_position[0, 1] = done.object_position[0, item] + grip.at
            held.opening[0, 1] = grip.width
            assert not solved(held)


def _set_apart(kit: Kit, state: Snapshot) -> None:
    """Everything a metre from everything else."""
    state.object_position[0] = [[3.0 + i, 0.0, prop.rest] for i, prop in enumerate(kit.props)]


@pytest.mark.parametrize("name", ["pick_onto_plate", "stack", "object_red_cube", "spatial_left_of_can"])
def test_the_potential_rises_towards_the_goal(name):
    benchmark = Benchmark(Options(tasks=(name,)))
    definition = suites.definitions([name], Options())[0]
    (atom,) = definition.goal
    item, task = benchmark.kit.object(atom.item), np.array([0])
    state = _away(benchmark.kit)
    state.object_position[:] = benchmark.start([Episode(name, 0)]).position
    benchmark.kit.locate(state)
    at_goal = state.frame_position[0, list(benchmark.kit.ends(atom.place))].mean(axis=0) + atom.place.offset
    values = []
    for distance in (0.3, 0.2, 0.1, 0.0):
        state.object_position[0, item] = at_goal + [0.0, 0.0, distance]
        state.hand_position[0] = state.object_position[0, item]
        benchmark.kit.locate(state)
        values.append(benchmark.goals.potential(task, state)[0])
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0)


def test_proprioception_is_of_order_one_everywhere_in_the_workspace():
    state = _away(KIT)
    for corner in (controller.WORKSPACE_LOW, controller.WORKSPACE_HIGH):
        felt = proprioception(dataclasses.replace(state, hand_position=corner[None]))
        assert felt.shape == (1, 16)
        assert felt.dtype == np.float32
        assert np.abs(felt).max() < 1.5
