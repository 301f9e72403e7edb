"""`baton retry`: which units are tried again, with what, and what is refused."""

import os
import sys
import time
from pathlib import Path

import pytest

from pipeline import cli, jobs, launchers, lease, ledger, rundir
from pipeline.artifacts import Unit, attempt_directory, now, publish
from pipeline.cancel import cancel
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.orchestrator import drive
from slurm.launcher import Sight
from slurm.states import State

ROOT = Path(cli.__file__).parents[1]
FIRST, SECOND, UPDATE = Unit(1, "rollout", 0), Unit(1, "rollout", 1), Unit(1, "update")
SETTINGS = {
    "name": "again",
    "epochs": 1,
    "rollout": {"shards": 2},
    "sft": {"threads": 1, "processes": 1},
    "update": {"threads": 1, "processes": 1},
    "trainer": {"logger": {"mlflow": {"enable": False}}},
}


def make_run(folder, **slurm):
    return rundir.create_or_resume(Config.model_validate({**SETTINGS, "runs_dir": str(folder), "slurm": slurm}))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a cluster that exists by hearsay."""
    monkeypatch.setattr(launchers.client, "configured", lambda: True)
    return make_run(tmp_path, launcher="slurm", rollout={"mem": "16G"})


@pytest.fixture
def retry(run, monkeypatch, capsys):
    """`code, out, err = retry("rollout", "--mem", "64G")`."""

    def retry(*arguments):
        monkeypatch.setattr(sys, "argv", ["baton", "retry", str(run), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return retry


def submit(run, unit, attempt=1):
    key = f"id:{unit}:{attempt}"
    jobs.append(run, "submit", unit=str(unit), attempt=attempt, key=key, host="here")
    jobs.append(run, "submitted", unit=str(unit), attempt=attempt, key=key, job=f"7{attempt}", host="slurm")


def fail(run, unit, times=3, cause="memory"):
    for attempt in range(1, times + 1):
        submit(run, unit, attempt)
        key = f"id:{unit}:{attempt}"
        jobs.append(run, "ended", unit=str(unit), attempt=attempt, key=key, outcome="failed", cause=cause, error="no")


def put(run, unit):
    scratch = attempt_directory(run, unit, 1) / "scratch"
    scratch.mkdir(parents=True)
    empty = dict.fromkeys(("config_digest", "code_revision", "host", "job_id"), "")
    described = {"unit": str(unit), "part": unit.stage, "attempt": 1, "seed": 0, "started": now(), **empty}
    publish(scratch, run / unit.marker, {**described, "inputs": {}, "metrics": {}, "seconds": {}, "versions": {}})


def status(run, unit):
    return next(state.status for state in ledger.read(run).units if state.unit == unit)


def given(run, unit):
    history = jobs.histories(run)[unit]
    return history.mem, history.minutes


def test_all_that_failed_is_tried_again_with_what_is_asked(run, retry):
    fail(run, FIRST)
    fail(run, SECOND)
    fail(run, UPDATE, times=1)
    code, out, _ = retry("--mem", "64G", "--time", "8:00:00")
    assert code == 0
    assert out == (
        "to be tried again: e0001-rollout-s0000, with 64G of memory and 8:00:00 of time\n"
        "to be tried again: e0001-rollout-s0001, with 64G of memory and 8:00:00 of time\n"
        "the `baton run` command that started this run tries again\n"
    )
    assert (status(run, FIRST), status(run, SECOND)) == ("waiting", "waiting")
    assert given(run, FIRST) == ("64G", 480)
    assert given(run, UPDATE) == (None, None)
    assert not (run / lease.FILE).exists()


def test_named_units_need_not_have_been_given_up(run, retry):
    fail(run, FIRST, times=1)
    put(run, SECOND)
    code, out, _ = retry("rollout", "--epoch", 1)
    assert code == 0
    assert out.splitlines()[0] == "to be tried again: e0001-rollout-s0000"
    assert jobs.histories(run)[FIRST].failures == {}


def test_without_names_what_failed_once_counts_where_nothing_was_given_up(run, retry):
    """As after a chain, of which nobody tried anything twice; those behind were cancelled and need no more memory."""
    fail(run, FIRST, times=1)
    fail(run, UPDATE, times=1, cause="cancelled")
    code, out, _ = retry("--mem", "64G")
    assert code == 0
    assert given(run, FIRST) == ("64G", None)
    assert given(run, UPDATE) == (None, None)


def test_what_was_given_or_has_grown_stays(tmp_path, run, retry):
    fail(run, FIRST)
    retry("--mem", "64G")
    fail(run, FIRST)
    retry("--time", "30")
    assert given(run, FIRST) == ("64G", 30)
    run = make_run(tmp_path / "growing", launcher="slurm", rollout={"mem": "16G"}, mem_growth=2, time="1:00:00")
    fail(run, FIRST, times=3)
    from pipeline.retry import retry as again

    assert [str(one) for one in again(run)] == [f"to be tried again: {FIRST}, with 131072M of memory"]
    assert given(run, FIRST) == ("131072M", None)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mem", "much"], "--mem: 'much' is no amount of memory: write a number with K, M, G or T"),
        (["--time", "8h"], "--time: '8h' is no time limit"),
        (["--time", "0"], "--time: '0' is no time at all"),
        (["polish"], "'polish' is not a stage"),
        (["update", "--shard", "1"], "update has no shards"),
        (["update", "--epoch", "9"], "has no such unit: `baton status"),
        ([], "none of these units has failed: `baton status"),
        (["update"], "e0001-update has not been tried yet: set slurm.update for its first try"),
        (["rollout", "--shard", "1"], "e0001-rollout-s0001 is published; to make it again: baton rerun "),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(run, retry, arguments, complaint):
    put(run, SECOND)
    code, out, err = retry(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    assert not (run / jobs.FILE).exists()


class Queue:
    def __init__(self, state):
        self.state = state

    def poll(self, wanted):
        return {job.key: Sight(self.state, "OUT_OF_MEMORY", cause="memory") for job in wanted}

    def hurry(self):
        pass

    def tidy(self, wanted):
        pass


def test_a_unit_that_runs_is_refused(run, retry, monkeypatch):
    submit(run, FIRST)
    monkeypatch.setattr(launchers, "launcher_for", lambda run, config, say: Queue(State.RUNNING))
    code, _, err = retry("rollout", "--shard", "0")
    assert code == 2
    assert "e0001-rollout-s0000 runs or is in the queue: wait for its end, or `baton cancel" in err


def test_an_end_that_nobody_has_seen_is_seen(run, retry, monkeypatch):
    """Of a chain, or of a run whose orchestrator was killed."""
    submit(run, FIRST)
    monkeypatch.setattr(launchers, "launcher_for", lambda run, config, say: Queue(State.ENDED))
    code, out, _ = retry("--mem", "64G")
    assert code == 0
    assert out.startswith("to be tried again: e0001-rollout-s0000, with 64G of memory\n")
    assert given(run, FIRST) == ("64G", None)


def test_a_run_that_is_driven_is_left_alone(run, retry):
    fail(run, FIRST)
    with lease.Lease(run, print):
        code, _, err = retry()
    assert code == 2
    assert "is already driven by process" in err


def test_memory_is_refused_where_it_is_not_shared_out(tmp_path, monkeypatch):
    from pipeline.retry import retry as again

    monkeypatch.setattr(launchers.client, "configured", lambda: True)
    run = make_run(tmp_path / "here", launcher="local")
    fail(run, FIRST)
    with pytest.raises(UserError, match="--mem 64G: units are processes of this machine"):
        again(run, mem="64G")
    assert [str(one) for one in again(run, time="30")] == [f"to be tried again: {FIRST}, with 0:30:00 of time"]
    run = make_run(tmp_path / "held", launcher="slurm", schedule="pilot")
    fail(run, FIRST)
    for name, amount in (("mem", "64G"), ("time", "30")):
        with pytest.raises(UserError, match=f"--{name} {amount}: .* raise slurm.pilot.{name}"):
            again(run, **{name: amount})


@pytest.mark.slow
def test_on_a_real_cluster_a_unit_gets_what_it_was_given(tmp_path, idle_cluster, retry, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'faults'}")
    run = make_run(tmp_path / "real", launcher="slurm", query_seconds=0.5, poll_seconds=0.1)
    (run / "fake.json").write_text('{"crash": {"e0000-sft": 3}}')
    with pytest.raises(UserError, match="e0000-sft failed 3 times"):
        drive(run, lambda snapshot: None, say=lambda line: None, stages_package="fake_stages")
    monkeypatch.setattr(sys, "argv", ["baton", "retry", str(run), "--mem", "700M", "--time", "30"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    begin = time.monotonic()
    drive(run, lambda snapshot: None, say=lambda line: None, stages_package="fake_stages")
    assert time.monotonic() - begin < 60
    script = (attempt_directory(run, Unit(0, "sft"), 4) / "sbatch.sh").read_text()
    assert "#SBATCH --mem=700M\n" in script
    assert "#SBATCH --time=30\n" in script
    other = (attempt_directory(run, Unit(0, "evaluate"), 1) / "sbatch.sh").read_text()
    assert "--mem" not in other
    assert cancel(run) == ()
