"""ManiSkill's options and tasks: what is refused, and how that is told."""

import dataclasses

import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.maniskill import catalogue, make
from stages.simulators.maniskill.options import Options, parse

FIELDS = [field.name for field in dataclasses.fields(Options)]
TWO = ("TwoRobotPickCube-v1", "TwoRobotStackCube-v1")


def test_nothing_said_is_two_arms_that_hand_a_cube_on():
    assert parse({}) == Options()
    assert Options().tasks == TWO[:1]
    assert Options().arms == ("panda_wristcam", "panda_wristcam")


def test_a_suite_stands_for_its_tasks():
    assert parse({"tasks": ["two_robot"]}).tasks == TWO
    one = parse({"tasks": ["single_arm"]})
    assert one.arms == ("panda_wristcam",)
    assert {*one.tasks, *TWO} == set(catalogue.entries())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"image": 64},
            f"no option 'image', did you mean 'image_size'?; valid: {', '.join(FIELDS)}",
        ),
        ({"image_size": 16}, "image_size is 16; it must be an integer from 32 to 1024"),
        ({"expert_perturbation": 2}, "expert_perturbation is 2; it must be a number from 0 to 1"),
        ({"renderer": "egl"}, "renderer has no 'egl'; valid: auto, gpu, cpu"),
        (
            {"backend": "physx_gpu"},
            "backend has no 'physx_gpu', did you mean 'physx_cpu'?; valid: physx_cpu, physx_cuda",
        ),
        (
            {"physics_frequency": 110},
            "physics_frequency 110 is not a multiple of action_frequency 20; choose one that is",
        ),
        ({"tasks": "two_robot"}, "tasks is 'two_robot'; it must be a list of names of tasks or suites"),
        ({"tasks": []}, "tasks is []; name at least one task, each once"),
        ({"tasks": ["two_robot", TWO[0]]}, f"tasks is ['two_robot', '{TWO[0]}']; name at least one task, each once"),
        (
            {"tasks": [TWO[0], "PickCube-v1"]},
            f"tasks is ['{TWO[0]}', 'PickCube-v1'], with one arm and with two; name tasks of one suite: two_robot, "
            "single_arm",
        ),
        (
            {"tasks": ["two_robot"], "backend": "physx_cuda"},
            "backend is physx_cuda, which has all worlds in one task, but tasks has 2; name one, or set backend: "
            "physx_cpu",
        ),
    ],
)
def test_what_is_wrong_is_told(options, told):
    with pytest.raises(SimulatorConfigError) as refused:
        parse(options)
    assert str(refused.value) == f"maniskill: {told}"


def test_a_task_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(SimulatorConfigError) as refused:
        parse({"tasks": ["PickCube"]})
    valid = ", ".join(["two_robot", "single_arm", *catalogue.entries()])
    assert str(refused.value) == f"maniskill: tasks has no 'PickCube', did you mean 'PickCube-v1'?; valid: {valid}"


def test_no_world_is_refused_before_anything_is_loaded():
    with pytest.raises(SimulatorConfigError, match="^maniskill: num_envs is 0; it must be at least 1$"):
        make(0, {})
