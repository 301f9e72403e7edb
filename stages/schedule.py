"""Which episodes a stage plays: tasks, initial states and random streams.

Seeds of initial states below `HELD_OUT` are for training, those from it on for evaluation, so the two never meet. The
held-out states are the same for every run, which makes runs comparable.
"""

from __future__ import annotations

from pipeline.config import Config
from stages.lineup import Planned
from stages.simulators.interface import HELD_OUT, split_of
from stages.unit import stream

TRAINING, EVALUATION = split_of(0), split_of(HELD_OUT)


def shard_range(total: int, shards: int, shard: int) -> range:
    """The part of `total` things that falls to a shard: contiguous, sizes differing by at most one."""
    return range(shard * total // shards, (shard + 1) * total // shards)


def demonstrations(config: Config, shard: int) -> list[Planned]:
    """Episodes of a demonstration shard; tasks take turns."""
    stage, tasks = config.demonstrate, config.simulator.tasks
    return [
        Planned(
            index=i, task=tasks[i % len(tasks)], seed=_training_seed(config, "demonstrate", 0, i), group=i, noise=None
        )
        for i in shard_range(stage.episodes, stage.shards, shard)
    ]


def rollouts(config: Config, epoch: int, shard: int) -> list[Planned]:
    """Episodes of a rollout shard; the episodes of a group share task and initial state and stay in one shard."""
    stage, tasks = config.rollout, config.simulator.tasks
    groups = stage.episodes // stage.group_size
    return [
        Planned(
            index=group * stage.group_size + member,
            task=tasks[group % len(tasks)],
            seed=_training_seed(config, "rollout", epoch, group),
            group=group,
            noise=stream(config.seed, "noise", epoch, group * stage.group_size + member),
        )
        for group in shard_range(groups, stage.shards, shard)
        for member in range(stage.group_size)
    ]


def evaluations(config: Config) -> list[Planned]:
    """Episodes of an evaluation, the same for every policy version; the first of each task in turn are filmed."""
    stage, tasks, video = config.evaluate, config.simulator.tasks, config.video_cfg
    films = video.episodes if video.save_video else 0
    return [
        Planned(
            index=i,
            task=tasks[i % len(tasks)],
            seed=HELD_OUT + i // len(tasks),
            group=i,
            noise=stream(config.seed, "evaluate", i) if stage.temperature > 0 else None,
            film=i < films,
        )
        for i in range(stage.episodes)
    ]


def _training_seed(config: Config, stage: str, epoch: int, index: int) -> int:
    return int(stream(config.seed, f"initial state of {stage}", epoch, index).integers(HELD_OUT))
