"""Reads a run directory: what is published, running, failed or waiting.

A unit is published when its artifact is, whatever `jobs.jsonl` says. Manifests never change, so each is read once.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import lease, rundir
from pipeline.artifacts import MANIFEST, STAGES, Artifact, Unit, attempt_directory, latest_incarnation, open_artifact
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.jobs import History, histories
from pipeline.plan import UnitPlan, evaluation_epochs, make_plan
from slurm.launcher import Sight
from slurm.states import State

FREED = "freed"
TAIL = 4096  # bytes, of which a line of a log of phases takes some 50
Status = Literal["waiting", "running", "published", "failed"]


@dataclasses.dataclass(frozen=True)
class UnitState:
    """Where a unit stands.

    Attributes:
        unit: the unit.
        status: `failed`: it will not be tried again before the same command is given again.
        attempt: the published one, else the newest; None before the first.
        attempts: how many there were.
        started: Unix seconds at which that attempt began.
        seconds: how long it took; None until it has ended.
        metrics: the manifest's summary; empty until it is published.
        progress: what a running stage last said of itself: done, total, metrics.
        phase: that a running stage was in before, in its own word, e.g. `load`; empty before the first.
        error: why the newest attempt was not published; None if it was or goes on.
    """

    unit: Unit
    status: Status
    attempt: int | None = None
    attempts: int = 0
    started: float | None = None
    seconds: float | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    progress: dict[str, Any] | None = None
    phase: str = ""
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        run: the run directory.
        config: its config.
        units: of the plan, in plan order, and evaluations that earlier settings of `epochs` asked for.
        driver: the orchestrator that holds the lease; None if there is none.
        queued: keys of submitted jobs that have not started, as far as whoever took it asked.
        sights: what the launcher said of jobs, by key, likewise; their seconds go on, so they make no difference.
    """

    run: Path
    config: Config
    units: tuple[UnitState, ...]
    driver: str | None = None
    queued: frozenset[str] = frozenset()
    sights: Mapping[str, Sight] = dataclasses.field(default_factory=dict, compare=False)

    def seen(self, sights: Mapping[str, Sight]) -> Snapshot:
        """The same with what the launcher says of the jobs.

        Args:
            sights: by key of the job.
        """
        queued = frozenset(key for key, sight in sights.items() if sight.state is State.WAITING)
        return dataclasses.replace(self, queued=queued, sights=sights)


def read(run: Path) -> Snapshot:
    """Read the state of a run.

    Args:
        run: the run directory.

    Returns:
        The state of every unit.

    Raises:
        UserError: it is no run, or a file in it is damaged.
    """
    return Reader(run).read()


class Reader:
    """Reads a run again and again while its lease is held, so that what is published stays published."""

    def __init__(self, run: Path, stages: Collection[str] = STAGES) -> None:
        """Read the config and make the plan.

        Args:
            run: the run directory.
            stages: those whose units are looked at.

        Raises:
            UserError: it is no run.
        """
        self._run, self.config = run, rundir.load(run)
        self.plans = run_plan(run, self.config, stages)
        self._published: dict[Unit, UnitState] = {}

    def read(self) -> Snapshot:
        """The state of every unit; a look at the disk for each that was not published the last time."""
        tried, driver, nothing = histories(self._run), lease.holder(self._run), History()
        begun = _begun(self._run)
        units = []
        for plan in self.plans:
            state = self._published.get(plan.unit)
            if state is None:
                found = _find(self._run, plan.unit) if plan.unit.epoch in begun else None
                state = _state(self._run, self.config, plan.unit, tried.get(plan.unit, nothing), found)
                if state.status == "published":
                    self._published[plan.unit] = state
            units.append(state)
        return Snapshot(self._run, self.config, tuple(units), str(driver) if driver else None)


def run_plan(run: Path, config: Config, stages: Collection[str] = STAGES) -> tuple[UnitPlan, ...]:
    """The plan of a run: what its config asks for, and evaluations that are there already.

    Args:
        run: the run directory.
        config: its config.
        stages: those whose units are wanted.

    Returns:
        As `make_plan`.
    """
    others = (set(range(config.epochs + 1)) - evaluation_epochs(config)) & _begun(run)
    plans = _Plans.of(config, frozenset(e for e in others if published(run, Unit(e, "evaluate"))))
    return plans if stages is STAGES else tuple(plan for plan in plans if plan.unit.stage in stages)


def published(run: Path, unit: Unit) -> Artifact | None:
    """The artifact that says a unit is done, or what was kept of it when its data was freed.

    Args:
        run: the run directory.
        unit: the unit.

    Returns:
        The artifact, not verified; None if the unit is not done.
    """
    found = _find(run, unit)
    return None if found is None else _open(*found)


class _Summary(BaseModel):
    """What the ledger itself needs of a manifest: a tenth of the time, for a run of thousands of units."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    attempt: int
    metrics: dict[str, float]
    started: str
    published: str


def _find(run: Path, unit: Unit) -> tuple[str, int, int] | None:
    """Where a unit is published, and which file its manifest is."""
    # Asked for every unit in every turn of the loop: strings, because building paths costs more than the question.
    for relative in _places(unit):
        path = f"{run}/{relative}"
        try:
            status = os.stat(f"{path}/{MANIFEST}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return path, status.st_ino, status.st_mtime_ns
    return None


@functools.lru_cache(maxsize=65536)
def _places(unit: Unit) -> tuple[str, str]:
    return unit.marker, f"{FREED}/{unit}"


@functools.lru_cache(maxsize=65536)
def _open(path: str, _inode: int, _modified: int) -> Artifact:
    artifact = open_artifact(Path(path))
    if artifact is None:
        raise UserError(f"{path} was removed while it was read: run the same command again")
    return artifact


@functools.lru_cache(maxsize=65536)
def _summary(path: str, inode: int, modified: int) -> _Summary:
    try:
        with open(f"{path}/{MANIFEST}", "rb", buffering=0) as file:
            return _Summary.model_validate_json(file.read())
    except (FileNotFoundError, ValidationError):
        _open(path, inode, modified)  # says what is wrong
        raise


@functools.lru_cache(maxsize=65536)
def _times(started: str, ended: str) -> tuple[float, float]:
    began, end = (datetime.datetime.fromisoformat(text).timestamp() for text in (started, ended))
    return began, end - began


class _Plans:
    """The last plan made: a run's config object stays the same until its file changes."""

    made: tuple[Config, frozenset[int], tuple[UnitPlan, ...]] | None = None

    @classmethod
    def of(cls, config: Config, also_evaluate: frozenset[int]) -> tuple[UnitPlan, ...]:
        if cls.made is None or cls.made[0] is not config or cls.made[1] != also_evaluate:
            cls.made = (config, also_evaluate, make_plan(config, also_evaluate))
        return cls.made[2]


def _begun(run: Path) -> set[int]:
    """Epochs of which something is published; asked once, it spares a look at every unit of those ahead."""
    try:
        return {int(name) for name in os.listdir(run / "epochs") if name.isdigit()}
    except FileNotFoundError:
        return set()


def _state(run: Path, config: Config, unit: Unit, history: History, found: tuple[str, int, int] | None) -> UnitState:
    if found:
        manifest = _summary(*found)
        began, seconds = _times(manifest.started, manifest.published)
        attempts = max(history.submissions, manifest.attempt)
        return UnitState(unit, "published", manifest.attempt, attempts, began, seconds, manifest.metrics)
    last, submission = history.last, history.open
    if submission is not None:
        attempt = latest_incarnation(attempt_directory(run, unit, submission.attempt))
        phase = _phase(attempt)  # first: a stage that publishes is then told with all it did before
        progress = _progress(attempt)
        return UnitState(
            unit, "running", submission.attempt, history.submissions, history.began, progress=progress, phase=phase
        )
    if last is None:
        return UnitState(unit, "waiting", attempts=history.submissions)
    given_up = last.outcome == "refused" or any(
        count >= (max(config.slurm.max_requeues, 1) if cause in ("preempted", "node") else config.max_attempts)
        for cause, count in history.failures.items()
    )
    return UnitState(
        unit,
        "failed" if given_up else "waiting",
        last.attempt,
        history.submissions,
        history.began,
        last.seconds,
        error=last.error,
    )


def _phase(attempt: Path) -> str:
    try:
        with open(attempt / "phases.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().split(b"\n")[:-1]  # the last may be torn
    except FileNotFoundError:
        return ""
    return str(json.loads(lines[-1])["phase"]) if lines else ""


def _progress(attempt: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((attempt / "progress.json").read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise UserError(f"{attempt / 'progress.json'} cannot be read ({error}): delete it") from None
    return found
