"""The household behind the simulator interface: determinism, states, limits, images and frames."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from stages.simulators import opengl
from stages.simulators.household import rendering
from stages.simulators.interface import Episode, Simulator, SimulatorConfigError, make

TASKS = ("pick_onto_plate", "stack")


def _make(num_envs: int, **options) -> Simulator:
    return make("household", num_envs, {"renderer": "raycast", "image_size": 32, **options})


def _actions(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(0, 0.5, (*shape, 14)), -1, 1).astype(np.float32)


def _run_expert(simulator: Simulator, episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Success [N], actions [N, T, 14], which were executed [N, T] and which were the expert's own [N, T]."""
    slots = range(len(episodes))
    simulator.reset(slots, episodes, [False] * len(episodes))
    success, actions, executed, clean = np.zeros(len(episodes), dtype=bool), [], [], []
    for _ in range(10):
        taken, own, result = simulator.expert_chunk(slots, 8)
        success |= result.success
        actions.append(taken)
        executed.append(result.executed)
        clean.append(own)
    return success, np.concatenate(actions, 1), np.concatenate(executed, 1), np.concatenate(clean, 1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("options", [{}, {"object_size": 0.05, "plate_radius": 0.09, "spread": 0.6, "arms": "right"}])
def test_the_expert_solves_every_seed_with_one_quiet_arm(task, options):
    simulator = _make(20, tasks=[task], **options)
    success, actions, executed, clean = _run_expert(simulator, [Episode(task, seed) for seed in range(20)])
    assert success.all()
    assert clean.all()
    assert 20 <= executed.sum(axis=1).mean() <= 45
    assert np.abs(actions).max() <= 1
    quiet = [(np.abs(actions[:, :, arm : arm + 6]) == 0).all(axis=(1, 2)) for arm in (0, 7)]
    assert (quiet[0] ^ quiet[1]).all()
    for idle, gripper in zip(quiet, (6, 13), strict=True):
        assert (actions[idle][executed[idle]][:, gripper] == 1).all()


def test_an_episode_is_the_same_alone_in_a_crowd_and_in_another_process():
    actions = _actions(0, (1, 24))
    tasks = ["stack", "object_teal_pot", "spatial_cube_in_dish"]

    alone = _make(1, tasks=tasks)
    alone.reset([0], [Episode("object_teal_pot", 5)], [False])
    alone.step_chunk([0], actions)
    expected = alone.save_state(0)

    crowd = _make(3, tasks=tasks)
    crowd.reset([0, 1, 2], [Episode("stack", 9), Episode("spatial_cube_in_dish", 2), Episode("stack", 1)], [False] * 3)
    crowd.step_chunk([0, 1, 2], _actions(1, (3, 5)))
    crowd.reset([1], [Episode("object_teal_pot", 5)], [False])
    crowd.step_chunk([2, 1, 0], np.concatenate([_actions(2, (1, 24)), actions, _actions(3, (1, 24))]))
    assert crowd.save_state(1) == expected

    program = f"""
import sys, numpy as np
from stages.simulators.interface import Episode, make
simulator = make("household", 1, {{"renderer": "raycast", "image_size": 32, "tasks": {tasks}}})
simulator.reset([0], [Episode("object_teal_pot", 5)], [False])
simulator.step_chunk([0], np.frombuffer(bytes.fromhex("{actions.tobytes().hex()}"), np.float32).reshape(1, 24, 14))
sys.stdout.buffer.write(simulator.save_state(0))
"""
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert other.stdout == expected


def test_a_restored_world_goes_on_exactly_as_the_saved_one_did():
    simulator = _make(2, expert_perturbation=0.2)
    simulator.reset([0, 1], [Episode("stack", 3), Episode("pick_onto_plate", 4)], [False, False])
    simulator.expert_chunk([0], 13)
    state = simulator.save_state(0)
    seen = simulator.observe([0])
    actions, clean, result = simulator.expert_chunk([0], 20)
    after = simulator.save_state(0)

    simulator.expert_chunk([1], 9)
    simulator.restore_state(1, state)
    again = simulator.observe([1])
    np.testing.assert_array_equal(again.head, seen.head)
    np.testing.assert_array_equal(again.wrist, seen.wrist)
    np.testing.assert_array_equal(again.proprio, seen.proprio)
    repeated, clean_again, result_again = simulator.expert_chunk([1], 20)
    np.testing.assert_array_equal(repeated, actions)
    np.testing.assert_array_equal(clean_again, clean)
    np.testing.assert_array_equal(result_again.rewards, result.rewards)
    assert simulator.save_state(1) == after


def test_a_world_stops_at_its_success_inside_a_chunk():
    simulator = _make(1, tasks=["stack"])
    simulator.reset([0], [Episode("stack", 0)], [False])
    actions, _, result = simulator.expert_chunk([0], 60)
    steps = int(result.executed.sum())
    assert result.success[0]
    assert result.terminated[0]
    assert not result.truncated[0]
    assert steps < 60
    assert result.executed[0, :steps].all()
    assert result.rewards[0, steps - 1] == 1
    assert result.rewards.sum() == 1
    assert (actions[0, steps:] == actions[0, steps - 1]).all()
    assert not simulator.step_chunk([0], _actions(0, (1, 4))).executed.any()


def test_a_world_stops_at_its_step_limit():
    simulator = _make(1, max_episode_steps=10)
    simulator.reset([0], [Episode("stack", 0)], [False])
    first = simulator.step_chunk([0], np.zeros((1, 8, 14), np.float32))
    last = simulator.step_chunk([0], np.zeros((1, 8, 14), np.float32))
    assert not first.truncated[0]
    assert last.truncated[0]
    assert not last.terminated[0]
    assert last.executed[0].tolist() == [True] * 2 + [False] * 6


def test_a_task_has_a_step_limit_of_its_own_unless_the_config_gives_one():
    own = _make(1, tasks=["stack", "object_red_cube"])
    assert own.spec.max_episode_steps == 120
    own.reset([0], [Episode("stack", 0)], [False])
    result = own.step_chunk([0], np.zeros((1, 200, 14), np.float32))
    assert result.executed.sum() == 80
    assert result.truncated[0]
    assert _make(1, tasks=["stack", "object_red_cube"], max_episode_steps=30).spec.max_episode_steps == 30


def test_dense_rewards_add_up_to_the_potential_gained_and_the_success():
    simulator = _make(1, tasks=["stack"], reward="dense")
    simulator.reset([0], [Episode("stack", 0)], [False])
    _, _, result = simulator.expert_chunk([0], 60)
    assert (result.rewards[0] != 0).sum() > 20
    assert 1.0 < result.rewards.sum() < 2.5


def test_physics_that_breaks_down_is_told_with_task_and_seed():
    simulator = _make(1, tasks=["object_red_cube"])
    simulator.reset([0], [Episode("object_red_cube", 41)], [False])
    state = pickle.loads(simulator.save_state(0))
    state["engine"]["physics"][5:10] = np.nan
    simulator.restore_state(0, pickle.dumps(state))
    with pytest.raises(RuntimeError, match="physics of task object_red_cube, seed 41 broke down at step 1"):
        simulator.step_chunk([0], np.zeros((1, 4, 14), np.float32))


@pytest.mark.parametrize(("action", "physics"), [(10, 200), (30, 120), (20, 500)])
def test_the_expert_works_at_other_frequencies(action, physics):
    options = {"action_frequency": action, "physics_frequency": physics, "rendering_frequency": action}
    simulator = _make(6, max_episode_steps=80, **options)
    success, *_ = _run_expert(simulator, [Episode(TASKS[seed % 2], seed) for seed in range(6)])
    assert success.all()


def test_observations_show_the_colours_of_the_scene():
    simulator = _make(2, image_size=64)
    simulator.reset([0, 1], [Episode("pick_onto_plate", 0), Episode("stack", 1)], [False, False])
    seen = simulator.observe([1, 0])
    assert seen.head.shape == (2, 3, 64, 64)
    assert seen.wrist.shape == (2, 2, 3, 64, 64)
    assert seen.head.dtype == seen.wrist.dtype == np.uint8
    red, green, blue = (seen.head[:, c].astype(int) for c in range(3))
    assert ((red > 120) & (green < 60) & (blue < 60)).sum(axis=(1, 2)).min() >= 8
    assert ((blue > 120) & (red < 60)).sum(axis=(1, 2)).min() >= 8
    plate = ((red > 200) & (green > 200) & (blue > 200)).sum(axis=(1, 2))
    assert plate[1] > 60
    assert plate[1] > plate[0] + 40
    np.testing.assert_array_equal(simulator.observe([0]).head[0], seen.head[1])


@pytest.mark.parametrize("wrists", [0, 1])
def test_only_the_chosen_cameras_are_observed(wrists):
    every, some = _make(1), _make(1, wrist_cameras=wrists)
    for simulator in (every, some):
        simulator.reset([0], [Episode("stack", 1)], [True])
    assert some.spec.wrist_cameras == wrists
    seen, wanted = some.observe([0]), every.observe([0])
    np.testing.assert_array_equal(seen.head, wanted.head)
    np.testing.assert_array_equal(seen.wrist, wanted.wrist[:, :wrists])
    np.testing.assert_array_equal(some.frame(0), every.frame(0), "an audience sees everything")


def test_only_filmed_worlds_return_frames_one_an_executed_step():
    simulator = _make(2, rendering_frequency=10, max_episode_steps=6)
    simulator.reset([0, 1], [Episode("stack", 0), Episode("stack", 1)], [True, False])
    result = simulator.step_chunk([0, 1], _actions(0, (2, 8)))
    assert [len(frames) for frames in result.frames] == [6, 0]
    first, second, third, fourth, fifth, last = result.frames[0]
    assert first.shape == (448, 672, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)  # drawn at every second step, repeated in between
    assert not np.array_equal(second, third)
    assert np.array_equal(third, fourth)
    assert not np.array_equal(fifth, last)  # an episode's end is always shown


def test_what_was_not_asked_for_is_refused():
    simulator = _make(1, tasks=["stack"])
    with pytest.raises(SimulatorConfigError, match="no task 'pick_onto_plate'"):
        simulator.reset([0], [Episode("pick_onto_plate", 0)], [False])
    with pytest.raises(ValueError, match="never reset"):
        simulator.observe([0])
    simulator.reset([0], [Episode("stack", 0)], [False])
    with pytest.raises(ValueError, match="not \\[1, K, 14\\]"):
        simulator.step_chunk([0], np.zeros((1, 8, 7), np.float32))
    with pytest.raises(ValueError, match="not a finite number"):
        simulator.step_chunk([0], np.full((1, 1, 14), np.nan, np.float32))
    with pytest.raises(SimulatorConfigError, match="num_envs is 0"):
        make("household", 0, {})


def test_a_renderer_that_cannot_start_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setitem(opengl.LIBRARIES, "egl", ("libnowhere.so.9",))
    with pytest.raises(SimulatorConfigError, match="libnowhere.so.9 is missing.*apt-get install .*libegl1"):
        rendering.choose("egl")


def test_auto_heeds_mujoco_gl_and_falls_through_to_the_ray_caster(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    assert rendering.choose("auto") == "raycast"
    monkeypatch.delenv("MUJOCO_GL")
    for name in ("egl", "osmesa"):
        monkeypatch.setitem(opengl.LIBRARIES, name, ("libnowhere.so.9",))
    assert rendering.choose("auto") == "raycast"


@pytest.mark.parametrize("name", ["egl", "osmesa"])
def test_opengl_shows_what_the_ray_caster_shows(name, monkeypatch):
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)  # of a test that drew in this process
    try:
        rendering.choose(name)
    except SimulatorConfigError as reason:
        pytest.skip(str(reason))
    # In a process of its own: one process cannot load both OpenGL platforms.
    program = f"""
import numpy as np
from stages.simulators.interface import Episode, make
seen = []
for renderer in ("{name}", "raycast"):
    simulator = make("household", 1, {{"renderer": renderer, "image_size": 64}})
    assert simulator.spec.renderer == renderer
    simulator.reset([0], [Episode("stack", 1)], [False])
    seen.append(simulator.observe([0]))
    simulator.close()
for one, other in ((seen[0].head, seen[1].head), (seen[0].wrist, seen[1].wrist)):
    difference = np.abs(one.astype(int) - other).mean()
    assert difference < 12, difference
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
