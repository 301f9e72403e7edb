"""What a step of an allocation makes of the GPUs that Slurm shows it."""

import os
import subprocess

import pytest

from slurm.steps import OF_THOSE_SHOWN


@pytest.mark.parametrize(
    ("shown", "counted", "seen"),
    [
        ("0,1,2,3", "1 3", "1,3"),
        ("2,3", "1 0", "3,2"),
        ("GPU-5d2e,MIG-77aa", "1", "MIG-77aa"),
        ("4", "0 1", "4,"),  # CUDA and `stages.devices` read it as one GPU, and the stage says how many it lacks
        (None, "2 3", "2,3"),
    ],
)
def test_gpus_are_counted_among_those_shown(shown, counted, seen):
    rest = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    told = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    command = ["bash", "-c", OF_THOSE_SHOWN, counted, "printenv", "CUDA_VISIBLE_DEVICES"]
    done = subprocess.run(command, env=rest | told, capture_output=True, text=True, check=True)
    assert done.stdout == f"{seen}\n"
    assert not done.stderr
