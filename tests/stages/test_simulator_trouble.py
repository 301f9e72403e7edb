"""Stages whose simulators are in trouble: what can heal changes no bit of a shard, the rest is one clear message."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifacts import Unit, attempt_directory

pytestmark = pytest.mark.slow

FAKES = Path(__file__).parent / "simulators"
ROOT = Path(__file__).parents[2]
ROLLOUT, DEMONSTRATE = Unit(1, "rollout", 0), Unit(0, "demonstrate", 0)


def worker_of(stage) -> int:
    """The process of a stage that runs a simulator."""
    [worker] = [pid for pid in stage.pids if b"stages.simulators.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return worker


def log_of(tiny, unit) -> list[dict]:
    lines = (attempt_directory(tiny.run, unit, 1) / "episodes.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda line: line["index"])


@pytest.fixture(scope="module")
def disturbed(prepared, side_by_side, tmp_path_factory):
    """The same rollout, its worker killed in one and stopped in the other as soon as it plays."""

    def disturb(number: int):
        tiny = prepared.copy(tmp_path_factory.mktemp("disturbed"), ROLLOUT, simulator={"timeout": 5.0})
        stage = tiny.start(ROLLOUT)
        stage.wait_for(attempt_directory(tiny.run, ROLLOUT, 1) / "episodes.jsonl")
        os.kill(worker_of(stage), number)
        return tiny, *stage.end()

    return {number: side_by_side(disturb, number) for number in (signal.SIGKILL, signal.SIGSTOP)}


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "it was killed by signal 9 (Killed), as the kernel does when memory runs out"),
        (signal.SIGSTOP, "no answer for 5 s"),
    ],
)
def test_a_worker_that_is_lost_changes_no_bit_and_the_log_says_so(prepared, disturbed, number, reason):
    tiny, code, output = disturbed[number].result()
    assert code == 0, output
    assert "is replaced, restart 1 of 10, " in output
    assert tiny.contents(ROLLOUT) == prepared.contents(ROLLOUT)
    lines, usual = log_of(tiny, ROLLOUT), log_of(prepared, ROLLOUT)
    assert {reason for line in lines for reason in line["replayed"]} == {reason}
    assert [{**line, "replayed": []} for line in lines] == usual
    assert [line["index"] for line in lines] == list(range(4))
    assert {(line["split"], line["worker"]) for line in lines} == {("train", 0)}


def test_evaluations_and_demonstrations_are_logged_too(prepared):
    evaluated = log_of(prepared, Unit(0, "evaluate"))
    published = (prepared.run / Unit(0, "evaluate").marker / "episodes.jsonl").read_text().splitlines()
    names = ("task", "seed", "success", "steps", "return")
    assert [{name: line[name] for name in names} for line in evaluated] == [json.loads(line) for line in published]
    assert {line["split"] for line in evaluated} == {"evaluation"}
    assert {line["split"] for line in log_of(prepared, DEMONSTRATE)} == {"train"}
    about = json.loads((prepared.run / Unit(0, "evaluate").marker / "simulator.json").read_text())
    assert about["split"] == "evaluation"


def test_a_state_that_is_never_reached_is_named_after_three_tries(prepared, tmp_path):
    tiny = prepared.copy(tmp_path, DEMONSTRATE, simulator={"name": "fakesim.troubled"})
    begun = time.monotonic()
    path = os.pathsep.join([str(ROOT), str(FAKES)])
    code, output = tiny.start(DEMONSTRATE, PYTHONPATH=path).end()
    assert code == 1
    last = output.splitlines()[-1]
    seed = log_of(prepared, DEMONSTRATE)[0]["seed"]
    assert last.startswith(
        "baton: simulator worker 0 (fakesim.troubled) failed 3 times in a row, at last resetting to "
    )
    assert f"task 'pick_onto_plate' from seed {seed}" in last
    assert last.endswith(": RuntimeError: the cupboard is bewitched")
    assert "in reset\n    raise RuntimeError" in output, "the worker's own traceback"
    assert "SimulatorLost" not in output, "but none of the stage's"
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": ["dance"]}, "dance"),
        ({"image_size": 0}, "simulator.image_size"),
        ({"name": "nowhere"}, "no simulator is called 'nowhere'"),
        ({"python": "/no/such/python"}, "simulator.python: '/no/such/python' cannot be run"),
        ({"python": "bare"}, "cannot run a worker (No module named 'numpy')"),
    ],
)
def test_mistakes_are_told_in_one_line(prepared, tmp_path, settings, words):
    if settings.get("python") == "bare":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
        settings = {"python": str(tmp_path / "bare/bin/python")}
    tiny = prepared.copy(tmp_path, DEMONSTRATE, simulator=settings)
    code, output = tiny.start(DEMONSTRATE).end()
    assert code == 2
    [line] = output.splitlines()
    assert line.startswith("baton: ")
    assert words in line
