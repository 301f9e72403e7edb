"""Initial states: apart, within reach, the same for a seed whatever shares its batch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.simulators.household import catalogue, controller, layouts, suites
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.options import Options, parse
from stages.simulators.interface import HELD_OUT, Episode, split_of

ALL = tuple(catalogue.entries())


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return Benchmark(Options(tasks=ALL))


def _start(benchmark: Benchmark, name: str, seeds: range):
    return benchmark.start([Episode(name, seed) for seed in seeds])


@pytest.mark.parametrize("name", ALL)
def test_objects_start_apart_and_within_reach(benchmark, name):
    definition = suites.definitions([name], Options())[0]
    start = _start(benchmark, name, range(HELD_OUT, HELD_OUT + 100))
    puts = definition.layout.puts
    where = {put.item.name: start.position[:, benchmark.kit.object(put.item)] for put in puts}
    assert all((np.abs(place[:, 0]) < 0.4).all() and (np.abs(place[:, 1]) < 0.6).all() for place in where.values())
    assert all((place[:, 2] >= 0).all() for place in where.values())
    rests_on = {put.item.name: put.by.name for put in puts if put.resting}
    for one, other in itertools.combinations(puts, 2):
        a, b = one.item, other.item
        if _together(a.name, b.name, rests_on):
            continue
        gap = np.abs(where[a.name] - where[b.name])[:, :2] - np.add(a.core, b.core)
        distance = np.linalg.norm(np.maximum(gap, 0), axis=1)
        assert (distance >= a.radius + b.radius + definition.layout.clearance).all(), (a.name, b.name)
    # Whatever the expert is to hold lies where one of the hands can.
    low, high = controller.WORKSPACE_LOW, controller.WORKSPACE_HIGH
    for skill in definition.plan:
        if skill.arm not in where:
            continue
        place = where[skill.arm]
        assert (place[:, 0] >= low[0, 0]).all()
        assert (place[:, 0] <= high[0, 0]).all()
        assert ((place[:, 1] >= low[1, 1]) & (place[:, 1] <= high[0, 1])).all()


def _together(a: str, b: str, rests_on: dict[str, str]) -> bool:
    """Whether two things are part of one pile."""
    roots = []
    for name in (a, b):
        while name in rests_on:
            name = rests_on[name]
        roots.append(name)
    return roots[0] == roots[1]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["pick_onto_plate", "stack"]),
    start=st.integers(0, 2**40),
    spread=st.floats(0, 1),
    size=st.floats(0.02, 0.06),
    plate=st.floats(0.05, 0.1),
    distractors=st.integers(0, 3),
)
def test_practice_keeps_apart_objects_of_any_size(name, start, spread, size, plate, distractors):
    options = {"spread": spread, "object_size": size, "plate_radius": plate, "distractors": distractors}
    benchmark = Benchmark(parse({"tasks": [name], **options}))
    layout = _start(benchmark, name, range(start, start + 4))
    on_table = layout.position[..., 0] < 1
    assert (on_table.sum(axis=1) == 2 + distractors).all()
    assert on_table[:, 0].all()
    radii = np.array([prop.radius for prop in benchmark.kit.props])
    for row in range(4):
        for i, j in itertools.combinations(np.flatnonzero(on_table[row]), 2):
            distance = np.linalg.norm(layout.position[row, i, :2] - layout.position[row, j, :2])
            assert distance > radii[i] + radii[j] + 0.015


@pytest.mark.parametrize("name", ["stack", "object_red_cube", "spatial_cube_in_dish"])
def test_a_seed_gives_one_layout_whatever_shares_its_batch_and_config(benchmark, name):
    alone = Benchmark(Options(tasks=(name,)))
    lonely = alone.start([Episode(name, 7)])
    crowd = benchmark.start([Episode("stack", 7), Episode("object_teal_pot", 1), Episode(name, 7), Episode(name, 8)])
    props = [benchmark.kit.object(prop) for prop in alone.kit.props]
    np.testing.assert_array_equal(lonely.position[0], crowd.position[2, props])
    np.testing.assert_array_equal(lonely.yaw[0], crowd.yaw[2, props])
    assert not np.array_equal(crowd.position[2], crowd.position[3])


@pytest.mark.parametrize("name", ["stack", "long_cube_into_sprung_drawer", "object_teal_pot"])
def test_looking_at_few_candidates_first_changes_no_layout(benchmark, monkeypatch, name):
    usual = _start(benchmark, name, range(200))
    for few in (1, layouts._CANDIDATES):
        monkeypatch.setattr(layouts, "_FEW", few)
        start = _start(benchmark, name, range(200))
        np.testing.assert_array_equal(start.position, usual.position)
        np.testing.assert_array_equal(start.yaw, usual.yaw)


def test_practice_puts_the_target_on_the_side_that_arms_allow():
    either = _start(Benchmark(parse({})), "stack", range(40)).position[:, 0, 1]
    right = _start(Benchmark(parse({"arms": "right"})), "stack", range(40)).position[:, 0, 1]
    assert (right < 0).all()
    assert (either > 0).any()
    assert (either < 0).any()


@pytest.mark.parametrize("name", ["pick_onto_plate", "spatial_left_of_can", "object_blue_can"])
def test_no_spread_leaves_only_which_side_and_what_goes_where(name):
    layout = _start(Benchmark(parse({"tasks": [name], "spread": 0.0})), name, range(60))
    assert len(np.unique(layout.position.round(9), axis=0)) <= (24 if name.startswith("object") else 2)


def test_training_and_evaluation_do_not_share_seeds():
    assert split_of(0) == split_of(HELD_OUT - 1) == "train"
    assert split_of(HELD_OUT) == split_of(HELD_OUT + 10**6) == "evaluation"
