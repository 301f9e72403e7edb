"""Stages without work: artifacts of a few bytes that depend on the inputs' content, and faults on request.

`RUN/fake.json` says what happens: {"seconds": 0.1, "crash": {unit: times}, "refuse": {unit: line}, "hang": [units],
"linger": [units], "child": [units]}. Every process appends its start and its end to `RUN/fake.log`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from pipeline.artifacts import Unit, attempt_directory, now, open_artifact, publish
from pipeline.config import Config
from pipeline.plan import make_plan


def main(module: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--shard", type=int)
    parser.add_argument("--attempt", type=int, required=True)
    asked = parser.parse_args()
    run, stage = asked.run, "demonstrate" if (module, asked.epoch) == ("rollout", 0) else module
    unit = Unit(asked.epoch, stage, asked.shard)
    knobs = json.loads((run / "fake.json").read_text()) if (run / "fake.json").exists() else {}
    note(run, "start", unit)
    attempt = attempt_directory(run, unit, asked.attempt)
    if line := knobs.get("refuse", {}).get(str(unit)):
        (attempt / "error.txt").write_text(line + "\n")
        sys.exit(2)
    if asked.attempt <= knobs.get("crash", {}).get(str(unit), 0):
        raise RuntimeError(f"{unit} was asked to crash")
    if str(unit) in knobs.get("child", []):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    time.sleep(300 if str(unit) in knobs.get("hang", []) else knobs.get("seconds", 0.0))
    deliver(run, unit, asked.attempt, attempt / "scratch")
    note(run, "end", unit)
    if str(unit) in knobs.get("linger", []):
        time.sleep(300)


def deliver(run: Path, unit: Unit, attempt: int, scratch: Path) -> None:
    inputs = {}
    config = Config.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    for need in next(plan for plan in make_plan(config) if plan.unit == unit).needs:
        for part, relative in need.outputs.items():
            if part == "engine" and unit.stage != "update":
                continue
            artifact = open_artifact(run / relative)
            assert artifact is not None, f"{unit} was started before {need} was published"
            inputs[relative] = artifact.verify().digest
    for part, relative in unit.outputs.items():
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


def note(run: Path, what: str, unit: Unit) -> None:
    with (run / "fake.log").open("a") as file:
        file.write(json.dumps([time.time(), what, str(unit), os.getpid()]) + "\n")
