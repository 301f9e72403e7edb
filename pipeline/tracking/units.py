"""A unit as trackers show it: what it published, and what one that still works has logged so far."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.artifacts import Artifact, Unit, checksum
from pipeline.errors import UserError

METRICS, USAGE = "metrics.jsonl", "usage.jsonl"
PEAKS = ("system/memory_gb", "system/gpu_memory_gb")


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
        began: Unix milliseconds of the first sample of its `usage.jsonl`, which names this start; None without one.
        usage: what it took of its machine: highest memory, mean of everything else.
        queued: seconds from its submission until its stage worked; None where nobody submitted it.
        gpu_hours: of this attempt and those before; None where it takes no GPUs.
    """

    unit: Unit
    artifact: Artifact
    policy_version: int | None
    began: int | None
    usage: dict[str, float]
    queued: float | None = None
    gpu_hours: float | None = None

    @classmethod
    def of(cls, unit: Unit, artifact: Artifact, policy_version: int | None) -> UnitRecord:
        """Read what was logged.

        Raises:
            UserError: a log is not what was published.
        """
        for name in (METRICS, USAGE):
            path = artifact.path / name
            if name in artifact.manifest.files and (
                not path.exists() or checksum(path) != artifact.manifest.files[name].sha256
            ):
                shard = "" if unit.shard is None else f" --shard {unit.shard}"
                again = f"baton rerun RUN {unit.stage} --epoch {unit.epoch}{shard}"
                raise UserError(f"{path} is not what {unit} published; to make it again: {again}")
        samples = list(read_log(artifact.path / USAGE))
        return cls(unit, artifact, policy_version, samples[0].time if samples else None, _summary(samples))

    @property
    def started(self) -> int:
        """Unix time, milliseconds."""
        return milliseconds(self.artifact.manifest.started) if self.began is None else self.began

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
        """The stage's metrics and samples by step; one step behind the metrics the summary, `time/*` and GPU-hours."""
        series = list(read_log(self.artifact.path / METRICS))
        manifest = self.artifact.manifest
        step = max((point.step for point in series), default=-1) + 1
        summary = manifest.metrics | {f"time/{phase}": seconds for phase, seconds in manifest.seconds.items()}
        if self.queued is not None:
            summary["time/queue"] = self.queued
        if self.gpu_hours is not None:
            summary["system/gpu_hours"] = self.gpu_hours
        end = [Point(name, value, self.published, step) for name, value in summary.items()]
        return [*series, *end, *read_log(self.artifact.path / USAGE)]

    def videos(self) -> list[Path]:
        """Films of episodes, in the order of their names; none where the unit's data was freed."""
        files = self.artifact.manifest.files
        paths = [self.artifact.path / name for name in sorted(files) if name.startswith("videos/")]
        return [path for path in paths if path.exists()]

    def episodes(self) -> str | None:
        """The table of an evaluation's episodes as CSV; None where it has none."""
        path = self.artifact.path / "episodes.jsonl"
        if not path.exists():
            return None
        return table(json.loads(line) for line in path.read_text().splitlines())


@dataclasses.dataclass(frozen=True)
class LiveUnit:
    """A unit whose stage works.

    Attributes:
        unit: what is being done.
        attempt: number of the attempt.
        policy_version: as in `UnitRecord`.
        began: as in `UnitRecord`.
        logs: points of each log so far; a log only grows while `began` stays the same.
    """

    unit: Unit
    attempt: int
    policy_version: int | None
    began: int
    logs: tuple[list[Point], ...]

    @classmethod
    def of(cls, unit: Unit, attempt: int, directory: Path, policy_version: int | None) -> LiveUnit | None:
        """Read what an attempt has logged; None before its first sample.

        Args:
            unit: the unit.
            attempt: number of the attempt.
            directory: where its newest start writes.
            policy_version: of the unit.
        """
        samples = _since_restart(list(read_log(directory / USAGE)))
        if not samples:
            return None
        began = samples[0].time
        metrics = [point for point in read_log(directory / METRICS) if point.time >= began]
        return cls(unit, attempt, policy_version, began, (metrics, samples))


def read_log(path: Path) -> Iterator[Point]:
    """Points of a log that `stages.metrics.MetricsLog` writes; none where it is missing; no torn last line."""
    if not path.exists():
        return
    for text in path.read_text().splitlines(keepends=True):
        if not text.endswith("\n"):
            return
        line = json.loads(text)
        if not line:
            continue
        for name, value in line["metrics"].items():
            yield Point(name, math.nan if value is None else value, round(line["time"] * 1000), line["step"])


def table(rows: Iterator[dict[str, Any]]) -> str:
    """Rows as CSV, whose columns are those of the first one."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, list(row), extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def milliseconds(iso: str) -> int:
    """Unix time in milliseconds of an ISO 8601 time."""
    return round(datetime.datetime.fromisoformat(iso).timestamp() * 1000)


def _since_restart(samples: list[Point]) -> list[Point]:
    """What the last start wrote; an earlier one under the same number of attempt counted its own steps from 0."""
    begins = [i for i, (one, other) in enumerate(itertools.pairwise(samples), 1) if other.step < one.step]
    return samples[begins[-1] :] if begins else samples


def _summary(samples: list[Point]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for point in samples:
        values.setdefault(point.name, []).append(point.value)
    return {name: max(those) if name in PEAKS else sum(those) / len(those) for name, those in values.items()}
