"""What there is to tell about a run, read from its directory and from nothing else.

A `RunRecord` follows from the published artifacts alone, timestamps included: whoever writes it twice, or writes it
anew into an empty store, gets the same experiment.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline import rundir
from pipeline.artifacts import MANIFEST, STAGES, Artifact, Unit, checksum, open_artifact
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.plan import make_plan

FILES = (rundir.CONFIG, rundir.IDENTITY, "result.json", "result.txt")
EPISODES = "rollout/episodes"


@dataclasses.dataclass(frozen=True)
class Point:
    """A number of a series.

    Attributes:
        name: of the metric.
        value: NaN where the stage had no finite number.
        time: Unix time, milliseconds.
        step: position in the series: the stage's own step, or the epoch.
    """

    name: str
    value: float
    time: int
    step: int


@dataclasses.dataclass(frozen=True)
class UnitRecord:
    """A published unit.

    Attributes:
        unit: what was done.
        artifact: what came of it.
        policy_version: the policy it made or ran; None for the scripted expert.
    """

    unit: Unit
    artifact: Artifact
    policy_version: int | None

    @property
    def started(self) -> int:
        """Unix time, milliseconds."""
        return milliseconds(self.artifact.manifest.started)

    @property
    def published(self) -> int:
        """Unix time, milliseconds."""
        return milliseconds(self.artifact.manifest.published)

    @property
    def seconds(self) -> float:
        """Length of the attempt that was published."""
        seconds = self.artifact.manifest.seconds
        return seconds["total"] if "total" in seconds else (self.published - self.started) / 1000

    def points(self) -> list[Point]:
        """The stage's metrics by step; one step behind them the manifest's summary and `time/<phase>`.

        Raises:
            UserError: `metrics.jsonl` is not what was published.
        """
        series = list(self._series())
        manifest = self.artifact.manifest
        step = max((point.step for point in series), default=-1) + 1
        summary = manifest.metrics | {f"time/{phase}": seconds for phase, seconds in manifest.seconds.items()}
        return series + [Point(name, value, self.published, step) for name, value in summary.items()]

    def videos(self) -> list[Path]:
        """Films of episodes, in the order of their names.

        Raises:
            UserError: a film is not what was published.
        """
        names = sorted(name for name in self.artifact.manifest.files if name.startswith("videos/"))
        return [self._verified(name) for name in names]

    def _series(self) -> Iterator[Point]:
        if "metrics.jsonl" not in self.artifact.manifest.files:
            return
        for text in self._verified("metrics.jsonl").read_text().splitlines():
            line = json.loads(text)
            for name, value in line["metrics"].items():
                yield Point(name, math.nan if value is None else value, round(line["time"] * 1000), line["step"])

    def _verified(self, name: str) -> Path:
        path = self.artifact.path / name
        if not path.exists() or checksum(path) != self.artifact.manifest.files[name].sha256:
            raise UserError(f"{path} is not what {self.unit} published; run `baton rerun` for that unit")
        return path


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
        finished: whether all units of its plan are published.
    """

    path: Path
    run_id: str
    revision: str
    created: int
    config: Config
    units: tuple[UnitRecord, ...]
    finished: bool

    @property
    def params(self) -> dict[str, str]:
        """The config flattened: `rollout.num_envs` -> `16`."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in _flat(self.config.model_dump(mode="json"))
        }

    @property
    def config_digest(self) -> str:
        """Changes with any parameter."""
        return hashlib.sha256(json.dumps(self.params, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> list[Path]:
        """Config, result and table, as far as they are there."""
        return [self.path / name for name in FILES if (self.path / name).exists()]

    @property
    def ended(self) -> int:
        """When the last artifact was published, Unix time, milliseconds."""
        return max((record.published for record in self.units), default=self.created)

    def epoch_points(self, epochs: Iterable[int]) -> list[Point]:
        """The course of the run: one number an epoch for each metric, and `time/<stage>` in seconds of work.

        Shards count once all are there: numbers are means weighted by episodes, episodes and seconds are sums. Success
        of the evaluation is `env/success_rate`; of the other names that evaluation and rollout share, the
        rollout's stand. The scripted expert's numbers say nothing of a policy and are left out.

        Args:
            epochs: which ones.
        """
        points = []
        for epoch in sorted(set(epochs)):
            taken: set[str] = set()
            for stage in ("demonstrate", "sft", "rollout", "update", "evaluate"):
                shards = [record for record in self.units if (record.unit.epoch, record.unit.stage) == (epoch, stage)]
                if not shards or len(shards) < self._shards(stage):
                    continue
                time = max(record.published for record in shards)
                points.append(Point(f"time/{stage}", sum(record.seconds for record in shards), time, epoch))
                if stage == "demonstrate":
                    continue
                summary = {
                    name: value
                    for name, value in pooled(shards).items()
                    if name not in taken and (stage == "evaluate" or not name.startswith("env/success_rate"))
                }
                taken |= summary.keys()
                points += [Point(name, value, time, epoch) for name, value in summary.items()]
        return points

    def _shards(self, stage: str) -> int:
        return {"demonstrate": self.config.demonstrate.shards, "rollout": self.config.rollout.shards}.get(stage, 1)


def read(run: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        UserError: it is no run directory, or a file in it cannot be read.
    """
    config, identity = rundir.load(run), rundir.identity(run)
    units = []
    for path in manifests(run):
        artifact = open_artifact(path.parent)
        if artifact is None:  # superseded since the listing
            continue
        unit = Unit.parse(artifact.manifest.unit)
        units.append(UnitRecord(unit, artifact, _policy_version(unit, config.rollout.staleness)))
    return RunRecord(
        path=run,
        run_id=identity["id"],
        revision=identity["code"]["revision"] or f"sources {identity['code']['digest'][:12]}",
        created=milliseconds(identity["created"]),
        config=config,
        units=tuple(sorted(units, key=lambda record: (record.published, record.unit.epoch, str(record.unit)))),
        finished={plan.unit for plan in make_plan(config)} <= {record.unit for record in units},
    )


def manifests(run: Path) -> list[Path]:
    """The manifests that mark units as done."""
    epochs = run / "epochs"
    found = [*epochs.glob(f"*/*/{MANIFEST}"), *epochs.glob(f"*/*/shard-*/{MANIFEST}")]
    units = ((path, _unit_at(path.parent)) for path in found)
    return [p for p, unit in units if unit.stage in STAGES and str(p.parent.relative_to(run)) == unit.marker]


def fingerprint(run: Path) -> frozenset[tuple[str, int, int]]:
    """Changes whenever there is something new to tell; costs one `stat` a file."""
    state = set()
    for path in [*manifests(run), *(run / name for name in FILES)]:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        state.add((str(path), status.st_mtime_ns, status.st_ino))
    return frozenset(state)


def pooled(shards: list[UnitRecord]) -> dict[str, float]:
    """The summary of a stage: means over its shards weighted by episodes; episodes are added up.

    Raises:
        UserError: one of several shards does not say how many episodes it has.
    """
    if len(shards) == 1:
        return shards[0].artifact.manifest.metrics
    sums: dict[str, float] = defaultdict(float)
    weights: dict[str, float] = defaultdict(float)
    for record in shards:
        metrics = record.artifact.manifest.metrics
        if EPISODES not in metrics:
            raise UserError(f"{record.artifact.path / MANIFEST} has no {EPISODES}; run `baton rerun` for that unit")
        for name, value in metrics.items():
            weight = 1.0 if name == EPISODES else metrics[EPISODES]
            sums[name] += weight * value
            weights[name] += weight
    return {name: sums[name] if name == EPISODES else sums[name] / weights[name] for name in sums if weights[name]}


def milliseconds(iso: str) -> int:
    """Unix time in milliseconds of an ISO 8601 time."""
    return round(datetime.datetime.fromisoformat(iso).timestamp() * 1000)


@functools.cache
def _unit_at(directory: Path) -> Unit:
    """The unit whose marker a directory would be, by its place alone."""
    if directory.name.startswith("shard-"):
        return Unit(int(directory.parents[1].name), directory.parent.name, int(directory.name.removeprefix("shard-")))
    return Unit(int(directory.parent.name), directory.name)


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
