"""The benchmark of OpenVLA-OFT runs anywhere, and both of its sides compute the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import openvla_oft

TINY = ["--preset", "tiny", "--repeats", "1"]


def test_both_sides_of_act_give_the_same_log_probs(capsys):
    openvla_oft.main([*TINY, "act", "--plain", "--batches", "1", "2"])
    told = capsys.readouterr().out
    assert len(re.findall(r"^ +[12] ", told, re.MULTILINE)) == 2
    assert float(told.rsplit(":", 1)[1]) < 1e-5


def test_evaluate_measures_both_sides(capsys):
    openvla_oft.main([*TINY, "evaluate", "--plain", "--rounds", "1", "--reference", "2", "--settings", "mlp:2"])
    sides = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert sides == ["reference", "ours"]


@pytest.mark.slow
def test_update_steps_with_and_without_lora():
    settings = ["update", "--plain", "--micros", "2", "--settings", "lora:2:none:1", "full:3:block:1"]
    command = [sys.executable, "-m", "tests.benchmarks.openvla_oft", *TINY, *settings]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:]] == [["lora", "2"], ["full", "3"]]
