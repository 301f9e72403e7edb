"""What the scripted expert's episodes came to, by task, and the shards that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline import ledger, rundir
from pipeline.artifacts import Artifact
from pipeline.doctor.check import size
from pipeline.report.quantities import percent

Metrics = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Score:
    """What the expert did of a task, or of all.

    Attributes:
        episodes: that were kept.
        success: solved ones of those played, a fraction; None where the shards do not tell.
        steps: mean of those kept; None likewise.
    """

    episodes: int
    success: float | None
    steps: float | None


@dataclasses.dataclass(frozen=True)
class Shard:
    """A published shard.

    Attributes:
        path: its directory.
        episodes: in it.
        bytes: of its files.
    """

    path: str
    episodes: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """What a run has of the expert.

    Attributes:
        tasks: by name, in the order of the config.
        all_tasks: over all of them.
        shards: in order.
    """

    tasks: dict[str, Score]
    all_tasks: Score
    shards: list[Shard]


def demonstrations(run: Path) -> Demonstrations:
    """Read what the published shards of a run tell of themselves.

    Args:
        run: a run directory; shards that are not published are left out.
    """
    config = rundir.load(run)
    plans = ledger.run_plan(run, config, ("demonstrate",))
    shards = [artifact for plan in plans if (artifact := ledger.published(run, plan.unit)) is not None]
    metrics = [artifact.manifest.metrics for artifact in shards]
    tasks = {task: _score(metrics, f"/{task}") for task in config.simulator.tasks}
    return Demonstrations(tasks, _score(metrics, ""), [_shard(artifact) for artifact in shards])


def demonstrations_table(of: Demonstrations) -> RenderableType:
    """Episodes, success and mean steps of each task, and where the shards lie.

    Args:
        of: a run's.
    """
    tasks = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    tasks.add_column("task", overflow="fold")
    for heading in ("episodes", "success", "mean steps"):
        tasks.add_column(heading, justify="right")
    for task, score in of.tasks.items():
        tasks.add_row(Text(task), *_cells(score))
    tasks.add_row("all tasks", *_cells(of.all_tasks), style="bold")
    lines = [Text(f"{'episodes':>10}{'size':>10}   shard")]
    lines += [Text(f"{shard.episodes:>10}{size(shard.bytes):>10}   {shard.path}") for shard in of.shards]
    bytes_ = size(sum(shard.bytes for shard in of.shards))
    lines.append(Text(f"{of.all_tasks.episodes:>10}{bytes_:>10}   all shards", style="bold"))
    return Group(tasks, Text(""), *lines)


def _cells(score: Score) -> tuple[str, str, str]:
    return str(score.episodes), percent(score.success), "" if score.steps is None else f"{score.steps:.1f}"


def _shard(artifact: Artifact) -> Shard:
    manifest = artifact.manifest
    episodes = round(manifest.metrics.get("rollout/episodes", 0))
    return Shard(str(artifact.path), episodes, sum(record.size for record in manifest.files.values()))


def _score(shards: Sequence[Metrics], of: str) -> Score:
    """Over shards; `of` ends the names of the metrics."""
    kept = sum(shard.get(f"rollout/episodes{of}", 0.0) for shard in shards)
    success = _mean(shards, f"rollout/success_rate{of}", f"rollout/played{of}")
    return Score(round(kept), success, _mean(shards, f"rollout/episode_length{of}", f"rollout/episodes{of}"))


def _mean(shards: Sequence[Metrics], name: str, weight: str) -> float | None:
    """A weighted mean over the shards that tell it; None where none does."""
    told = [(shard[name], shard[weight]) for shard in shards if name in shard and shard.get(weight)]
    return sum(value * times for value, times in told) / sum(times for _, times in told) if told else None
