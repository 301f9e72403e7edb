"""Runs of fake stages on a real cluster, and what became of their units."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.artifacts import Unit, open_artifact
from pipeline.config import Config
from pipeline.ledger import read, run_plan
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume
from slurm import client
from slurm.states import State, state_of

FIRST, SECOND = Unit(0, "demonstrate", 0), Unit(0, "demonstrate", 1)


def new_run(folder: Path, epochs: int = 0, knobs: dict[str, object] | None = None, **slurm: Any) -> Path:
    config = Config.model_validate(
        {
            "name": "run",
            "runs_dir": str(folder),
            "epochs": epochs,
            "demonstrate": {"shards": 2},
            "sft": {"threads": 1},
            "rollout": {"shards": 2},
            "update": {"threads": 1},
            "slurm": {
                "launcher": "slurm",
                "poll_seconds": 0.05,
                "query_seconds": 1,
                "update": {"partition": "train"},
                **slurm,
            },
            "trainer": {"logger": {"mlflow": {"enable": False}}},
        }
    )
    run = create_or_resume(resolve(config))
    (run / "fake.json").write_text(json.dumps(knobs or {}))
    return run


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


def executions(run: Path, unit: Unit) -> list[str]:
    """`start` and `end` of each process that worked on a unit, in order."""
    log = run / "fake.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [what for _, what, name, _ in lines if name == str(unit)]


def complete(run: Path) -> bool:
    plans = run_plan(run, read(run).config)
    for plan in plans:
        for part, relative in plan.unit.outputs.items():
            if part != "engine":
                artifact = open_artifact(run / relative)
                assert artifact is not None, f"{relative} is missing"
                artifact.verify()
    return True


def in_queue() -> list[client.Entry]:
    return [entry for entry in client.queue() if state_of(entry.state) is not State.ENDED]
