"""How the loop settles a job whose end, exit code and artifact are not seen together; jobs here are no processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import jobs, orchestrator
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from pipeline.orchestrator import drive
from pipeline.rundir import identity
from slurm.client import Unanswered
from slurm.launcher import EXIT, Job, LaunchError, Request, Sight
from slurm.states import Cause, State
from tests.pipeline.scripted_launcher_for_tests import Scripted, attempts, carry_out, new_run, prepare, records


@pytest.fixture(autouse=True)
def _fakes_and_an_sbatch_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch)


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
