"""What commands print with `--json`: their facts for programs, one document each. `docs/json.md` has the schemas."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import attempt_directory
from pipeline.config import Config
from pipeline.dry_run import DryRun
from pipeline.failures import log_path
from pipeline.plan import UnitPlan
from pipeline.report.curves import curves
from pipeline.report.progress import current, groups, seconds_left
from pipeline.report.runs import Glance
from pipeline.report.standing import Overview, Standing


def write(record: Any) -> None:
    """Print a document, whole, to stdout; numbers that are not finite become null, because JSON has no word for them.

    Args:
        record: of dicts, lists, strings, numbers, booleans, None.
    """
    print(json.dumps(_finite(record), allow_nan=False))


def status_record(overview: Overview) -> dict[str, Any]:
    """`baton status RUN`: what it prints and more, with a record for every unit."""
    snapshot, rows = overview.snapshot, groups(overview)
    group = current(rows)
    return {
        "run": str(snapshot.run),
        "name": snapshot.config.name,
        "driver": snapshot.driver,
        "summary": overview.driver,
        "again": overview.again,
        "trouble": overview.trouble,
        "tracking_troubles": list(overview.tracking),
        "epoch": group.epoch if group else snapshot.config.epochs,
        "epochs": snapshot.config.epochs,
        "seconds_left": seconds_left(rows, time.time()),
        "curves": {curve.metric: list(curve.values) for curve in curves(rows, snapshot.config.epochs)},
        "units": [_unit(snapshot.run, unit) for unit in overview.units],
    }


def runs_record(folder: Path, glances: Sequence[Glance]) -> dict[str, Any]:
    """`baton status` without a run."""
    runs = [
        {
            "run": str(one.run),
            "name": one.run.name,
            "state": one.state,
            "epoch": one.epoch,
            "epochs": one.epochs,
            "success": one.success,
            "changed": one.changed,
            "trouble": one.trouble,
        }
        for one in glances
    ]
    return {"runs_dir": str(folder), "runs": runs}


def plan_record(config: Config, plans: Sequence[UnitPlan], memory: Sequence[str], dry: DryRun | None) -> dict[str, Any]:
    """`baton run --dry-run`.

    Args:
        config: of the run.
        plans: its units.
        memory: what each stage will need, a line each.
        dry: the scripts, where it goes to Slurm.
    """
    scripts = None
    if dry is not None:
        scripts = {
            "folder": str(dry.folder),
            "sbatch": list(dry.lines),
            "placement": list(dry.placement),
            "gpu_hours": dry.gpu_hours,
            "core_hours": dry.core_hours,
        }
    return {
        "run": str(Path(config.runs_dir) / config.name),
        "epochs": config.epochs,
        "units": [
            {
                "unit": str(plan.unit),
                "epoch": plan.unit.epoch,
                "stage": plan.unit.stage,
                "shard": plan.unit.shard,
                "needs": [str(need) for need in plan.needs],
                "share": dataclasses.asdict(plan.share),
            }
            for plan in plans
        ],
        "memory": list(memory),
        "slurm": scripts,
    }


def _unit(run: Path, standing: Standing) -> dict[str, Any]:
    state, unit = standing.state, standing.unit
    log = None if state.attempt is None else log_path(attempt_directory(run, unit, state.attempt))
    return {
        "unit": str(unit),
        "epoch": unit.epoch,
        "stage": unit.stage,
        "shard": unit.shard,
        "status": standing.status,
        "attempt": state.attempt,
        "attempts": state.attempts,
        "job": standing.job,
        "node": standing.node,
        "started": state.started,
        "queued": standing.queued,
        "seconds": standing.seconds,
        "why": standing.why,
        "starts_at": standing.starts_at,
        "metrics": state.metrics,
        "progress": state.progress,
        "phase": state.phase,
        "error": state.error,
        "log": None if log is None else str(log),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
