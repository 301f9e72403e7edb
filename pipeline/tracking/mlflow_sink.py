"""Writes a run to MLflow: one parent run, one nested run a unit, one model version a policy.

MLflow itself is the record of what has been written. A nested run counts as written once it is FINISHED under the
present parent; both are set last. Everything before may be done again at will: MLflow ignores a metric with the same
key, value, time and step, and a parameter with the same value. A unit that works has a nested run too, which its
publication finishes; a start that came to nothing leaves none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.tracking import mlflow_store
from pipeline.tracking.course import course
from pipeline.tracking.mlflow_models import MAKERS, Models
from pipeline.tracking.mlflow_pages import RUN_ID, SQLITE, UNIT
from pipeline.tracking.mlflow_words import (
    BEGAN,
    PARENT,
    PUBLISHED,
    live_tags,
    log,
    log_params,
    note,
    tags_of,
)
from pipeline.tracking.record import RunRecord
from pipeline.tracking.sink import SinkError
from pipeline.tracking.units import LiveUnit, UnitRecord

CONFIG_DIGEST = "baton.config_digest"
KIND = "mlflow.experimentKind"  # which of MLflow's pages open: those of training, not of language models


@dataclasses.dataclass
class Nested:
    """A unit's run.

    Attributes:
        run: its id.
        published: the artifact it shows, whole; None while it is written or its stage works.
        began: of the start whose logs it shows.
        sent: points that it has of each log of a unit that works.
    """

    run: str
    published: str | None = None
    began: str | None = None
    sent: list[int] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, run: Run, parent: str) -> Nested:
        """What MLflow has, below a parent."""
        tags = run.data.tags
        whole = run.info.status == "FINISHED" and tags.get(PARENT) == parent
        return cls(run.info.run_id, tags.get(PUBLISHED) if whole else None, tags.get(BEGAN))


@dataclasses.dataclass
class Shown:
    """What MLflow has of the run.

    Attributes:
        config_digest: of the parent's parameters.
        parent: its id.
        status: the parent's.
        units: unit -> its run.
        files: artifact -> what it was made of.
        models: the registered policies.
    """

    config_digest: str
    parent: str
    status: str
    units: dict[str, Nested]
    models: Models
    files: dict[str, Any] = dataclasses.field(default_factory=dict)


class MlflowSink:
    """An experiment of an MLflow store."""

    shows_live = True

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
        self._shown: Shown | None = None

    @classmethod
    def of(cls, run: Path, config: Config) -> MlflowSink:
        """The store that a config names, by default a sqlite database beside the run directories."""
        settings = config.trainer.logger.mlflow
        if settings.uri is not None:
            return cls(settings.uri, settings.experiment_name)
        database = run.resolve().parent / "mlflow.db"
        return cls(f"{SQLITE}{database}", settings.experiment_name, database)

    def write(self, record: RunRecord) -> int:
        """Make MLflow show exactly this run.

        Returns:
            How many units were written now.

        Raises:
            SinkError: the store cannot be reached or refuses.
            UserError: the experiment was deleted.
        """
        try:
            return self._write(record)
        except mlflow_store.FAILURES as error:
            self._shown = None  # whether the last request was carried out is not known
            raise SinkError(mlflow_store.explain(error, self.address)) from error
        except BaseException:
            self._shown = None
            raise

    def forget(self, record: RunRecord) -> None:
        """Remove all runs and model versions of this run.

        Raises:
            SinkError: the store cannot be reached or refuses.
        """
        try:
            client = self._connect()
            found = client.get_experiment_by_name(self._experiment)
            for run in [] if found is None else list(_search(client, found.experiment_id, record.run_id)):
                client.delete_run(run.info.run_id)
            Models(client, record).forget()
        except mlflow_store.FAILURES as error:
            raise SinkError(mlflow_store.explain(error, self.address)) from error
        self._shown = None

    def close(self) -> None:
        """Nothing is open between two writes."""

    def _connect(self) -> MlflowClient:
        if self._client is None or (self._database is not None and not self._database.exists()):
            self._client, self._shown = mlflow_store.connect(self.address, self._database), None
        else:
            mlflow_store.check_database(self.address)
        return self._client

    def _write(self, record: RunRecord) -> int:
        client = self._connect()
        experiment = self._experiment_id(client)
        shown = self._shown
        if shown is None or shown.config_digest != record.config_digest or _stale(shown, record):
            shown = self._shown = self._look(client, experiment, record)
        pending = [unit for unit in record.units if not _is_written(shown.units.get(str(unit.unit)), unit)]
        log(client, shown.parent, course(record, (unit.unit.epoch for unit in pending)))
        self._write_files(client, shown, record)
        for unit in pending:
            self._write_unit(client, experiment, shown, record, unit)
        for live in record.live:
            self._write_live(client, experiment, shown, record, live)
        shown.models.rank(record)
        if record.finished and (pending or shown.status != "FINISHED"):
            client.set_terminated(shown.parent, "FINISHED", record.ended)
            shown.status = "FINISHED"
        elif not record.finished and shown.status != "RUNNING":
            client.update_run(shown.parent, "RUNNING")
            shown.status = "RUNNING"
        return len(pending)

    def _experiment_id(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            artifacts = None if self._database is None else (self._database.parent / "mlartifacts").as_uri()
            return client.create_experiment(self._experiment, artifacts, {KIND: "custom_model_development"})
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"trainer.logger.mlflow.experiment_name={self._experiment} was deleted in MLflow; restore it with "
                f"`mlflow experiments restore -x {experiment.experiment_id}`, or set another name"
            )
        return experiment.experiment_id

    def _look(self, client: MlflowClient, experiment: str, record: RunRecord) -> Shown:
        """What MLflow has of the run, after whatever is no longer true was deleted.

        A metric cannot be unwritten. So where a unit was superseded or the config changed, the parent is made anew;
        the runs of all other units stay. Doubles can arise where a server answers too late; the first one stays.
        """
        current = {str(unit.unit): unit for unit in record.units}
        working: dict[str, UnitRecord | LiveUnit] = {str(unit.unit): unit for unit in record.live}
        parents: list[Run] = []
        nested: dict[str, Run] = {}
        stale: list[Run] = []
        useless: list[Run] = []
        for run in sorted(_search(client, experiment, record.run_id), key=_oldest_first):
            tags = run.data.tags
            unit = tags.get(UNIT)
            published = tags.get(PUBLISHED)
            if unit is None:
                (parents if tags.get(CONFIG_DIGEST) == record.config_digest else useless).append(run)
            elif published is not None and (
                unit not in current or published != current[unit].artifact.manifest.published
            ):
                stale.append(run)
            elif unit in nested or tags.get(BEGAN) != _began((working | current).get(unit)):
                useless.append(run)
            else:
                nested[unit] = run
        keep = 0 if stale else 1
        for run in [*parents[keep:], *useless, *stale]:  # stale ones last: while one is there, the parent may not stay
            client.delete_run(run.info.run_id)
        if parents[:keep]:
            parent, status = parents[0].info.run_id, parents[0].info.status
        else:
            parent, status = self._create_parent(client, experiment, record), "RUNNING"
        log_params(client, parent, record.params)
        units = {name: Nested.of(run, parent) for name, run in nested.items()}
        for name in working.keys() & units.keys():
            client.set_tag(units[name].run, PARENT, parent)
        return Shown(record.config_digest, parent, status, units, Models(client, record))

    def _create_parent(self, client: MlflowClient, experiment: str, record: RunRecord) -> str:
        tags = {
            RUN_ID: record.run_id,
            CONFIG_DIGEST: record.config_digest,
            "baton.run": record.config.name,
            "baton.code_revision": record.revision,
            "mlflow.source.name": "baton run",
            "mlflow.source.type": "JOB",
            "mlflow.note.content": note(record),
        }
        run = client.create_run(experiment, start_time=record.created, tags=tags, run_name=record.config.name)
        return run.info.run_id

    def _write_files(self, client: MlflowClient, shown: Shown, record: RunRecord) -> None:
        """Files of the run and the table of all evaluations, as far as they changed."""
        for path in record.files:
            status = path.stat()
            if shown.files.get(path.name) != (state := (status.st_ino, status.st_mtime_ns)):
                client.log_artifact(shown.parent, str(path))
                shown.files[path.name] = state
        table = record.success_table()
        if table and shown.files.get("success.csv") != table:
            client.log_text(shown.parent, table, "success.csv")
            shown.files["success.csv"] = table

    def _write_unit(
        self, client: MlflowClient, experiment: str, shown: Shown, record: RunRecord, unit: UnitRecord
    ) -> None:
        name = str(unit.unit)
        known = shown.units.get(name)
        if known is not None and known.began != _began(unit):
            client.delete_run(known.run)
            known = None
        tags = tags_of(record, unit) | {PARENT: shown.parent}
        if known is None:
            run = client.create_run(experiment, start_time=unit.started, tags=tags, run_name=name)
            known = shown.units[name] = Nested(run.info.run_id, began=tags.get(BEGAN))
        else:
            client.log_batch(known.run, tags=[RunTag(key, value) for key, value in tags.items() if key != PARENT])
        log(client, known.run, unit.points())
        if (table := unit.episodes()) is not None and unit.unit.stage == "evaluate":
            client.log_text(known.run, table, "episodes.csv")
        for video in unit.videos():
            client.log_artifact(shown.parent, str(video), f"videos/epoch-{unit.unit.epoch:04d}/{unit.unit.stage}")
        if unit.unit.stage in MAKERS:
            shown.models.add(record, unit, known.run)
        client.set_tag(known.run, PARENT, shown.parent)
        client.set_terminated(known.run, "FINISHED", unit.published)
        known.published = unit.artifact.manifest.published

    def _write_live(
        self, client: MlflowClient, experiment: str, shown: Shown, record: RunRecord, live: LiveUnit
    ) -> None:
        name = str(live.unit)
        known = shown.units.get(name)
        if known is None:
            tags = live_tags(record, live) | {PARENT: shown.parent}
            run = client.create_run(experiment, start_time=live.began, tags=tags, run_name=name)
            known = shown.units[name] = Nested(run.info.run_id, began=tags[BEGAN])
        known.sent = known.sent or [0] * len(live.logs)
        log(client, known.run, [p for log, sent in zip(live.logs, known.sent, strict=True) for p in log[sent:]])
        known.sent = [len(log) for log in live.logs]


def _stale(shown: Shown, record: RunRecord) -> bool:
    """Whether MLflow shows a unit that was superseded since, or a start that came to nothing."""
    current = {str(unit.unit): unit.artifact.manifest.published for unit in record.units}
    began: dict[str, str | None] = {str(unit.unit): _began(unit) for unit in record.live}
    began |= {str(unit.unit): _began(unit) for unit in record.units}
    return any(
        current.get(name) != nested.published if nested.published else began.get(name) != nested.began
        for name, nested in shown.units.items()
    )


def _began(unit: UnitRecord | LiveUnit | None) -> str | None:
    return None if unit is None or unit.began is None else str(unit.began)


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


def _is_written(nested: Nested | None, unit: UnitRecord) -> bool:
    return nested is not None and nested.published == unit.artifact.manifest.published
