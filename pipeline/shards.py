"""The shards of a stage in an epoch, taken together: how many there are, and what they measured as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config import Config

EPISODES = "rollout/episodes"


def expected(config: Config, stage: str) -> int:
    """How many artifacts a stage publishes in an epoch.

    Args:
        config: of the run.
        stage: its name.
    """
    return {"demonstrate": config.demonstrate.shards, "rollout": config.rollout.shards}.get(stage, 1)


def pooled(shards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What a stage measured in an epoch: means over its shards weighted by their episodes; episodes are added up.

    A metric is pooled over those shards that have it. Where one of them does not say how many episodes it has, all
    count the same: a run deals its episodes out evenly.

    Args:
        shards: the summary of each, as its manifest has it.

    Returns:
        Name -> number; without those measured over no episodes at all.
    """
    if len(shards) == 1:
        return dict(shards[0])
    weighted = all(EPISODES in shard for shard in shards)
    weights = [shard[EPISODES] if weighted else 1.0 for shard in shards]
    numbers: dict[str, float] = {}
    for name in dict.fromkeys(name for shard in shards for name in shard):
        there = [(weight, shard[name]) for weight, shard in zip(weights, shards, strict=True) if name in shard]
        if name == EPISODES:
            numbers[name] = sum(value for _, value in there)
        elif total := sum(weight for weight, _ in there):
            numbers[name] = sum(weight * value for weight, value in there) / total
    return numbers
