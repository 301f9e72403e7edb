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
FILMED_OF, FILMS = 50, 4  # unless the config says: one of so many episodes of an evaluation, so many at most


def shard_range(total: int, shards: int, shard: int) -> range:
    """The part of `total` things that falls to a shard: contiguous, sizes differing by at most one."""
    return range(shard * total // shards, (shard + 1) * total // shards)


def demonstrations(config: Config, shard: int) -> list[Planned]:
    """Episodes of a demonstration shard; tasks take turns."""
    stage, tasks, video = config.demonstrate, config.simulator.tasks, config.video_cfg
    films = filmed(video.demonstration_episodes * video.save_video, stage.episodes, len(tasks))
    return [
        Planned(
            index=i,
            task=tasks[i % len(tasks)],
            seed=_training_seed(config, "demonstrate", 0, i),
            group=i,
            noise=None,
            film=i in films,
        )
        for i in shard_range(stage.episodes, stage.shards, shard)
    ]


def rollouts(config: Config, epoch: int, shard: int) -> list[Planned]:
    """Episodes of a rollout shard; the episodes of a group share task and initial state and stay in one shard."""
    stage, tasks, video = config.rollout, config.simulator.tasks, config.video_cfg
    groups = stage.episodes // stage.group_size
    films = filmed(video.rollout_episodes * video.save_video, groups, len(tasks))
    return [
        Planned(
            index=group * stage.group_size + member,
            task=tasks[group % len(tasks)],
            seed=_training_seed(config, "rollout", epoch, group),
            group=group,
            noise=stream(config.seed, "noise", epoch, group * stage.group_size + member),
            film=member == 0 and group in films,
        )
        for group in shard_range(groups, stage.shards, shard)
        for member in range(stage.group_size)
    ]


def temperature(config: Config, epoch: int) -> float:
    """How widely the rollouts of an epoch draw, and at which temperature its update judges them; see `Policy.act`."""
    return config.rollout.temperature * config.policy.flow.annealed(epoch)


def evaluations(config: Config) -> list[Planned]:
    """Episodes of an evaluation, the same for every policy version, and so are those that are filmed."""
    stage, tasks, video = config.evaluate, config.simulator.tasks, config.video_cfg
    films = min(FILMS, -(-stage.episodes // FILMED_OF)) if video.episodes is None else video.episodes
    chosen = filmed(films * video.save_video, stage.episodes, len(tasks))
    return [
        Planned(
            index=i,
            task=tasks[i % len(tasks)],
            seed=HELD_OUT + i // len(tasks),
            group=i,
            noise=stream(config.seed, "evaluate", i) if stage.temperature > 0 else None,
            film=i in chosen,
        )
        for i in range(stage.episodes)
    ]


def filmed(films: int, episodes: int, tasks: int) -> set[int]:
    """Which of some episodes are filmed: tasks take turns, and the films of a task lie evenly over its episodes.

    So the simulators and the shards that episodes are spread over share the work of drawing them.

    Args:
        films: how many; of fewer episodes all are filmed.
        episodes: how many there are; episode i is of the task i % tasks.
        tasks: how many there are.

    Returns:
        Their numbers.
    """
    chosen = set()
    for task in range(min(tasks, films, episodes)):
        there = range(task, episodes, tasks)
        wanted = min(len(there), len(range(task, films, tasks)))
        # Later tasks are shifted against earlier ones, so that their films do not all begin with the stage.
        chosen |= {there[int((i + task / tasks) * len(there) / wanted)] for i in range(wanted)}
    return chosen


def _training_seed(config: Config, stage: str, epoch: int, index: int) -> int:
    return int(stream(config.seed, f"initial state of {stage}", epoch, index).integers(HELD_OUT))
