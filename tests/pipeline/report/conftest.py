"""A run directory filled by hand, units published through the real door without any stage, and its `baton status`."""

import datetime
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli, launchers
from pipeline.artifacts import Artifact, Unit, publish
from pipeline.config import Config
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume
from tests.pipeline.report.status_for_tests import Queue

BEGIN = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)

Publish = Callable[..., Artifact]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An empty run of two epochs with two shards each and two tasks."""
    config = Config.model_validate(
        {
            "name": "made",
            "epochs": 2,
            "simulator": {"name": "lab.worlds", "tasks": ["open", "close"]},
            "rollout": {"shards": 2, "episodes": 8, "num_envs": 2},
            "evaluate": {"episodes": 4},
            "runs_dir": str(tmp_path / "runs"),
        }
    )
    return create_or_resume(resolve(config))


@pytest.fixture
def put(run: Path) -> Publish:
    """Publishes a unit: `put("rollout", 1, 0, start=60, seconds=10, metrics={...}, files={name: text})`."""
    return into(run)


def into(run: Path) -> Publish:
    """What publishes a unit of a run, as `put` does."""

    def put(
        stage: str,
        epoch: int,
        shard: int | None = None,
        *,
        start: float = 0.0,
        seconds: float = 10.0,
        metrics: dict[str, float] | None = None,
        files: dict[str, str | bytes] | None = None,
    ) -> Artifact:
        unit = Unit(epoch, stage, shard)
        scratch = run / "attempts" / str(unit) / "1" / "scratch"
        for name, text in (files or {"metrics.jsonl": ""}).items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        describe = {
            "unit": str(unit),
            "part": stage,
            "attempt": 1,
            "inputs": {},
            "config_digest": "0",
            "code_revision": "0",
            "seed": 0,
            "metrics": metrics or {},
            "seconds": {"total": seconds},
            "started": (BEGIN + datetime.timedelta(seconds=start)).isoformat(),
            "host": "here",
            "job_id": "1",
            "versions": {},
        }
        return publish(scratch, run / unit.marker, describe)

    return put


@pytest.fixture
def evaluate(put: Publish) -> Publish:
    """Publishes an evaluation: `evaluate(0, {"open": "++-"}, start=60)`, a letter an episode, `+` for success."""

    def evaluate(epoch: int, outcomes: dict[str, str], *, first_seed: int = 0, **described: float) -> Artifact:
        lines = [
            json.dumps({"task": task, "seed": first_seed + seed, "success": letter == "+", "steps": 9, "return": 1.0})
            for task, letters in outcomes.items()
            for seed, letter in enumerate(letters)
        ]
        letters = "".join(outcomes.values())
        return put(
            "evaluate",
            epoch,
            metrics={"env/success_rate": letters.count("+") / len(letters)},
            files={"episodes.jsonl": "\n".join(lines) + "\n", "videos/open-0000.mp4": "film"},
            **described,
        )

    return evaluate


@pytest.fixture
def queue(monkeypatch):
    queue = Queue()

    def launcher_for(run, config, say=print):
        queue.say = say
        return queue

    monkeypatch.setattr(launchers, "launcher_for", launcher_for)
    return queue


@pytest.fixture
def status(run, tmp_path, monkeypatch, capsys):
    """What `baton status` prints where `runs` lies, at a width: `status("--all", width=130)`."""
    monkeypatch.chdir(tmp_path)

    def status(*options, width=80, directory=run):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["baton", "status", os.path.relpath(directory), *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    return status
