"""The course of a run: one number an epoch for each metric, which is what people look at first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pipeline.shards import expected, pooled
from pipeline.tracking.record import RunRecord
from pipeline.tracking.units import PEAKS, Point, UnitRecord

STAGES = ("demonstrate", "sft", "rollout", "update", "evaluate")
SUCCESS = "env/success_rate"


def course(record: RunRecord, epochs: Iterable[int]) -> list[Point]:
    """What a run's parent shows of some epochs.

    Args:
        record: the run.
        epochs: which ones.
    """
    return [point for epoch in sorted(set(epochs)) for stage in STAGES for point in stage_points(record, epoch, stage)]


def completed(record: RunRecord) -> list[tuple[int, str]]:
    """(epoch, stage) of which all shards are there, in the order in which they came to be."""
    whole = [
        (max(unit.published for unit in units), epoch, stage)
        for (epoch, stage), units in record.by_stage.items()
        if len(units) >= expected(record.config, stage)
    ]
    return [(epoch, stage) for _, epoch, stage in sorted(whole)]


def stage_points(record: RunRecord, epoch: int, stage: str) -> Iterator[Point]:
    """What a stage adds to the course of a run, once all its shards are there.

    Numbers are means over shards weighted by episodes, episodes and seconds are sums. Success of the evaluation is
    `env/success_rate`; of the other names that evaluation and rollout share, the rollout's stand. The scripted expert's
    numbers say nothing of a policy and are left out. `time/<stage>` is its work in seconds, `time/<stage>/<phase>` a
    part of it and `time/queue/<stage>` the longest wait; `system/<metric>/<stage>` is the highest peak of memory, else
    a mean over shards; `system/gpu_hours` went into the policy of the epoch, from demonstrations to update.

    Args:
        record: the run.
        epoch: of the stage.
        stage: its name.
    """
    shards = record.by_stage.get((epoch, stage), [])
    if not shards or len(shards) < expected(record.config, stage):
        return
    time = max(shard.published for shard in shards)
    numbers = {f"time/{stage}": sum(shard.seconds for shard in shards)}
    for phase in sorted({phase for shard in shards for phase in shard.artifact.manifest.seconds} - {"total"}):
        numbers[f"time/{stage}/{phase}"] = sum(shard.artifact.manifest.seconds.get(phase, 0.0) for shard in shards)
    waits = [shard.queued for shard in shards if shard.queued is not None]
    if waits:
        numbers[f"time/queue/{stage}"] = max(waits)
    for name in sorted({name for shard in shards for name in shard.usage}):
        values = [shard.usage[name] for shard in shards if name in shard.usage]
        numbers[f"{name}/{stage}"] = max(values) if name in PEAKS else sum(values) / len(values)
    if stage in ("sft", "update") and record.policy_gpu_hours[epoch]:
        numbers["system/gpu_hours"] = record.policy_gpu_hours[epoch]
    if stage != "demonstrate":
        taken = _names(record.by_stage.get((epoch, "rollout"), [])) if stage == "evaluate" else set[str]()
        for name, value in pooled([shard.artifact.manifest.metrics for shard in shards]).items():
            wanted = stage == "evaluate" if name.startswith(SUCCESS) else name not in taken
            if wanted:
                numbers[name] = value
    for name, value in numbers.items():
        yield Point(name, value, time, epoch)


def _names(shards: Collection[UnitRecord]) -> set[str]:
    return {name for shard in shards for name in shard.artifact.manifest.metrics}
