"""What the loop makes of what a launcher tells it; jobs here are no processes, they end as the test says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import jobs, orchestrator, resources
from pipeline.artifacts import Unit, attempt_directory
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ledger import Snapshot, read
from pipeline.orchestrator import drive
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume, identity
from slurm.batch import HOST
from slurm.client import Unanswered
from slurm.launcher import EXIT, LOG, Job, LaunchError, Request, Sight, TryLater
from slurm.states import Cause, State

FAKES = Path(__file__).parents[1] / "faults"
SFT = Unit(0, "sft")
WORDS: dict[Cause, str] = {
    "crash": "FAILED",
    "memory": "OUT_OF_MEMORY",
    "timeout": "TIMEOUT",
    "preempted": "PREEMPTED",
    "node": "NODE_FAIL",
    "cancelled": "CANCELLED",
}


class Scripted:
    """A launcher whose jobs publish at once, but for the ends it is given by unit, one for each try.

    Attributes:
        ends: causes of the failures still to come.
        troubles: what the next submissions raise; with True they are accepted all the same.
        requests: all that were accepted.
        asked: how often `hurry` was called, and `find`.
    """

    def __init__(self, run: Path, ends: Mapping[str, Sequence[Cause]] | None = None) -> None:
        self.run, self.ends = run, {unit: list(causes) for unit, causes in (ends or {}).items()}
        self.troubles: list[tuple[Exception, bool]] = []
        self.find_troubles: list[Exception] = []
        self.requests: list[Request] = []
        self.asked = {"hurry": 0, "find": 0, "cancel": 0}
        self.sights: dict[str, Sight] = {}

    def submit(self, request: Request) -> dict[str, Job]:
        trouble, accepted = self.troubles.pop(0) if self.troubles else (None, True)
        if accepted:
            self.requests.append(request)
            for key, single in request.members().items():
                self.sights[key] = self.carry_out(Unit.parse(key.split(":")[1]), single)
        if trouble:
            raise trouble
        return {key: Job(key, f"job-{key}", HOST) for key in request.members()}

    def carry_out(self, unit: Unit, request: Request) -> Sight:
        causes = self.ends.get(str(unit))
        if causes:
            cause = causes.pop(0)
            (request.folder / LOG).write_text(f"last words of a {cause}\n")
            return Sight(State.ENDED, WORDS[cause], node="sim0", cause=cause, seconds=1.0)
        self.publish(unit, request)
        return Sight(State.ENDED, "COMPLETED", node="sim0")

    def publish(self, unit: Unit, request: Request) -> None:
        from fake_stages.work import deliver

        deliver(self.run, unit, int(request.arguments[-1]), request.folder / "scratch")

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        return {job.key: self.sights[job.key] for job in jobs}

    def hurry(self) -> None:
        self.asked["hurry"] += 1

    def find(self, prefix: str) -> dict[str, Job]:
        self.asked["find"] += 1
        if self.find_troubles:
            raise self.find_troubles.pop(0)
        return {key: Job(key, f"job-{key}", HOST) for key in self.sights if key.startswith(prefix)}

    def cancel(self, jobs: Sequence[Job]) -> None:
        self.asked["cancel"] += 1

    def tidy(self, jobs: Sequence[Job]) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _fakes_and_an_sbatch_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKES))
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "sbatch").write_text("#!/bin/sh\n")
    (commands / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")


def new_run(folder: Path, epochs: int = 0, **values: Any) -> Path:
    slurm = {"launcher": "slurm", "poll_seconds": 0.005, **values.pop("slurm", {})}
    given = {
        "name": "run",
        "runs_dir": str(folder),
        "epochs": epochs,
        "rollout": {"shards": 2},
        "slurm": slurm,
        "trainer": {"logger": {"mlflow": {"enable": False}}},
        **values,
    }
    return create_or_resume(resolve(Config.model_validate(given)))


def carry_out(run: Path, launcher: Scripted, said: list[str] | None = None) -> Snapshot:
    say = (lambda line: None) if said is None else said.append
    return drive(run, lambda snapshot: None, launcher=launcher, cores=8, say=say)


def records(run: Path, event: str = "ended", unit: Unit | None = None) -> list[dict[str, Any]]:
    found = map(json.loads, (run / jobs.FILE).read_text().splitlines())
    return [each for each in found if each["event"] == event and unit in (None, Unit.parse(each.get("unit", "e0-x")))]


def attempts(run: Path) -> dict[str, int]:
    return {str(state.unit): state.attempts for state in read(run).units}


def test_without_trouble_every_unit_is_submitted_once_and_shards_together(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=2)
    launcher = Scripted(run)
    last = carry_out(run, launcher)
    assert {state.status for state in last.units} == {"published"}
    assert set(attempts(run).values()) == {1}
    names = [request.name for request in launcher.requests]
    assert len(names) == len(set(names)) == 8, "the shards of an epoch are one request"
    ended = records(run)
    assert {each["outcome"] for each in ended} == {"published"}
    assert {each["node"] for each in ended} == {"sim0"}
    assert launcher.asked == {"hurry": 0, "find": 0, "cancel": 0}


def test_one_stage_alone_is_carried_out_and_the_whole_run_goes_on_from_it(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, demonstrate={"shards": 3})
    launcher = Scripted(run, {"e0000-demonstrate-s0001": ["crash"]})
    ended: list[Path] = []
    last = drive(
        run,
        lambda snapshot: None,
        conclude=ended.append,
        launcher=launcher,
        cores=8,
        say=lambda line: None,
        stages=("demonstrate",),
    )
    assert [(state.unit.stage, state.status) for state in last.units] == [("demonstrate", "published")] * 3
    assert ended == [run]
    assert {state.unit.stage for state in read(run).units if state.status == "published"} == {"demonstrate"}
    assert attempts(run)["e0000-demonstrate-s0001"] == 2
    carry_out(run, launcher)
    assert {state.status for state in read(run).units} == {"published"}
    assert [request.name for request in launcher.requests].count("run-e0000-demonstrate") == 2


def test_preemptions_and_lost_nodes_do_not_use_up_the_tries_at_a_crash(tmp_path: Path) -> None:
    run = new_run(tmp_path, max_attempts=3, slurm={"max_requeues": 3})
    ends: list[Cause] = ["preempted", "crash", "node", "preempted", "node", "crash"]
    carry_out(run, Scripted(run, {"e0000-sft": ends}))
    assert attempts(run)["e0000-sft"] == 7
    assert [each["cause"] for each in records(run, unit=SFT)[:-1]] == ends


@pytest.mark.parametrize(
    ("cause", "limit", "told", "remedy"),
    [
        ("crash", 2, "2 x crashed", "the same command tries again"),
        ("memory", 2, "2 x ran out of memory", "--mem 64G`, or slurm.sft.mem and slurm.mem_growth"),
        ("timeout", 2, "2 x reached its time limit", "--time 8:00:00`, or slurm.sft.time and slurm.time_growth"),
        ("cancelled", 2, "2 x was cancelled", "the same command tries again"),
        ("preempted", 4, "4 x was told to make room", "the same command tries again"),
        ("node", 4, "4 x lost its node", "the same command tries again"),
    ],
)
def test_each_cause_has_its_limit_its_words_and_its_remedy(
    tmp_path: Path, cause: Cause, limit: int, told: str, remedy: str
) -> None:
    run = new_run(tmp_path, max_attempts=2, slurm={"max_requeues": 4})
    launcher = Scripted(run, {"e0000-sft": [cause] * limit})
    with pytest.raises(UserError) as caught:
        carry_out(run, launcher)
    message = str(caught.value)
    assert message.startswith(f"e0000-sft failed {limit} times ({told}; ")
    assert f"attempt {limit}: {WORDS[cause]}: last words of a {cause}\n  last words of a {cause}\n" in message
    assert f"full log: {attempt_directory(run, SFT, limit) / LOG}; " in message
    assert message.endswith(remedy)
    carry_out(run, launcher)
    assert attempts(run)["e0000-sft"] == limit + 1, "the same command tries again"


def test_several_causes_are_told_apart(tmp_path: Path) -> None:
    run = new_run(tmp_path, max_attempts=2)
    with pytest.raises(UserError, match=r"failed 4 times \(2 x crashed, 1 x was told to make room, 1 x ran out of mem"):
        carry_out(run, Scripted(run, {"e0000-sft": ["crash", "preempted", "memory", "crash"]}))


def test_the_limit_that_was_reached_is_the_one_that_is_named(tmp_path: Path) -> None:
    run = new_run(tmp_path, slurm={"max_requeues": 4})
    with pytest.raises(UserError, match=r"\(4 x was told to make room; slurm\.max_requeues=4\)"):
        carry_out(run, Scripted(run, {"e0000-sft": ["preempted"] * 4}))


@pytest.mark.parametrize("placed", [False, True])
def test_on_slurm_shards_are_one_array_whatever_gpus_they_would_have_here(tmp_path: Path, placed: bool) -> None:
    cells = {"component_placement": {"env": "0-1", "rollout": "2-3", "actor": "0-3"}}
    run = new_run(tmp_path, epochs=1, **({"cluster": cells} if placed else {}))
    launcher = Scripted(run)
    carry_out(run, launcher)
    assert [r.indices for r in launcher.requests if r.name == "run-e0001-rollout"] == [(0, 1)]


def test_on_slurm_cells_of_different_node_groups_are_arrays_of_their_own(tmp_path: Path) -> None:
    groups = [
        {"label": name, "node_ranks": node, "gpus_per_node": 2, "gpu_type": kind, "partition": name}
        for node, (name, kind) in enumerate([("old", "rtx"), ("new", "ada")])
    ]
    cluster = {"num_nodes": 2, "node_groups": groups, "component_placement": {"env,rollout": "0-3", "actor": "0-1"}}
    run = new_run(tmp_path, epochs=1, cluster=cluster, rollout={"shards": 4})
    launcher = Scripted(run)
    carry_out(run, launcher)
    rollouts = [r for r in launcher.requests if r.name == "run-e0001-rollout"]
    assert [(r.indices, r.options.partition, r.gpu_type) for r in rollouts] == [
        ((0, 1), "old", "rtx"),
        ((2, 3), "new", "ada"),
    ]


def test_a_unit_that_ran_out_of_something_gets_more_and_its_sisters_do_not(tmp_path: Path) -> None:
    slurm = {"mem": "1G", "time": 60, "mem_growth": 2.0, "time_growth": 3.0}
    run = new_run(tmp_path, epochs=1, slurm=slurm)
    ends: dict[str, list[Cause]] = {"e0001-rollout-s0001": ["memory", "memory", "timeout"], "e0000-sft": ["timeout"]}
    launcher = Scripted(run, ends)
    carry_out(run, launcher)
    asked = [(r.indices, r.options.mem, r.options.time) for r in launcher.requests if r.name == "run-e0001-rollout"]
    assert asked == [((0, 1), "1G", 60), ((1,), "2048M", 60), ((1,), "4096M", 60), ((1,), "4096M", 180)]
    assert [r.options.time for r in launcher.requests if r.name == "run-e0000-sft"] == [60, 180]
    assert [r.options.mem for r in launcher.requests if r.name == "run-e0001-update"] == ["1G"]


def test_shards_with_different_needs_are_submitted_apart(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, slurm={"mem": "1G", "mem_growth": 2.0, "max_requeues": 9})
    ends: dict[str, list[Cause]] = {"e0001-rollout-s0000": ["memory"], "e0001-rollout-s0001": ["preempted"]}
    launcher = Scripted(run, ends)
    carry_out(run, launcher)
    again = [(r.indices, r.options.mem) for r in launcher.requests if r.name == "run-e0001-rollout"][1:]
    assert sorted(again) == [((0,), "2048M"), ((1,), "1G")]


def test_a_limit_on_jobs_is_waited_out_said_once_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator, "RETRY_SECONDS", 0.05)
    run = new_run(tmp_path, max_attempts=1)
    launcher, said = Scripted(run), list[str]()
    launcher.troubles = [(TryLater("sbatch: QOSMaxSubmitJobPerUserLimit"), False)] * 3
    begun = time.monotonic()
    carry_out(run, launcher, said)
    assert time.monotonic() - begun > 3 * 0.05
    assert said == ["sbatch: QOSMaxSubmitJobPerUserLimit"]
    assert [each["outcome"] for each in records(run)].count("unsubmitted") == 3
    assert not [each for each in records(run) if each["outcome"] == "failed"]
    assert len(launcher.requests) == 3


def test_what_runs_is_settled_while_a_limit_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator, "RETRY_SECONDS", 0.3)
    run = new_run(tmp_path, epochs=1)
    shown: list[dict[str, str]] = []

    class Limited(Scripted):
        def submit(self, request: Request) -> dict[str, Job]:
            if request.name == "run-e0001-rollout" and not self.asked["cancel"]:
                self.asked["cancel"] = 1
                raise TryLater("sbatch: QOSMaxSubmitJobPerUserLimit")
            return super().submit(request)

    drive(
        run,
        lambda snapshot: shown.append({str(state.unit): state.status for state in snapshot.units}),
        launcher=Limited(run),
        cores=8,
        say=lambda line: None,
    )
    meanwhile = [each for each in shown if each["e0001-rollout-s0000"] == "waiting"]
    assert meanwhile[-1]["e0000-sft"] == "published"
    assert attempts(run)["e0001-rollout-s0000"] == 2


def test_a_refusal_of_slurm_names_the_place_and_the_script_and_ends_the_submission(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    launcher = Scripted(run)
    launcher.troubles = [(LaunchError("sbatch: invalid partition specified: nowhere"), False)]
    with pytest.raises(UserError) as caught:
        carry_out(run, launcher)
    script = attempt_directory(run, Unit(0, "demonstrate", 0), 1) / "sbatch.sh"
    assert str(caught.value) == (
        "run-e0000-demonstrate: sbatch: invalid partition specified: nowhere; mend slurm.demonstrate or slurm, and "
        f"run the same command again (the script: {script})"
    )
    (end,) = records(run)
    assert (end["outcome"], end["error"]) == ("unsubmitted", "sbatch: invalid partition specified: nowhere")
    carry_out(run, launcher)
    assert set(attempts(run).values()) == {1, 2}


@pytest.mark.parametrize("accepted", [True, False])
def test_a_submission_without_an_answer_is_looked_for_before_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    monkeypatch.setattr(orchestrator, "RETRY_SECONDS", 0.05)
    run = new_run(tmp_path, max_attempts=1)
    launcher, said = Scripted(run), list[str]()
    launcher.troubles = [(Unanswered("sbatch: Socket timed out"), accepted)]
    launcher.find_troubles = [Unanswered("squeue: Socket timed out")]
    carry_out(run, launcher, said)
    assert said == [
        "sbatch: Socket timed out; whether e0000-demonstrate-s0000 was accepted will show",
        "squeue: Socket timed out; whether everything was submitted will show",
    ]
    assert launcher.asked["find"] == 2
    assert attempts(run)["e0000-demonstrate-s0000"] == (1 if accepted else 2)
    assert len(launcher.requests) == 3, "nothing was accepted twice"


def test_a_job_that_cannot_be_seen_from_here_stops_the_run_with_what_to_do(tmp_path: Path) -> None:
    run = new_run(tmp_path, slurm={"launcher": "local"})
    key = f"{identity(run)['id']}:e0000-demonstrate-s0000:1"
    place = {"unit": "e0000-demonstrate-s0000", "attempt": 1, "key": key}
    jobs.append(run, "submit", host="laptop", **place)
    jobs.append(run, "submitted", host="laptop", job="1.1.boot", **place)
    with pytest.raises(UserError) as caught:
        drive(run, lambda snapshot: None, cores=8, say=lambda line: None)
    assert str(caught.value) == (
        f"e0000-demonstrate-s0000 was submitted on laptop and cannot be seen from {os.uname().nodename} with this "
        f"slurm.launcher: continue the run as before, or, if it is gone for good, `baton cancel {run}` and then the "
        "same command again"
    )
    assert records(run) == [], "it may yet end"


class Late(Scripted):
    """Shows that a job has succeeded some looks before its artifact can be seen."""

    def __init__(self, run: Path, looks: int) -> None:
        super().__init__(run)
        self.looks, self.unseen = looks, list[list[Any]]()

    def carry_out(self, unit: Unit, request: Request) -> Sight:
        self.unseen.append([self.looks, unit, request])
        return Sight(State.ENDED, "COMPLETED")

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        for entry in self.unseen:
            entry[0] -= 1
            if entry[0] == 0:
                self.publish(*entry[1:])
        return super().poll(jobs)


def test_an_artifact_that_a_file_system_shows_late_is_waited_for(tmp_path: Path) -> None:
    run = new_run(tmp_path, max_attempts=1)
    carry_out(run, Late(run, 4))
    assert set(attempts(run).values()) == {1}


def test_an_artifact_that_never_shows_is_a_failure_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator, "VISIBLE_SECONDS", 0.05)
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))  # no sacct
    run = new_run(tmp_path, max_attempts=1)
    with pytest.raises(UserError, match=r"e0000-demonstrate-s0000 failed 1 times \(1 x crashed"):
        carry_out(run, Late(run, 10**6))


class Completing(Scripted):
    """Jobs that fail leave their exit code, and are seen to have ended once somebody looks again."""

    def __init__(self, run: Path, ends: Mapping[str, Sequence[Cause]]) -> None:
        super().__init__(run, ends)
        self.over: dict[str, Sight] = {}

    def carry_out(self, unit: Unit, request: Request) -> Sight:
        sight = super().carry_out(unit, request)
        (request.folder / EXIT).write_text("1\n" if sight.cause else "0\n")
        if sight.cause is None:
            return sight
        self.over[request.key] = sight
        return Sight(State.RUNNING, "COMPLETING")

    def hurry(self) -> None:
        super().hurry()
        self.sights |= self.over


def test_an_exit_code_without_an_artifact_hurries_the_next_look(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    launcher = Completing(run, {"e0000-sft": ["crash"], "e0000-evaluate": ["timeout"]})
    carry_out(run, launcher)
    assert launcher.asked["hurry"] == 2
    assert [each["cause"] for each in records(run) if each["outcome"] == "failed"] == ["crash", "timeout"]


class Lingering(Scripted):
    """Jobs that do not end after they have published, until they are cancelled."""

    trouble: Exception | None = None

    def carry_out(self, unit: Unit, request: Request) -> Sight:
        super().carry_out(unit, request)
        return Sight(State.RUNNING)

    def cancel(self, jobs: Sequence[Job]) -> None:
        super().cancel(jobs)
        if self.trouble:
            trouble, self.trouble = self.trouble, None
            raise trouble
        for job in jobs:
            self.sights[job.key] = Sight(State.ENDED, "CANCELLED", cause="cancelled")


def test_a_job_that_lingers_after_publishing_is_cancelled_and_counts_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator, "CLOSING_SECONDS", 0.05)
    run = new_run(tmp_path)
    launcher = Lingering(run)
    carry_out(run, launcher)
    assert launcher.asked["cancel"] == 3
    assert launcher.asked["hurry"] > 0, "in the end nothing but its end is waited for"
    assert {each["outcome"] for each in records(run)} == {"published"}


@pytest.mark.parametrize("trouble", [Unanswered("scancel: Socket timed out"), LaunchError("7 did not end")], ids=repr)
def test_a_job_that_cannot_be_cancelled_now_is_cancelled_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    monkeypatch.setattr(orchestrator, "CLOSING_SECONDS", 0.05)
    run = new_run(tmp_path)
    launcher = Lingering(run)
    launcher.trouble = trouble
    carry_out(run, launcher)
    assert {each["outcome"] for each in records(run)} == {"published"}


def test_a_crash_within_the_time_that_a_retry_gave_is_no_timeout(tmp_path: Path) -> None:
    run = new_run(tmp_path, max_attempts=1, slurm={"launcher": "local", "time": 1})
    place = {"unit": "e0000-demonstrate-s0000", "attempt": 1, "key": f"{identity(run)['id']}:e0000-demonstrate-s0000:1"}
    jobs.append(run, "reset", unit=place["unit"], minutes=600)
    with (run / jobs.FILE).open("a") as file:
        for event in ("submit", "submitted"):
            job = {"job": "1.1.boot", "host": os.uname().nodename} if event == "submitted" else {}
            file.write(json.dumps({"event": event, "time": time.time() - 3600, **place, **job}) + "\n")
    with pytest.raises(UserError):
        drive(run, lambda snapshot: None, cores=8, say=lambda line: None)
    assert [each["cause"] for each in records(run)] == ["crash"]


def test_every_shard_gets_the_gpus_of_its_own_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "machine_gpus", lambda: 4)
    cells = {"component_placement": {"env": "0-1", "rollout": "2-3", "actor": "0-3"}}
    run = new_run(tmp_path, epochs=1, cluster=cells, slurm={"launcher": "local"})
    launcher = Scripted(run)
    carry_out(run, launcher)
    members = [single for request in launcher.requests for single in request.members().values()]
    assert {single.key.split(":")[1]: single.seat.devices for single in members} == {
        "e0000-demonstrate-s0000": (0,),
        "e0000-sft": (0, 1, 2, 3),
        "e0000-evaluate": (0, 2),
        "e0001-rollout-s0000": (0, 2),
        "e0001-rollout-s0001": (1, 3),
        "e0001-update": (0, 1, 2, 3),
        "e0001-evaluate": (0, 2),
    }
