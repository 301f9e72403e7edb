"""The expert in the real LIBERO, in its own interpreter."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]
UNTROUBLED = 110  # steps; an episode without any trouble takes about 80, another attempt at least 40 more


@pytest.fixture(scope="module")
def facts(libero_python):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [libero_python, "-W", "ignore", str(Path(__file__).with_name("inside.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("facts: "))
    return json.loads(line.removeprefix("facts: "))


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_a_thing_reaches_the_basket_at_the_first_attempt(facts, split):
    episode = facts[split]
    assert episode["success"]
    assert episode["turns"] == 1  # of the gripper: it shut once, and the episode ended before it opened
    assert episode["steps"] < UNTROUBLED


def test_actions_are_within_bounds_and_the_gripper_is_open_or_shut(facts):
    for split in ("training", "evaluation", "disturbed"):
        assert facts[split]["largest"] <= 1
        assert facts[split]["grippers"] == [-1, 1]


def test_undisturbed_steps_are_clean(facts):
    assert facts["training"]["perturbed"] == facts["evaluation"]["perturbed"] == 0


def test_a_bowl_comes_out_of_the_drawer_although_the_hand_is_pushed(facts):
    assert facts["disturbed"]["perturbed"] > 0
    assert facts["disturbed"]["success"]


def test_the_expert_only_reads_and_repeats_itself(facts):
    assert facts["reading"] == {"untouched": True, "repeats": True}


def test_bursts_replace_the_motion_and_leave_the_gripper_alone(facts):
    bursts = facts["bursts"]
    assert bursts["never"]
    assert bursts["own_otherwise"]
    assert bursts["shortest"] == 2
    # Bursts of 3.5 steps on average between 10 steps of the expert's own.
    assert bursts["share"] == pytest.approx(3.5 / (3.5 + 9), abs=0.05)
