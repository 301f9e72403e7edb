"""Writes a run to MLflow: one parent run, one nested run a unit.

MLflow itself is the record of what has been written. A nested run counts as written once it is FINISHED under the
present parent; both are set last. Everything before may be done again at will: MLflow ignores a metric with the same
key, value, time and step, and a parameter with the same value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

# Read by MLflow when it is imported. Requests are not repeated blindly: a POST that timed out may have been carried
# out. The caller looks what is there and tries again later.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import requests
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pipeline.errors import UserError
from pipeline.output_config import MlflowLogger
from pipeline.tracking.record import Point, RunRecord, UnitRecord
from pipeline.tracking.sink import SinkError

RUN_ID = "baton.run_id"
UNIT = "baton.unit"
PUBLISHED = "baton.published"
CONFIG_DIGEST = "baton.config_digest"
PARENT = "mlflow.parentRunId"
METRICS_A_BATCH = 1000  # limits of MLflow's API
PARAMS_A_BATCH = 100

T = TypeVar("T")


class MlflowSink:
    """An experiment of an MLflow store."""

    def __init__(self, uri: str, experiment: str, database: Path | None = None) -> None:
        """Describe the store; nothing is opened yet.

        Args:
            uri: MLflow's tracking URI.
            experiment: its name.
            database: the sqlite file of the URI, if it is ours to create; artifacts lie beside it.
        """
        self.address = uri
        self._experiment = experiment
        self._database = database
        self._client: MlflowClient | None = None

    @classmethod
    def of(cls, run: Path, settings: MlflowLogger) -> MlflowSink:
        """The store that a config names, by default a sqlite database beside the run directories."""
        if settings.uri is not None:
            return cls(settings.uri, settings.experiment_name)
        database = run.resolve().parent / "mlflow.db"
        return cls(f"sqlite:///{database}", settings.experiment_name, database)

    def write(self, record: RunRecord) -> int:
        """Make MLflow show exactly this run.

        Returns:
            How many units were written now.

        Raises:
            SinkError: the store cannot be reached or refuses.
            UserError: the experiment was deleted, or an artifact is damaged.
        """
        try:
            return self._write(record)
        except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError) as error:
            raise SinkError(f"MLflow at {self.address}: {' '.join(str(error).split())[:500]}") from error

    def _write(self, record: RunRecord) -> int:
        if self._client is None:
            if self._database is not None and not self._database.exists():
                create_database(self._database)
            self._client = MlflowClient(tracking_uri=self.address)
        client = self._client
        experiment = self._experiment_id(client)
        parents, nested = self._known(client, experiment, record)
        parent = parents[0] if parents else self._create_parent(client, experiment, record)
        pending = [unit for unit in record.units if not _is_written(nested.get(str(unit.unit)), parent)]

        _log_params(client, parent, record.params)
        _log(client, parent, record.epoch_points(unit.unit.epoch for unit in pending))
        for path in record.files:
            client.log_artifact(parent, str(path))
        for unit in pending:
            self._write_unit(client, experiment, parent, record, unit, nested.get(str(unit.unit)))
        if record.finished:
            client.set_terminated(parent, "FINISHED", record.ended)
        else:
            client.update_run(parent, "RUNNING")
        return len(pending)

    def _experiment_id(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            artifacts = None if self._database is None else (self._database.parent / "mlartifacts").as_uri()
            return client.create_experiment(self._experiment, artifact_location=artifacts)
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"trainer.logger.mlflow.experiment_name={self._experiment} was deleted in MLflow; restore it with "
                f"`mlflow experiments restore -x {experiment.experiment_id}`, or set another name"
            )
        return experiment.experiment_id

    def _known(self, client: MlflowClient, experiment: str, record: RunRecord) -> tuple[list[str], dict[str, Run]]:
        """What MLflow has of the run, after whatever is no longer true was deleted.

        A metric cannot be unwritten. So where a unit was superseded or the config changed, the parent is made anew;
        the runs of all other units stay. Doubles can arise where a server answers too late; the first one stays.

        Returns:
            The parent's id, or nothing; unit -> its nested run.
        """
        current = {(str(unit.unit), unit.artifact.manifest.published) for unit in record.units}
        parents: list[Run] = []
        nested: dict[str, Run] = {}
        stale: list[Run] = []
        double: list[Run] = []
        for run in sorted(_search(client, experiment, record.run_id), key=_oldest_first):
            unit = run.data.tags.get(UNIT)
            if unit is None:
                if run.data.tags.get(CONFIG_DIGEST) == record.config_digest:
                    parents.append(run)
                else:
                    double.append(run)
            elif (unit, run.data.tags.get(PUBLISHED)) not in current:
                stale.append(run)
            elif unit in nested:
                double.append(run)
            else:
                nested[unit] = run
        keep = 0 if stale else 1
        for run in [*parents[keep:], *double, *stale]:  # stale ones last: while one is there the parent is not trusted
            client.delete_run(run.info.run_id)
        return [run.info.run_id for run in parents[:keep]], nested

    def _create_parent(self, client: MlflowClient, experiment: str, record: RunRecord) -> str:
        tags = {
            RUN_ID: record.run_id,
            CONFIG_DIGEST: record.config_digest,
            "baton.run": record.config.name,
            "baton.code_revision": record.revision,
        }
        run = client.create_run(experiment, start_time=record.created, tags=tags, run_name=record.config.name)
        return run.info.run_id

    def _write_unit(
        self, client: MlflowClient, experiment: str, parent: str, record: RunRecord, unit: UnitRecord, run: Run | None
    ) -> None:
        if run is None:
            tags = _tags(record, unit) | {PARENT: parent}
            run = client.create_run(experiment, start_time=unit.started, tags=tags, run_name=str(unit.unit))
        _log(client, run.info.run_id, unit.points())
        for video in unit.videos():
            client.log_artifact(parent, str(video), f"videos/epoch-{unit.unit.epoch:04d}")
        client.set_tag(run.info.run_id, PARENT, parent)
        client.set_terminated(run.info.run_id, "FINISHED", unit.published)


def create_database(database: Path) -> None:
    """Create MLflow's sqlite database under another name and rename it, so that it is whole or not there."""
    partial = database.with_name(f"{database.name}.new")
    for leftover in database.parent.glob(f"{partial.name}*"):
        leftover.unlink()
    store = SqlAlchemyStore(f"sqlite:///{partial}", (database.parent / "mlartifacts").as_uri())
    store._dispose_engine()
    os.replace(partial, database)


def _search(client: MlflowClient, experiment: str, run_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`{RUN_ID}` = '{run_id}'", max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _oldest_first(run: Run) -> tuple[bool, int, str]:
    return run.info.status != "FINISHED", run.info.start_time, run.info.run_id


def _is_written(run: Run | None, parent: str) -> bool:
    return run is not None and run.info.status == "FINISHED" and run.data.tags.get(PARENT) == parent


def _tags(record: RunRecord, unit: UnitRecord) -> dict[str, str]:
    manifest = unit.artifact.manifest
    facts: dict[str, Any] = {
        RUN_ID: record.run_id,
        UNIT: unit.unit,
        PUBLISHED: manifest.published,
        "baton.run": record.config.name,
        "baton.stage": unit.unit.stage,
        "baton.epoch": unit.unit.epoch,
        "baton.shard": unit.unit.shard,
        "baton.attempt": manifest.attempt,
        "baton.policy_version": unit.policy_version,
        "baton.job_id": manifest.job_id,
        "baton.host": manifest.host,
        "baton.code_revision": manifest.code_revision,
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def _log(client: MlflowClient, run: str, points: Sequence[Point]) -> None:
    metrics = [Metric(_allowed(point.name), point.value, point.time, point.step) for point in points]
    for batch in _batches(metrics, METRICS_A_BATCH):
        client.log_batch(run, metrics=batch)


def _log_params(client: MlflowClient, run: str, params: dict[str, str]) -> None:
    for batch in _batches([Param(_allowed(key), value) for key, value in params.items()], PARAMS_A_BATCH):
        client.log_batch(run, params=batch)


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _allowed(name: str) -> str:
    """The name with what MLflow refuses in names replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)
