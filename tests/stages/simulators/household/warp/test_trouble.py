"""What goes wrong with MuJoCo Warp: no packages, no GPU, too little memory, buffers that overflow, broken physics."""

import importlib.util
import pickle
import weakref

import numpy as np
import pytest
from mujoco_warp import OverflowType

from stages.simulators.household.warp import batch
from stages.simulators.household.warp.device import Device
from stages.simulators.household.warp.workspace import Workspace
from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError, make

from .conftest import OPTIONS

EPISODE = Episode("stack", HELD_OUT + 7)
ACTIONS = np.clip(np.random.default_rng(0).normal(0, 0.5, (1, 6, 14)), -1, 1).astype(np.float32)


def test_missing_packages_are_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mujoco_warp" else found(name))
    with pytest.raises(SimulatorConfigError) as refused:
        make("household", 1, {**OPTIONS, "backend": "mujoco_warp"})
    assert str(refused.value) == (
        "household: backend mujoco_warp needs mujoco-warp, which this interpreter lacks; "
        "pip install 'baton-vla[warp]', or backend: mujoco"
    )


@pytest.mark.parametrize("worlds", [1, 64])
def test_without_a_gpu_auto_is_mujoco_however_many_worlds_there_are(worlds):
    simulator = make("household", worlds, {**OPTIONS, "tasks": ["stack"]})
    assert "mujoco 4.0.0" in simulator.spec.version
    assert "warp" not in simulator.spec.version


def test_a_backend_is_spelt_out():
    with pytest.raises(SimulatorConfigError) as refused:
        make("household", 1, {"backend": "mujoco_wrap"})
    assert str(refused.value) == (
        "household: backend has no 'mujoco_wrap', did you mean 'mujoco_warp'?; valid: auto, mujoco, mujoco_warp"
    )


def test_its_renderer_draws_only_its_own_worlds():
    with pytest.raises(SimulatorConfigError) as refused:
        make("household", 2, {"renderer": "mujoco_warp"})
    assert str(refused.value) == (
        "household: renderer mujoco_warp draws what backend mujoco_warp moves, but 2 worlds are moved by mujoco here; "
        "choose backend: mujoco_warp, or renderer: auto"
    )


def test_it_says_that_it_is_slow_on_the_cpu_and_that_it_compiles(compiled, capfd):
    make("household", 1, {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp"}).close()
    told = capfd.readouterr().err
    assert "household: backend mujoco_warp finds no CUDA device and computes on the CPU" in told
    assert "household: MuJoCo Warp compiles its kernels at first use, for a minute or two, and keeps them in" in told
    assert Device().cache in told
    assert "household: scene 1 of 1 is ready after" in told


def test_worlds_that_do_not_fit_are_refused_with_the_number_that_does(compiled, monkeypatch):
    monkeypatch.setattr(Device, "free_memory", lambda self: 10_000_000)
    with pytest.raises(
        SimulatorConfigError, match="household: 100 worlds of a scene take .* GB on the CPU, which has 0.0 GB free: "
    ) as refused:
        make("household", 100, {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp"})
    fit = int(str(refused.value).split(" GB free: ")[1].split(" fit")[0])
    assert 1 <= fit < 100
    make("household", fit, {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp"}).close()


@pytest.mark.parametrize(("room", "least"), [("CONTACTS", 6), ("CONSTRAINTS", 18)])
def test_buffers_that_overflow_grow_and_nothing_is_lost(compiled, monkeypatch, capfd, room, least):
    # As many worlds in both: in which order forces are summed up depends on that.
    options = {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp"}
    ample = make("household", 1, options)
    ample.reset([0], [EPISODE], [False])
    expected = ample.step_chunk([0], ACTIONS)
    seen = ample.observe([0])
    monkeypatch.setattr(batch, room, least)
    small = make("household", 1, options)
    small.reset([0], [EPISODE], [False])
    found = small.step_chunk([0], ACTIONS)
    assert "household: scene 1 of 1 has more contacts than there was room for; from here on there is room for" in (
        capfd.readouterr().err
    )
    np.testing.assert_array_equal(found.rewards, expected.rewards)
    np.testing.assert_array_equal(small.observe([0]).proprio, seen.proprio)
    small.close()


@pytest.fixture
def made(monkeypatch) -> list[tuple[int, int]]:
    """Of each workspace that is made: how many others there are then, and how many worlds it has room for."""
    alive, noted, make_one = weakref.WeakSet(), [], Workspace.__init__

    def watched(self, described, model, benchmark, tables, capacity, *room):
        noted.append((len(alive), capacity))
        alive.add(self)
        make_one(self, described, model, benchmark, tables, capacity, *room)

    monkeypatch.setattr(Workspace, "__init__", watched)
    return noted


def test_a_workspace_is_made_once_the_memory_of_the_smaller_one_is_free(compiled, monkeypatch, made):
    monkeypatch.setattr(batch, "CONTACTS", 6)
    simulator = make("household", 1, {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp"})
    simulator.reset([0], [EPISODE], [False])
    simulator.step_chunk([0], ACTIONS)
    assert len(made) > 1
    assert all(others == 0 for others, _ in made)
    simulator.close()


def test_a_single_scene_has_room_for_the_worlds_that_move_at_a_time(compiled, made):
    simulator = make("household", 4, {**OPTIONS, "tasks": ["stack"], "backend": "mujoco_warp"})
    for slots in ([0, 1], [2, 3], [1]):
        simulator.reset(slots, [EPISODE] * len(slots), [False] * len(slots))
    assert [capacity for _, capacity in made] == [1, 2]
    simulator.close()


def test_a_contact_that_the_collider_gives_up_is_told_once(warp, monkeypatch, capfd):
    launch = Workspace.launch

    def losing(self, actions):
        launch(self, actions)
        self.data.overflow.fill_(int(OverflowType.EPA_HORIZON))

    monkeypatch.setattr(Workspace, "launch", losing)
    warp.reset([0], [EPISODE], [False])
    capfd.readouterr()
    for _ in range(2):
        warp.step_chunk([0], ACTIONS[:, :1])
    assert capfd.readouterr().err.splitlines() == [
        "household: scene 1 of 2: for a physics step the collider found no contact between two things that touch "
        "(EPA_HORIZON), in 1 of 1 worlds; this is said once"
    ]


def test_a_world_whose_physics_breaks_down_ends_unsolved_where_it_was_and_harms_no_other(warp, capfd):
    episodes = [Episode("stack", HELD_OUT + i) for i in range(2)]
    actions = np.repeat(ACTIONS, 2, axis=0)
    warp.reset([0, 2], episodes, [False] * 2)
    expected = warp.step_chunk([0, 2], actions)
    warp.reset([0, 2], episodes, [False] * 2)
    state = pickle.loads(warp.save_state(2))
    state["engine"]["_state"][60] = np.inf  # a velocity
    warp.restore_state(2, pickle.dumps(state))
    before = warp.observe([2])
    result = warp.step_chunk([0, 2], actions)
    np.testing.assert_array_equal(result.truncated, [False, True])
    np.testing.assert_array_equal(result.broken, [False, True])
    assert not result.success.any()
    np.testing.assert_array_equal(result.executed[1], np.arange(6) < 1)
    assert (result.rewards[1] == 0).all()
    np.testing.assert_array_equal(result.rewards[0], expected.rewards[0])
    np.testing.assert_array_equal(warp.observe([2]).proprio, before.proprio)
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"household: the physics of task stack, seed {HELD_OUT + 1} broke down at step 1; its episode ends there, "
        "unsolved"
    )
