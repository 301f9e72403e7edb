"""Stages without work: artifacts of a few bytes that depend on the inputs' content, and faults on request.

`RUN/fake.json` says what happens: {"seconds": 0.1, "crash": {unit: times}, "refuse": {unit: line}, "hang": [units],
"linger": [units], "child": [units]}. Every process appends its start and its end to `RUN/fake.log`, and where it is to
`RUN/places.log`. As the real ones these stages take `--follow DIRECTORY`, are one of several ranks, and end with 75
when they are told to stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import yaml

from pipeline.artifacts import (
    SCRATCH,
    Unit,
    attempt_directory,
    claim,
    incarnation_directory,
    new_attempt,
    now,
    open_artifact,
    publish,
    supersede,
)
from pipeline.config import Config
from pipeline.plan import make_plan

STOPPED = 75


@dataclasses.dataclass(frozen=True)
class Order:
    """A unit to be done; `done` is written when it is published."""

    epoch: int
    shard: int | None
    attempt: int | None
    done: Path | None = None


def main(module: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--shard", type=int)
    parser.add_argument("--attempt", type=int)
    parser.add_argument("--follow", type=Path)
    asked = parser.parse_args()
    with (asked.run / "places.log").open("a") as file:
        seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "BATON_CELL", "SLURMD_NODENAME")}
        file.write(json.dumps({"module": module, "epoch": asked.epoch, "shard": asked.shard, **seen}) + "\n")
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) > 0:
        return  # rank 0 does it all
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: os._exit(STOPPED))  # as the real stages do
    single = Order(asked.epoch, asked.shard, asked.attempt)
    for order in [single] if asked.follow is None else follow(asked.follow / "orders"):
        if code := carry_out(asked.run, module, order):
            sys.exit(code)


def follow(folder: Path) -> Iterator[Order]:
    """Orders from 0001 on as they appear, without those that are done, until there is a file `stop`."""
    for number in itertools.count(1):
        given, done = folder / f"{number:04d}.json", folder / f"{number:04d}.done"
        while not given.exists():
            if (folder / "stop").exists():
                return
            time.sleep(0.02)
        if not done.exists():
            content = json.loads(given.read_text())
            yield Order(content["epoch"], content.get("shard"), content.get("attempt"), done)


def carry_out(run: Path, module: str, order: Order) -> int:
    """One unit from start to end; returns the exit code."""
    stage = "demonstrate" if (module, order.epoch) == ("rollout", 0) else module
    unit = Unit(order.epoch, stage, order.shard)
    if open_artifact(run / unit.marker) is None:
        number = order.attempt or new_attempt(run, unit)
        attempt = attempt_directory(run, unit, number)
        if (job := os.environ.get("SLURM_JOB_ID")) and (owner := claim(attempt, job)) != job:
            print(f"attempt {number} at {unit} belongs to job {owner}")
            return 0
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        incarnation = incarnation_directory(attempt, restarts)
        incarnation.mkdir(parents=True, exist_ok=True)
        if order.done is not None:
            redirect(incarnation / "log.txt")
        try:
            if code := work(run, unit, number, incarnation):
                return code
        except Exception:
            traceback.print_exc()
            return 1
    if order.done is not None:
        order.done.write_text("0\n")
    if str(unit) in knobs(run).get("linger", []):
        time.sleep(300)
    return 0


def work(run: Path, unit: Unit, attempt: int, folder: Path) -> int:
    wanted = knobs(run)
    note(run, "start", unit)
    if line := wanted.get("refuse", {}).get(str(unit)):
        (folder / "error.txt").write_text(line + "\n")
        return 2
    if attempt <= wanted.get("crash", {}).get(str(unit), 0):
        raise RuntimeError(f"{unit} was asked to crash")
    if str(unit) in wanted.get("child", []):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    time.sleep(300 if str(unit) in wanted.get("hang", []) else wanted.get("seconds", 0.0))
    deliver(run, unit, attempt, folder / SCRATCH)
    note(run, "end", unit)
    return 0


def deliver(run: Path, unit: Unit, attempt: int, scratch: Path) -> None:
    inputs = {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    config = Config.model_validate(yaml.load((run / "config.yaml").read_text(), loader))
    for need in next(plan for plan in make_plan(config) if plan.unit == unit).needs:
        for part, relative in need.outputs.items():
            if part == "engine" and unit.stage != "update":
                continue
            artifact = open_artifact(run / relative)
            assert artifact is not None, f"{unit} was started before {need} was published"
            inputs[relative] = artifact.verify().digest
    for part, relative in unit.outputs.items():
        if relative != unit.marker:
            supersede(run, relative, "left by an attempt that died while publishing")
        scratch.mkdir(exist_ok=True)
        (scratch / "content.json").write_text(json.dumps([str(unit), part, inputs]))
        (scratch / "metrics.jsonl").write_text('{"time": 1.0, "step": 0, "metrics": {}}\n')
        describe = {
            "unit": str(unit),
            "part": part,
            "attempt": attempt,
            "inputs": inputs,
            "config_digest": "",
            "code_revision": "",
            "seed": 0,
            "metrics": {"fake/epoch": float(unit.epoch)},
            "seconds": {},
            "started": now(),
            "host": "here",
            "job_id": "",
            "versions": {},
        }
        publish(scratch, run / relative, describe)


def redirect(log: Path) -> None:
    """Print to the end of a file from now on."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def knobs(run: Path) -> dict:
    return json.loads((run / "fake.json").read_text()) if (run / "fake.json").exists() else {}


def note(run: Path, what: str, unit: Unit) -> None:
    with (run / "fake.log").open("a") as file:
        file.write(json.dumps([time.time(), what, str(unit), os.getpid()]) + "\n")
