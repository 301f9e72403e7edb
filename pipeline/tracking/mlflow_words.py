"""A run, its units and their numbers in MLflow's words: tags, parameters, metrics, a description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from pipeline.tracking.mlflow_pages import RUN_ID, UNIT
from pipeline.tracking.record import RunRecord
from pipeline.tracking.units import LiveUnit, Point, UnitRecord

PUBLISHED = "baton.published"
BEGAN = "baton.began"
PARENT = "mlflow.parentRunId"
METRICS_A_BATCH = 1000  # limits of MLflow's API
PARAMS_A_BATCH = 100

T = TypeVar("T")


def note(record: RunRecord) -> str:
    """What MLflow shows as the description of the run."""
    config = record.config
    return (
        f"`{record.path}`: {config.policy.name} on {config.simulator.name}, {config.algorithm.name}, "
        f"{config.epochs} epochs. Charts by epoch are here, by step in the nested runs, one a unit; "
        f"films are under *videos*, policies in the model registry as `{record.run_id}`."
    )


def live_tags(record: RunRecord, live: LiveUnit | UnitRecord) -> dict[str, str]:
    """What is known of a unit as soon as its stage works."""
    unit = live.unit
    facts: dict[str, Any] = {
        RUN_ID: record.run_id,
        UNIT: unit,
        BEGAN: live.began,
        "baton.run": record.config.name,
        "baton.stage": unit.stage,
        "baton.epoch": unit.epoch,
        "baton.shard": unit.shard,
        "baton.policy_version": live.policy_version,
        "mlflow.source.name": f"stages.{'rollout' if unit.stage == 'demonstrate' else unit.stage}",
        "mlflow.source.type": "JOB",
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def tags_of(record: RunRecord, unit: UnitRecord) -> dict[str, str]:
    """Everything by which the runs table can be searched and grouped."""
    manifest = unit.artifact.manifest
    return live_tags(record, unit) | {
        PUBLISHED: manifest.published,
        "baton.attempt": str(manifest.attempt),
        "baton.job_id": manifest.job_id,
        "baton.node": manifest.host,
        "baton.code_revision": manifest.code_revision,
    }


def log(client: MlflowClient, run: str, points: Sequence[Point]) -> None:
    """Write points; those that are there already stay as they are."""
    metrics = [Metric(_allowed(point.name), point.value, point.time, point.step) for point in points]
    for batch in _batches(metrics, METRICS_A_BATCH):
        client.log_batch(run, metrics=batch)


def log_params(client: MlflowClient, run: str, params: dict[str, str]) -> None:
    """Write parameters; those that are there already stay as they are."""
    for batch in _batches([Param(_allowed(key), value) for key, value in params.items()], PARAMS_A_BATCH):
        client.log_batch(run, params=batch)


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _allowed(name: str) -> str:
    """The name with what MLflow refuses in names replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)
