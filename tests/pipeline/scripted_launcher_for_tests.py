"""A launcher whose jobs are no processes and end as the test says, and the runs that it carries out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import jobs
from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.ledger import Snapshot, read
from pipeline.orchestrator import drive
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume
from slurm.batch import HOST
from slurm.launcher import LOG, Job, Request, Sight
from slurm.states import Cause, State

FAKES = Path(__file__).parents[1] / "faults"
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


def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake stages can be imported, and there is an sbatch that answers."""
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
