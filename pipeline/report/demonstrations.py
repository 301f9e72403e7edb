"""What the scripted expert's episodes came to, by task, and the shards that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline import ledger, rundir
from pipeline.artifacts import Artifact
from pipeline.doctor.check import size
from pipeline.report.progress import percent

Metrics = Mapping[str, float]


def demonstrations_table(run: Path) -> RenderableType:
    """Episodes, success and mean steps of each task, and where the shards lie.

    Args:
        run: a run directory; shards that are not published are left out.
    """
    plans = ledger.run_plan(run, rundir.load(run), ("demonstrate",))
    shards = [artifact for plan in plans if (artifact := ledger.published(run, plan.unit)) is not None]
    metrics = [artifact.manifest.metrics for artifact in shards]
    tasks = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    tasks.add_column("task", overflow="fold")
    for heading in ("episodes", "success", "mean steps"):
        tasks.add_column(heading, justify="right")
    for task in rundir.load(run).simulator.tasks:
        tasks.add_row(Text(task), *_numbers(metrics, f"/{task}"))
    tasks.add_row("all tasks", *_numbers(metrics, ""), style="bold")
    lines = [Text(f"{'episodes':>10}{'size':>10}   shard")]
    for artifact in shards:
        episodes = f"{artifact.manifest.metrics.get('rollout/episodes', 0):.0f}"
        lines.append(Text(f"{episodes:>10}{size(_bytes(artifact)):>10}   {artifact.path}"))
    lines.append(Text(f"{_numbers(metrics, '')[0]:>10}{size(sum(map(_bytes, shards))):>10}   all shards", style="bold"))
    return Group(tasks, Text(""), *lines)


def _numbers(shards: Sequence[Metrics], of: str) -> tuple[str, str, str]:
    """Episodes kept, share solved of those played and mean steps of those kept, over shards; `of` ends the names."""
    kept = sum(shard.get(f"rollout/episodes{of}", 0.0) for shard in shards)
    success = _mean(shards, f"rollout/success_rate{of}", f"rollout/played{of}")
    steps = _mean(shards, f"rollout/episode_length{of}", f"rollout/episodes{of}")
    return f"{kept:.0f}", percent(success), "" if steps is None else f"{steps:.1f}"


def _mean(shards: Sequence[Metrics], name: str, weight: str) -> float | None:
    """A weighted mean over the shards that tell it; None where none does."""
    told = [(shard[name], shard[weight]) for shard in shards if name in shard and shard.get(weight)]
    return sum(value * times for value, times in told) / sum(times for _, times in told) if told else None


def _bytes(artifact: Artifact) -> int:
    return sum(record.size for record in artifact.manifest.files.values())
