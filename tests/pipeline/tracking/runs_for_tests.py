"""Runs as stages publish them, and what MLflow shows of one, as plain values."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

from mlflow import MlflowClient

from pipeline import jobs, rundir
from pipeline.artifacts import Unit, publish
from pipeline.config import Config

ROOT = Path(__file__).parents[3]
BEGAN = 1.7e9  # Unix seconds at which the first unit began


def make_run(runs: Path, uri: str | None = None, logger=None, **values) -> Path:
    config = {
        "name": "pick",
        "runs_dir": str(runs),
        "epochs": 2,
        "rollout": {"shards": 2, "episodes": 64},
        "trainer": {"logger": {"mlflow": {"uri": uri}} | (logger or {})},
    }
    return rundir.create_or_resume(Config.model_validate(config | values))


def write_log(path: Path, lines: int, at: int, **metrics) -> None:
    """A log as stages keep them; a callable makes a number of the step."""
    with path.open("a") as file:
        for step in range(lines):
            numbers = {name.replace("__", "/"): m(step) if callable(m) else m for name, m in metrics.items()}
            file.write(json.dumps({"time": BEGAN + at + step / 8, "step": step, "metrics": numbers}) + "\n")


def write_logs(directory: Path, lines: int, at: int) -> None:
    """What a stage has logged after so many steps; `at` makes numbers differ between units."""
    directory.mkdir(parents=True, exist_ok=True)
    write_log(directory / "metrics.jsonl", lines, at, actor__loss=lambda step: step + at, actor__grad_norm=None)
    write_log(directory / "usage.jsonl", 3, at, system__memory_gb=lambda step: 4.0 - step, system__cpu_cores=1.5)


def submit(run: Path, name: str, attempt=1) -> None:
    """As the orchestrator notes it."""
    jobs.append(run, "submit", unit=name, attempt=attempt, key=f"k:{name}:{attempt}", host="login")


def publish_unit(
    run: Path, name: str, metrics: dict, lines=3, attempt=1, videos=(), at=0, logs=None, films=None
) -> Path:
    """Publish a unit with `lines` lines of metrics, as a stage would."""
    unit = Unit.parse(name)
    described = {
        "unit": name, "attempt": attempt, "inputs": {}, "config_digest": "c", "code_revision": "r1",
        "seed": 0, "metrics": metrics, "seconds": {"simulate": 2.0, "total": 3.0}, "host": "node1", "job_id": "77",
        "started": f"2026-01-01T00:{at:02d}:00+00:00", "versions": {},
    }  # fmt: skip
    if unit.stage == "update":
        described["inputs"] = {f"epochs/{unit.epoch:04d}/rollout/shard-{shard:04d}": f"d{shard}" for shard in (0, 1)}
    for part, relative in unit.outputs.items():
        scratch = run / "attempts" / name / str(attempt) / "scratch" / part
        scratch.mkdir(parents=True)
        if relative != unit.marker:
            (scratch / "weights").write_bytes(f"{part} of {name}".encode() * 10)
        else:
            write_logs(scratch, lines, at)
            for log in logs or ():
                (scratch / log).write_bytes((run / "attempts" / name / str(attempt) / log).read_bytes())
            if unit.stage == "evaluate":
                rows = [{"task": "pick", "seed": seed, "success": seed > 1, "steps": 9} for seed in range(3)]
                (scratch / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            for video, content in ({name: name.encode() * 100 for name in videos} | (films or {})).items():
                (scratch / "videos").mkdir(exist_ok=True)
                (scratch / "videos" / video).write_bytes(content)
        publish(scratch, run / relative, described | {"part": part})
    return run / unit.marker


def publish_all(run: Path, lines=3, epochs=2) -> None:
    """The units of two epochs with two rollout shards each."""
    publish_unit(run, "e0000-demonstrate-s0000", {"rollout/success_rate": 0.9, "rollout/episodes": 10}, lines, at=1)
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, lines, at=2)
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 0.25}, lines, videos=["a.mp4", "b.mp4"], at=3)
    for epoch in range(1, epochs + 1):
        for shard, (success, episodes) in enumerate([(0.5, 48), (0.1, 16)]):
            summary = {
                "rollout/success_rate": success, "rollout/episodes": episodes, "rollout/reward_mean": success * epoch,
                "env/step_reward": 0.1, "env/success_rate": 9.0,
            }  # fmt: skip
            publish_unit(run, f"e{epoch:04d}-rollout-s{shard:04d}", summary, lines, at=10 * epoch + shard)
        publish_unit(run, f"e{epoch:04d}-update", {"actor/loss": 1 / epoch, "actor/lr": 1e-4}, lines, at=10 * epoch + 5)
    summary = {"env/success_rate": 0.75, "env/success_rate/pick_onto_plate": 0.75, "env/step_reward": 5.0}
    publish_unit(run, f"e{epochs:04d}-evaluate", summary, lines, videos=["a.mp4"], at=30)


def store(runs: Path, uri: str | None = None) -> SimpleNamespace:
    """Everything MLflow shows of the experiment: parent, nested runs by name, client."""
    client = MlflowClient(uri or f"sqlite:///{runs / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("baton").experiment_id], max_results=1000)
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    nested = {run.info.run_name: run for run in found if "mlflow.parentRunId" in run.data.tags}
    assert len(nested) == len(found) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in nested.values()} <= {parents[0].info.run_id}
    return SimpleNamespace(client=client, parent=parents[0], nested=nested)


def history(shown: SimpleNamespace, run, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in shown.client.get_metric_history(run.info.run_id, name)]


def files(shown: SimpleNamespace, run=None, folder: str | None = None) -> dict[str, int]:
    found = {}
    for file in shown.client.list_artifacts((run or shown.parent).info.run_id, folder):
        found |= files(shown, run, file.path) if file.is_dir else {file.path: file.file_size}
    return found


def models(shown: SimpleNamespace) -> dict:
    """Policy version -> what the model registry says of it, its run by name."""
    named = {run.info.run_id: name for name, run in shown.nested.items()}
    found = {}
    for version in shown.client.search_model_versions():
        assert version.source == f"runs:/{version.run_id}/policy"
        aliases = shown.client.get_model_version(version.name, version.version).aliases
        found[int(version.tags["baton.policy_version"])] = {
            "name": version.name, "tags": version.tags, "run": named[version.run_id], "aliases": sorted(aliases),
            "description": version.description,
        }  # fmt: skip
    return found


def picture(runs: Path, uri: str | None = None) -> dict:
    """All of it as plain values, but for the ids that MLflow invents."""
    shown = store(runs, uri)
    seen = {}
    for run in [shown.parent, *shown.nested.values()]:
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"}
        series = {
            name: sorted(
                (m.step, m.timestamp, repr(m.value)) for m in shown.client.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
        }
        times = (run.info.status, run.info.start_time, run.info.end_time)
        seen[run.info.run_name] = (tags, run.data.params, series, times, files(shown, run))
    return {"runs": seen, "models": models(shown)}


def command(run: Path, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("WANDB_SERVICE", None)  # of this process, where it has used W&B itself
    line = [*prefix, sys.executable, "-m", "pipeline.tracking", str(run), *arguments]
    return subprocess.Popen(line, cwd=run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition, seconds=120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def units_written(runs: Path) -> int:
    """How many nested runs are finished; asks the database itself, which is cheap while a writer is at work."""
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as database:
        return database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0]


def free_port() -> int:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def serving(line: Sequence[str], port: int, log: Path, health: str = "health") -> Iterator[None]:
    """A process that serves a tracker's pages at a port, once it answers at the path `health`."""
    # MLflow's jobs, which nothing here asks for, are ten processes.
    without = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **without}
    with log.open("a") as out:
        process = subprocess.Popen(line, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until(lambda: _answers(port, health))
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=1):
            return True
    except OSError:
        return False
