"""What a step of an allocation makes of the GPUs that Slurm shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[1:], __name__)"


def on(gpus: str, shown: str | None, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "module_of_a_step.py").write_text(MODULE)
    rest = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    told = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
    command = [sys.executable, "-P", "-m", "slurm.entry", gpus, "module_of_a_step", "RUN", "--epoch=3"]
    return subprocess.run(command, env=rest | told | {"PYTHONPATH": paths}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("shown", "counted", "seen"),
    [("0,1,2,3", "1,3", "1,3"), ("2,3", "1,0", "3,2"), ("GPU-5d2e,MIG-77aa", "1", "MIG-77aa"), (None, "2,3", "2,3")],
)
def test_gpus_are_counted_among_those_shown(shown, counted, seen, tmp_path):
    done = on(counted, shown, tmp_path)
    assert (done.stdout, done.stderr) == (f"{seen} ['RUN', '--epoch=3'] __main__\n", "")


def test_gpus_that_are_not_shown_are_missed_in_one_line(tmp_path):
    done = on("0,1", "4", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "baton: CUDA_VISIBLE_DEVICES='4' shows 1 GPUs and a job is to have number 1" in done.stderr
    assert len(done.stderr.splitlines()) == 1
