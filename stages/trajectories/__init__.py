"""Trajectories: the zarr shard that carries whole episodes from a rollout to an update or to the warm start."""

from stages.trajectories.reader import read
from stages.trajectories.schema import (
    NO_GROUP,
    EpisodeRecord,
    InconsistentEpisode,
    Kind,
    ShardAttributes,
    ShardSpec,
)
from stages.trajectories.trajectories import Episodes, Trajectories, concatenate
from stages.trajectories.writer import ShardWriter

__all__ = [
    "NO_GROUP",
    "EpisodeRecord",
    "Episodes",
    "InconsistentEpisode",
    "Kind",
    "ShardAttributes",
    "ShardSpec",
    "ShardWriter",
    "Trajectories",
    "concatenate",
    "read",
]
