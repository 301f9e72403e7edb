"""`baton status`: what it prints for each thing that can be true of a run, and for programs."""

import json
import os
import time
from pathlib import Path

import pytest

from pipeline import chain, cli, jobs, launchers, lease, rundir
from pipeline.artifacts import Unit, attempt_directory
from pipeline.compose import compose
from pipeline.tracking import standing
from pipeline.validation import dump
from slurm import client
from slurm.launcher import Job, Sight
from slurm.states import State
from tests.pipeline.report.status_for_tests import end, line, submit, told

ROOT = Path(cli.__file__).parents[1]
ROLLOUTS = ["e0001-rollout-s0000", "e0001-rollout-s0001"]
PENDING = Sight(State.WAITING, "PENDING (Priority)", queued=65.0)


def warm(run, put, evaluate):
    """Epoch 0 is published."""
    put("demonstrate", 0, 0, seconds=5)
    put("sft", 0, start=10, seconds=20, metrics={"actor/loss": 0.25})
    evaluate(0, {"open": "+---", "close": "++--"}, start=30, seconds=4)


def finish(put, evaluate, epoch):
    for shard in (0, 1):
        put("rollout", epoch, shard, metrics={"rollout/success_rate": 0.25 + shard / 2})
    put("update", epoch, metrics={"actor/loss": 0.0123456, "actor/approx_kl": 0.04 * epoch})
    if epoch == 2:
        evaluate(2, {"open": "++++", "close": "+++-"})


def test_a_finished_run_is_told_without_asking_anybody(run, put, evaluate, status, monkeypatch):
    warm(run, put, evaluate)
    finish(put, evaluate, 1)
    finish(put, evaluate, 2)
    monkeypatch.setattr(launchers, "launcher_for", None)
    text = status()
    assert text.startswith("runs/made: finished\n")
    row = line(text, "1", "rollout")
    assert (row[2:5], row[-3:]) == (["published", "2/2", "2"], ["success", "50.0", "%"])
    assert line(text, "1", "update")[-2:] == ["loss", "0.01235"]
    assert line(text, "actor/approx_kl")[-2:] == ["0.04", "0.08"]
    assert line(text, "2", "evaluate")[-3:] == ["success", "87.5", "%"]
    assert max(map(len, text.splitlines())) <= 80
    assert "to continue" not in text


def test_open_units_with_their_jobs_and_why_they_wait(run, put, evaluate, status, queue):
    warm(run, put, evaluate)
    submit(run, ROLLOUTS[0], "71_0")
    submit(run, ROLLOUTS[1], "71_1")
    queue.sights = {"71_0": Sight(State.RUNNING, "RUNNING", "sim0", 5.0, 192.0), "71_1": PENDING}
    attempt_directory(run, Unit.parse(ROLLOUTS[0]), 1).mkdir(parents=True)
    report = {"done": 3, "total": 8, "metrics": {"rollout/success_rate": 2 / 3, "rollout/reward_mean": None}}
    (attempt_directory(run, Unit.parse(ROLLOUTS[0]), 1) / "progress.json").write_text(json.dumps(report))
    with lease.Lease(run, print):
        text = status()
    assert queue.looks == 1
    assert f"driven by process {os.getpid()}" in text
    assert line(text, "1", "rollout")[2:] == ["running", "0/2", "2", "1:05", "3:12", "success", "66.7", "%"]
    assert told(text, ROLLOUTS[0]) == f"{ROLLOUTS[0]} running job 71_0 on sim0 for 3:12 min, 3/8, success 66.7 %"
    assert told(text, ROLLOUTS[1]) == (
        f"{ROLLOUTS[1]} queued job 71_1 for 1:05 min: jobs of higher priority come first (Priority)"
    )
    assert told(text, "e0001-update") == "e0001-update waiting for e0001-rollout (2 of 2 shards)"
    assert "epoch 2: waiting" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_expected_start(run, status, queue):
    submit(run, "e0000-demonstrate-s0000", "71_0")
    soon, later = time.time() + 60, time.time() + 3 * 86400
    for moment, shown in (
        (soon, time.strftime("at %H:%M", time.localtime(soon))),
        (later, time.strftime("on %b %d at %H:%M", time.localtime(later))),
    ):
        queue.sights = {"71_0": Sight(State.WAITING, "PENDING (Resources)", queued=1.0, starts_at=moment)}
        assert f"expected to start {shown}: nothing that fits" in told(status(), "e0000-demonstrate-s0000")
    queue.sights = {"71_0": Sight(State.WAITING, "PENDING (Resources)", queued=1.0, starts_at=time.time() - 60)}
    assert "expected to start" not in status()


def test_a_failed_unit_and_those_that_need_it(run, put, evaluate, status, queue):
    warm(run, put, evaluate)
    jobs.append(run, "session")
    for attempt in (1, 2, 3):
        submit(run, ROLLOUTS[1], f"7{attempt}", attempt)
        end(
            run, ROLLOUTS[1], f"7{attempt}", "failed", attempt, error="no [memory]", seconds=100, queued=40, node="sim1"
        )
    text = status(width=130)
    assert line(text, "1", "rollout")[2:] == ["failed", "0/2", "3", "0:40", "1:00", "73", "sim1"]
    assert told(text, "e0001-update").endswith("waiting for e0001-rollout-s0001, which failed")
    assert "e0001-rollout-s0001 failed after 3 attempts: no [memory]" in text
    assert f"  log: runs/made/attempts/{ROLLOUTS[1]}/3/log.txt" in text
    assert text.startswith("runs/made: nobody drives it\n")
    assert line(text, "to", "continue:") == ["to", "continue:", "baton", "run", "runs/made/config.yaml"]
    assert "\nto see why:   baton logs runs/made rollout --epoch 1 --shard 1\n" in text


def test_a_unit_between_two_attempts_says_why(run, status, queue):
    submit(run, "e0000-demonstrate-s0000", "71")
    end(run, "e0000-demonstrate-s0000", "71", "failed", error="the simulator died")
    assert told(status(), "e0000-demonstrate-s0000").endswith("for another try, after: the simulator died")


def test_a_job_that_ended_unseen_is_not_called_running(run, status, queue):
    submit(run, "e0000-demonstrate-s0000", "71")
    queue.sights = {"71": Sight(State.ENDED, "TIMEOUT")}
    text = status()
    assert told(text, "e0000-demonstrate-s0000").endswith("waiting job 71 has ended (TIMEOUT) and published nothing")
    assert "running" not in text


def test_a_submission_that_is_not_through_yet(run, status, queue):
    submit(run, "e0000-demonstrate-s0000")
    assert told(status(), "e0000-demonstrate-s0000").endswith("queued it is being submitted")


@pytest.mark.parametrize("how", ["says", "raises"])
def test_what_is_known_is_shown_where_slurm_is_silent(run, put, evaluate, status, queue, how):
    warm(run, put, evaluate)
    submit(run, ROLLOUTS[0], "71_0")
    if how == "says":
        queue.complaint = "squeue: Unable to contact slurm controller; going on with what was known"
    else:
        queue.poll = lambda wanted: (_ for _ in ()).throw(
            client.Unanswered("squeue: Unable to contact slurm controller")
        )
    text = status()
    assert "squeue: Unable to contact slurm controller; this is what the run directory shows" in text
    assert line(text, "0", "sft")[2] == "published"
    assert told(text, ROLLOUTS[0]).endswith("running job 71_0")
    assert "as far as can be seen" in text.splitlines()[0]


def test_a_login_node_without_slurm_shows_the_run_all_the_same(run, put, evaluate, status, monkeypatch):
    monkeypatch.setattr(client, "configured", lambda: False)
    config = rundir.load(run)
    (run / "config.yaml").write_text(
        dump(config.model_copy(update={"slurm": config.slurm.model_copy(update={"launcher": "slurm"})}))
    )
    warm(run, put, evaluate)
    text = status()
    assert "there is no sbatch that knows a cluster" in text
    assert line(text, "0", "sft")[2] == "published"


def held_by(run, host, job=""):
    holder = lease.Holder(host=host, pid=7, process="7.1.x", token="t", job=job)
    (run / lease.FILE).write_text(holder.model_dump_json())


@pytest.mark.parametrize(
    ("sight", "said"),
    [
        (Sight(State.RUNNING, "RUNNING", "node7", 1.0, 60.0), "driven by job 99 on node7 for 1:00 min"),
        (
            Sight(State.WAITING, "PENDING (BeginTime)"),
            "job 99, which drives it, is back in the queue: its begin time has not come",
        ),
        (Sight(State.ENDED, "TIMEOUT"), "nobody drives it\n"),
        (Sight(State.LOST), "driven by process 7 on node7 (job 99)"),
    ],
)
def test_the_job_that_holds_the_lease(run, status, queue, sight, said):
    held_by(run, "node7", "99")
    queue.sights = {"99": sight}
    assert " ".join(status(width=130).split("\n", 1)).startswith(f"runs/made: {said}".replace("\n", " "))


@pytest.mark.parametrize(
    ("kind", "sight", "said"),
    [
        ("orchestrator", Sight(State.RUNNING, node="sim0"), "driven by job 99 (orchestrator) on sim0"),
        ("pilot", PENDING, "job 99 (pilot), which is to drive it, is in the queue: jobs of higher priority come first"),
        ("chain:1", PENDING, "a chain of jobs carries it on; the last is job 99"),
    ],
)
def test_jobs_that_look_after_the_run(run, status, queue, kind, sight, said):
    id_ = rundir.identity(run)["id"]
    key = f"{id_}:{kind}"
    queue.live = {key: Job(key, "99", "slurm"), f"{id_}:e0001-update:1": Job("", "98", "slurm")}
    queue.sights = {"99": sight}
    assert " ".join(status(width=130).split("\n", 1)).startswith(f"runs/made: {said}".replace("\n", " "))


def test_the_command_that_continues_a_run_continues_it(run, status, queue, tmp_path):
    def command(directory):
        return line(status(directory=directory), "to", "continue:")[4:]

    config, *overrides = command(run)
    rundir.create_or_resume(compose(Path(config), overrides))
    assert os.listdir(tmp_path / "runs") == ["made"]
    moved = tmp_path / "elsewhere" / "made"
    moved.parent.mkdir()
    run.rename(moved)
    config, *overrides = command(moved)
    rundir.create_or_resume(compose(Path(config), overrides))
    assert os.listdir(tmp_path / "runs") == []


def test_steps_of_an_allocation_run_where_it_does(run, status, queue):
    submit(run, "e0000-demonstrate-s0000", "4711.12.ab", host="node7")
    queue.sights = {"4711.12.ab": Sight(State.LOST)}
    assert "cannot be seen from here" in status()
    held_by(run, "node7", "99")
    queue.sights["99"] = Sight(State.RUNNING, node="node7")
    assert told(status(), "e0000-demonstrate-s0000").startswith(
        "e0000-demonstrate-s0000 running process 4711 on node7 for"
    )


def test_facts_of_ended_jobs_outlive_the_session(run, put, evaluate, status, queue):
    warm(run, put, evaluate)
    submit(run, "e0000-sft", "70")
    end(run, "e0000-sft", "70", "published", seconds=62.0, queued=42.0, node="train0")
    jobs.append(run, "session")
    assert line(status(width=130), "0", "sft")[2:6] == ["published", "1/1", "1", "0:42"]
    assert line(status(width=130), "0", "sft")[-3:] == ["0.25", "70", "train0"]
    record = next(unit for unit in json.loads(status("--json"))["units"] if unit["unit"] == "e0000-sft")
    assert (record["job"], record["node"], record["queued"], record["status"]) == ("70", "train0", 42.0, "published")


def test_for_programs_there_is_a_record_for_every_unit(run, put, evaluate, status, queue):
    warm(run, put, evaluate)
    submit(run, ROLLOUTS[1], "71_1")
    queue.sights = {"71_1": PENDING}
    told = json.loads(status("--json"))
    assert told["driver"] is None
    assert told["summary"] == "nobody drives it"
    assert told["again"] == "baton run runs/made/config.yaml"
    assert [unit["unit"] for unit in told["units"]][:4] == [
        "e0000-demonstrate-s0000",
        "e0000-sft",
        "e0000-evaluate",
        "e0001-rollout-s0000",
    ]
    record = next(unit for unit in told["units"] if unit["unit"] == ROLLOUTS[1])
    assert (record["epoch"], record["stage"], record["shard"], record["status"]) == (1, "rollout", 1, "queued")
    assert (record["job"], record["queued"], record["why"]) == (
        "71_1",
        65.0,
        "jobs of higher priority come first (Priority)",
    )


def test_what_is_wrong_with_the_trackers(run, put, evaluate, status):
    warm(run, put, evaluate)
    assert "tracking:" not in status()
    line = f"MLflow: another program holds {run.parent}/mlflow.db; it is written once that lets go of it"
    standing.write(run, {"mlflow": [line], "tensorboard": []})
    assert f"tracking: {line}" in " ".join(status(width=400).split())
    assert json.loads(status("--json"))["tracking_troubles"] == [line]


@pytest.mark.slow
def test_on_a_real_cluster(tmp_path, idle_cluster, status, monkeypatch):
    from pipeline.config import Config

    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'faults'}")
    values = {
        "name": "held",
        "runs_dir": str(tmp_path),
        "epochs": 1,
        "rollout": {"shards": 2},
        "sft": {"threads": 1},
        "update": {"threads": 1, "processes": 1},
        "slurm": {"launcher": "slurm", "schedule": "chain", "rollout": {"extra": {"hold": True}}},
        "trainer": {"logger": {"mlflow": {"enable": False}}},
    }
    run = rundir.create_or_resume(Config.model_validate(values))
    chain.extend(run, stages_package="fake_stages")
    deadline = time.monotonic() + 60
    while line(text := status(directory=run), "0", "evaluate")[2] != "published":
        assert time.monotonic() < deadline, text
        time.sleep(0.5)
    assert "a chain of jobs carries it on; the last is job" in text
    assert "to let it go: scontrol release" in told(text, ROLLOUTS[0])
    assert told(text, "e0001-update").endswith("for e0001-rollout (2 of 2 shards) (Dependency)")
    assert {line(text, "1", stage)[2] for stage in ("rollout", "update", "evaluate")} == {"queued"}
    records = {unit["unit"]: unit for unit in json.loads(status("--json", directory=run))["units"]}
    assert records["e0000-sft"]["node"] == ""  # nobody has written down its end yet
    assert records[ROLLOUTS[0]]["job"].endswith("_0")
