"""Jobs that Slurm starts again, or twice: no two processes ever write the same files."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pipeline import artifacts
from pipeline.artifacts import Unit, attempt_directory, incarnation_directory, latest_incarnation, open_artifact
from stages.door import run_stage
from stages.kept import Kept
from stages.signals import Stopped
from stages.unit import Work, load_config

ROLLOUT, UPDATE = Unit(1, "rollout", 0), Unit(1, "update")


def test_every_incarnation_has_a_directory_of_its_own(tmp_path):
    assert incarnation_directory(tmp_path, 0) == tmp_path
    assert latest_incarnation(tmp_path) == tmp_path
    for restarts in (2, 10, 9):
        incarnation_directory(tmp_path, restarts).mkdir()
    (tmp_path / "restart-notes").touch()
    assert latest_incarnation(tmp_path) == tmp_path / "restart-10"


def test_the_scratch_of_all_incarnations_is_cleared_together_and_their_logs_stay(tmp_path):
    places = [incarnation_directory(tmp_path, restarts) for restarts in (0, 1, 3)]
    for place in places:
        (place / "scratch" / "policy").mkdir(parents=True)
        (place / "metrics.jsonl").touch()
    artifacts.discard_scratch(places[1])
    assert [(place / "scratch").exists() for place in places] == [True, False, True]
    artifacts.clear_scratch(tmp_path)
    assert [(place / "scratch").exists() for place in places] == [False] * 3
    assert all((place / "metrics.jsonl").exists() for place in places)


def test_an_attempt_belongs_to_the_job_that_came_first(tmp_path):
    attempt = tmp_path / "attempts" / "1"
    assert artifacts.claim(attempt, "77_3") == "77_3"
    assert artifacts.claim(attempt, "78") == "77_3"
    assert artifacts.claim(attempt, "77_3") == "77_3"
    assert os.listdir(attempt) == ["claim"]


def work(tiny, unit, restarts, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    begun = Work(tiny.run, load_config(tiny.run), unit, 1, Kept())
    for part in unit.outputs:
        (begun.scratch(part) / "content").write_text("whatever")
    return begun


@pytest.mark.slow
def test_a_former_incarnation_publishes_nothing_more(prepared, tmp_path, monkeypatch):
    tiny = prepared.copy(tmp_path, UPDATE)
    former = work(tiny, UPDATE, 0, monkeypatch)
    newer = work(tiny, UPDATE, 1, monkeypatch)
    with pytest.raises(Stopped, match="restart-1, which was started in its place"):
        former.publish()
    assert tiny.contents(UPDATE) is None
    assert len(newer.publish()) == 3
    published = tiny.contents(UPDATE)
    assert former.publish() == []
    assert tiny.contents(UPDATE) == published


@pytest.mark.slow
def test_metrics_of_an_earlier_start_are_not_published(prepared, tmp_path, monkeypatch):
    tiny = prepared.copy(tmp_path, UPDATE)
    work(tiny, UPDATE, 0, monkeypatch).metrics.log(1, {"actor/loss": 1.0})
    again = work(tiny, UPDATE, 0, monkeypatch)
    again.metrics.log(2, {"actor/loss": 2.0})
    again.publish()
    lines = (tiny.run / UPDATE.marker / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert '"step": 2' in lines[0]


@pytest.mark.slow
def test_a_job_that_is_started_again_leaves_its_former_self_alone(prepared, tmp_path):
    tiny = prepared.copy(tmp_path, ROLLOUT)
    attempt = attempt_directory(tiny.run, ROLLOUT, 1)
    job = {"SLURM_JOB_ID": "77"}
    lost = tiny.start(ROLLOUT, "--attempt", 1, **job)  # its node seems dead ...
    lost.wait_for(attempt / "scratch" / "rollout")
    lost.signal(signal.SIGSTOP)
    time.sleep(0.5)  # until its threads have stopped too
    before = {path: path.read_bytes() for path in attempt.rglob("*") if path.is_file()}
    code, output = tiny.start(ROLLOUT, "--attempt", 1, **job, SLURM_RESTART_COUNT="1").end()
    assert code == 0, output
    assert {path: path.read_bytes() for path in before} == before
    assert latest_incarnation(attempt) == attempt / "restart-1"
    names = {path.name for path in (attempt / "restart-1").iterdir()}
    logs = {"episodes.jsonl", "metrics.jsonl", "phases.jsonl", "usage.jsonl"}
    assert names == logs | {"progress.json", "simulator-0.log"}
    assert tiny.contents(ROLLOUT) == prepared.contents(ROLLOUT)
    published = open_artifact(tiny.run / ROLLOUT.marker)
    lost.signal(signal.SIGCONT)  # ... and comes back
    code, output = lost.end()
    assert code == 0, output
    assert open_artifact(tiny.run / ROLLOUT.marker) == published
    assert not [*attempt.rglob("scratch")]


@pytest.mark.slow
def test_a_job_leaves_the_attempt_of_another_job_alone(prepared, tmp_path, monkeypatch, capsys):
    tiny = prepared.copy(tmp_path, ROLLOUT)
    attempt = attempt_directory(tiny.run, ROLLOUT, 4)
    artifacts.claim(attempt, "77")
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    arguments = [str(tiny.run), "--epoch", "1", "--shard", "0", "--attempt", "4"]
    assert run_stage("rollout", pytest.fail, arguments) == 0
    assert capsys.readouterr().out == f"attempt 4 at {ROLLOUT} belongs to job 77\n"
    assert os.listdir(attempt) == ["claim"]
    assert tiny.contents(ROLLOUT) is None
