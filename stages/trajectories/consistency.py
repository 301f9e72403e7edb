"""What must hold of the numbers of a shard, whoever writes or reads it.

Shapes: D decisions, E episodes, K actions a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stages.simulators.interface import split_of
from stages.trajectories.schema import (
    EPISODE_ARRAYS,
    NO_GROUP,
    OPTIONAL_FIELDS,
    EpisodeRecord,
    InconsistentEpisode,
    ShardAttributes,
    ShardSpec,
)


def check_record(record: EpisodeRecord, spec: ShardSpec) -> None:
    """Refuse an episode that does not fit a shard, or that no shard may hold.

    Args:
        record: the episode.
        spec: of the shard.

    Raises:
        InconsistentEpisode: an array is missing, surplus, of another type or shape, or holds what it may not.
    """
    layouts = spec.decision_arrays()
    for field in OPTIONAL_FIELDS:
        if getattr(record, field) is not None and field not in layouts:
            raise InconsistentEpisode(f"{field}: a shard of kind {spec.kind!r} has none; leave it out of the episode")
    arrays = {}
    if spec.wrist_cameras == 0 and record.wrist.size:
        raise InconsistentEpisode(
            f"observations/wrist: the shard is of a robot without wrist cameras, got {list(record.wrist.shape)}"
        )
    for field, layout in layouts.items():
        array = getattr(record, field)
        expected = (len(record), *layout.shape)
        if not isinstance(array, np.ndarray) or array.dtype != layout.dtype or array.shape != expected:
            given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InconsistentEpisode(f"{layout.path}: expected {layout.dtype} {list(expected)}, got {given}")
        arrays[field] = array
    if len(record) == 0:
        raise InconsistentEpisode("executed: the episode has no decision; leave it out")
    if not (record.terminated or record.truncated):
        raise InconsistentEpisode("episodes/truncated: it neither terminated nor was truncated; store whole episodes")
    if not np.isfinite(record.bootstrap_value):
        raise InconsistentEpisode(f"episodes/bootstrap_value: {record.bootstrap_value} is not finite")
    if not -(2**63) <= record.seed < 2**63:
        raise InconsistentEpisode(f"episodes/seed: {record.seed} does not fit 64 bits")
    check_decisions(arrays, spec)


def check_decisions(arrays: Mapping[str, np.ndarray], spec: ShardSpec) -> None:
    """Refuse numbers that are not finite and steps that cannot have happened.

    Args:
        arrays: field -> rows of decisions; images are not looked at, and may be left out.
        spec: of the shard.

    Raises:
        InconsistentEpisode: naming the array and its first bad decision.
    """
    for field, layout in spec.decision_arrays().items():
        if layout.dtype == "float32":
            _refuse(~np.isfinite(arrays[field]), layout.path, "is not finite")
    executed = arrays["executed"]
    _refuse(~executed[:, :1], "executed", "is a decision of which no action was executed")
    _refuse(executed[:, 1:] & ~executed[:, :-1], "executed", "executes an action behind one that was not")
    _refuse((arrays["rewards"] != 0) & ~executed, "rewards", "rewards an action that was not executed")
    if spec.chain_shape is not None:
        _refuse(arrays["step"] < 0, "actions/step", "is not a denoising step")


def check_episodes(episodes: Mapping[str, np.ndarray], rewards: np.ndarray, attributes: ShardAttributes) -> None:
    """Refuse episodes that do not lie end to end over the decisions, or contradict them, each other or the shard.

    Args:
        episodes: field -> [E].
        rewards: float32 [D, K].
        attributes: of the shard.

    Raises:
        InconsistentEpisode: naming the array and its first bad episode.
    """
    start, length = episodes["start"], episodes["length"]
    _refuse(length < 1, "episodes/length", "has no decision", "episode")
    ends = np.cumsum(length)
    _refuse(start != ends - length, "episodes/start", "does not begin where the one before it ends", "episode")
    if ends[-1] != len(rewards):
        raise InconsistentEpisode(f"episodes/length: the episodes hold {ends[-1]} decisions, the arrays {len(rewards)}")
    nameless = (episodes["task"] < 0) | (episodes["task"] >= len(attributes.tasks))
    _refuse(nameless, "episodes/task", "has a task without a name", "episode")
    foreign = np.array([split_of(seed) != attributes.split for seed in episodes["seed"].tolist()])
    _refuse(foreign, "episodes/seed", f"starts from a state that is not of the split {attributes.split!r}", "episode")
    _refuse(~(episodes["terminated"] | episodes["truncated"]), "episodes/truncated", "is not whole", "episode")
    for field, layout in EPISODE_ARRAYS.items():
        if layout.dtype == "float32":
            _refuse(~np.isfinite(episodes[field]), layout.path, "is not finite", "episode")
    total = np.add.reduceat(rewards.sum(1, dtype=np.float64), start)
    differs = ~np.isclose(episodes["total_reward"], total, rtol=1e-4, atol=1e-4)
    _refuse(differs, "episodes/return", "is not the sum of its rewards", "episode")
    check_groups(episodes)


def check_groups(episodes: Mapping[str, np.ndarray]) -> None:
    """Refuse a group whose episodes do not start from one state.

    Args:
        episodes: field -> [E].

    Raises:
        InconsistentEpisode: naming the first episode that differs from its group.
    """
    group = episodes["group"]
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    leader = first[member]
    for field in ("task", "seed"):
        differs = (group != NO_GROUP) & (episodes[field] != episodes[field][leader])
        _refuse(differs, "episodes/group", f"has another {field} than the first one of its group", "episode")


def _refuse(bad: np.ndarray, path: str, what: str, axis: str = "decision") -> None:
    if bad.any():
        raise InconsistentEpisode(f"{path}: {axis} {int(np.argwhere(bad)[0][0])} {what}")
