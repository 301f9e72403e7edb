"""ManiSkill's experts in ManiSkill itself, and the simulator of many worlds over ManiSkill's one on the CPU."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]
INSIDE = Path(__file__).with_name("inside.py")
TASKS = {
    "PickCube-v1",
    "PullCube-v1",
    "PushCube-v1",
    "StackCube-v1",
    "TwoRobotPickCube-v1",
    "TwoRobotStackCube-v1",
}


@pytest.fixture(scope="module")
def told(maniskill_python):
    path = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [maniskill_python, str(INSIDE)], capture_output=True, text=True, env=path, stdin=subprocess.DEVNULL, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_every_expert_solves_its_task_well_within_the_step_limit(told):
    assert set(told["experts"]) == TASKS
    for task, (limit, outcomes) in told["experts"].items():
        for success, steps, bounded in outcomes:
            assert success, task
            assert steps < 0.9 * limit
            assert bounded


def test_stepped_together_a_world_does_as_one_on_its_own(told):
    assert told["one_by_one"]


def test_a_reset_of_one_world_is_maniskills_own(told):
    assert told["one_world"]["same"]
    assert told["one_world"]["differs"]


def test_a_world_is_put_back_to_single_precision(told):
    assert told["one_world"]["moved"] > 0.01
    assert told["one_world"]["back"] < 1e-5


def test_what_is_not_there_is_refused_by_name(told):
    assert told["refusals"] == {
        "cuda": (
            "maniskill: simulator.options.backend is physx_cuda, but torch sees no CUDA device here: run on a machine "
            "with a GPU and with torch built for CUDA in simulator.python's environment, or take physx_cpu"
        ),
        "expert": (
            "maniskill: PlaceSphere-v1 has no expert; tasks that have one: TwoRobotPickCube-v1, TwoRobotStackCube-v1, "
            "PickCube-v1, StackCube-v1, PushCube-v1, PullCube-v1"
        ),
    }
