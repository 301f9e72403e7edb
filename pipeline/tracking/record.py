"""What there is to tell about a run, read from its directory and from nothing else.

A `RunRecord` follows from the published artifacts and from `jobs.jsonl`, timestamps included: whoever writes it twice,
or writes it anew into an empty store, gets the same experiment. Only what it says of units that still work comes and
goes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import rundir
from pipeline.artifacts import Artifact, Unit, attempt_directory, latest_incarnation, open_artifact
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.plan import make_plan
from pipeline.resources import share
from pipeline.tracking.attempts import Attempts
from pipeline.tracking.listing import Found, Identity, Listing
from pipeline.tracking.units import LiveUnit, UnitRecord, milliseconds, table

FILES = (rundir.CONFIG, rundir.IDENTITY, "result.json", "result.txt", "report.html")
SUCCESS = "env/success_rate"
HOUR = 3600.0

Fingerprint = frozenset[tuple[str, int, int]]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        path: the run directory.
        run_id: identity of the run.
        revision: of the code.
        created: Unix time, milliseconds.
        config: the resolved config.
        units: what is published, in that order.
        live: what still works.
        finished: whether all units of its plan are published.
        damaged: what is published but cannot be told, a line for each.
        fingerprint: changes whenever there is something new to tell of `units` or `files`.
    """

    path: Path
    run_id: str
    revision: str
    created: int
    config: Config
    units: tuple[UnitRecord, ...]
    live: tuple[LiveUnit, ...]
    finished: bool
    damaged: tuple[str, ...]
    fingerprint: Fingerprint

    @functools.cached_property
    def params(self) -> dict[str, str]:
        """The config flattened: `rollout.num_envs` -> `16`."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in _flat(self.config.model_dump(mode="json"))
        }

    @functools.cached_property
    def config_digest(self) -> str:
        """Changes with any parameter."""
        return hashlib.sha256(json.dumps(self.params, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> list[Path]:
        """Config, results and report, as far as they are there."""
        return [self.path / name for name in FILES if (self.path / name).exists()]

    @property
    def ended(self) -> int:
        """When the last artifact was published, Unix time, milliseconds."""
        return max((record.published for record in self.units), default=self.created)

    @functools.cached_property
    def by_stage(self) -> dict[tuple[int, str], list[UnitRecord]]:
        """(epoch, stage) -> its published units."""
        found = defaultdict(list)
        for record in self.units:
            found[record.unit.epoch, record.unit.stage].append(record)
        return dict(found)

    @functools.cached_property
    def policy_gpu_hours(self) -> dict[int, float]:
        """Epoch -> GPU-hours of everything that its policy was made from; evaluations do not count."""
        hours = [0.0] * (max((unit.unit.epoch for unit in self.units), default=0) + 1)
        for unit in self.units:
            if unit.unit.stage != "evaluate":
                hours[unit.unit.epoch] += unit.gpu_hours or 0.0
        return dict(enumerate(itertools.accumulate(hours)))

    def success(self) -> dict[int, float]:
        """Policy version -> success rate of its evaluation."""
        return {
            record.unit.epoch: record.artifact.manifest.metrics[SUCCESS]
            for record in self.units
            if record.unit.stage == "evaluate" and SUCCESS in record.artifact.manifest.metrics
        }

    def success_table(self) -> str:
        """Success by epoch and task of all evaluations, as CSV."""
        rows = []
        for record in self.units:
            metrics = record.artifact.manifest.metrics if record.unit.stage == "evaluate" else {}
            for name, value in sorted(metrics.items()):
                if name.startswith(SUCCESS):
                    task = name.removeprefix(SUCCESS).removeprefix("/") or "all tasks"
                    rows.append({"epoch": record.unit.epoch, "task": task, "success_rate": value})
        return table(iter(rows))


@dataclasses.dataclass(frozen=True)
class _Told:
    """What follows from the manifests that were found: units published, which and in order, what cannot be told."""

    found: Found
    units: tuple[UnitRecord, ...]
    done: frozenset[Unit]
    damaged: tuple[str, ...]
    fingerprint: Fingerprint


class Reader:
    """Reads a run again and again; what is published never changes, so each artifact is read once."""

    def __init__(self, run: Path) -> None:
        """Nothing is read yet.

        Args:
            run: the run directory.
        """
        self._run = run
        self._listing, self._attempts = Listing(run), Attempts(run)
        self._opened: dict[tuple[Path, Identity], UnitRecord | str] = {}
        self._told: _Told | None = None
        self._plan: tuple[Config, frozenset[Unit]] | None = None

    def read(self) -> RunRecord:
        """The run as it is.

        Raises:
            UserError: it is no run directory, or `jobs.jsonl` cannot be read.
        """
        config, identity = rundir.load(self._run), rundir.identity(self._run)
        found = self._listing.read()
        self._attempts.refresh()
        told = self._told
        if told is None or told.found != found:
            told = self._told = self._tell(config, found)
        return RunRecord(
            path=self._run,
            run_id=identity["id"],
            revision=identity["code"]["revision"] or f"sources {identity['code']['digest'][:12]}",
            created=milliseconds(identity["created"]),
            config=config,
            units=told.units,
            live=tuple(self._live(config, found)),
            finished=self._planned(config) <= told.done,
            damaged=told.damaged,
            fingerprint=told.fingerprint | frozenset(self._files()),
        )

    def _tell(self, config: Config, found: Found) -> _Told:
        opened = [self._record(config, unit, *place) for unit, place in found.items()]
        units = [record for record in opened if isinstance(record, UnitRecord)]
        return _Told(
            found,
            tuple(sorted(units, key=lambda record: (record.published, record.unit.epoch, str(record.unit)))),
            frozenset(record.unit for record in units),
            tuple(problem for problem in opened if isinstance(problem, str)),
            frozenset((str(unit), *identity) for unit, (_, identity) in found.items()),
        )

    def _record(self, config: Config, unit: Unit, directory: Path, identity: Identity) -> UnitRecord | str:
        key = (directory, identity)
        if key not in self._opened:
            try:
                artifact = open_artifact(directory)
                self._opened[key] = (
                    f"{directory} was removed while it was read"
                    if artifact is None
                    else self._read(config, unit, artifact)
                )
            except UserError as error:
                self._opened[key] = str(error)
        return self._opened[key]

    def _read(self, config: Config, unit: Unit, artifact: Artifact) -> UnitRecord:
        record = UnitRecord.of(unit, artifact, _policy_version(unit, config.rollout.staleness))
        attempt = artifact.manifest.attempt
        seconds = record.seconds + self._attempts.seconds_before(unit, attempt)
        gpus = share(config, unit).gpu_count
        return dataclasses.replace(
            record,
            queued=self._attempts.queued(unit, attempt, record.started),
            gpu_hours=gpus * seconds / HOUR if gpus else None,
        )

    def _live(self, config: Config, found: Found) -> Iterator[LiveUnit]:
        for unit, attempt in self._attempts.open():
            if unit not in found:
                directory = latest_incarnation(attempt_directory(self._run, unit, attempt))
                live = LiveUnit.of(unit, attempt, directory, _policy_version(unit, config.rollout.staleness))
                if live is not None:
                    yield live

    def _planned(self, config: Config) -> frozenset[Unit]:
        if self._plan is None or self._plan[0] is not config:
            self._plan = (config, frozenset(plan.unit for plan in make_plan(config)))
        return self._plan[1]

    def _files(self) -> Iterator[tuple[str, int, int]]:
        for name in FILES:
            path = self._run / name
            if path.exists():
                status = path.stat()
                yield name, status.st_ino, status.st_mtime_ns


def _policy_version(unit: Unit, staleness: int) -> int | None:
    if unit.stage == "demonstrate":
        return None
    return max(0, unit.epoch - 1 - staleness) if unit.stage == "rollout" else unit.epoch


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
