"""Demonstrations: those that the warm start learns from, and the numbers of a shard that `baton demos` shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import IMPORT_NOTE, Unit
from pipeline.errors import UserError
from stages import schedule
from stages.trajectories import Trajectories, concatenate, read
from stages.unit import Work


def gather(work: Work) -> Trajectories:
    """All demonstrations of a run: the scripted expert's, or the imported ones that the config names.

    Args:
        work: the unit that learns from them; each shard is verified and becomes one of its inputs.

    Raises:
        UserError: a shard is missing or damaged, or imported ones are not of the config's sizes or not for training.
    """
    stage = work.config.demonstrate
    if stage.imported is None:
        units = [Unit(0, "demonstrate", shard) for shard in range(stage.shards)]
        return concatenate([read(work.require(unit)) for unit in units])
    shards = [read(path) for path in work.require_imported(stage.imported)]
    if any(source.split != schedule.TRAINING for shard in shards for source in shard.sources):
        raise UserError(
            f"{work.run / 'config.yaml'}: demonstrate.imported={stage.imported} holds episodes from the initial states "
            "that are held out for evaluation: import others into another directory and name that"
        )
    spec, policy, simulator = shards[0].spec, work.config.policy, work.config.simulator
    gripper = json.loads((Path(stage.imported).expanduser() / IMPORT_NOTE).read_bytes()).get("gripper")
    for key, imported, asked in (
        ("simulator.options.gripper", gripper, simulator.options.get("gripper", "robosuite")),
        ("policy.chunk", spec.chunk, policy.chunk),
        ("policy.action_dim", spec.action_dim, policy.action_dim),
        ("simulator.image_size", spec.image_size[0], simulator.image_size),
    ):
        if imported not in (asked, None):
            raise UserError(
                f"{work.run / 'config.yaml'}: {key}={asked}, but the shards in demonstrate.imported={stage.imported} "
                f"were imported with {imported}: set {key}={imported}, or import again into another directory"
            )
    return concatenate(shards)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An episode that the expert played.

    Attributes:
        task: its task.
        success: whether the expert solved it.
        kept: whether it went into the shard.
        decisions: observations in it.
        steps: actions that were carried out.
    """

    task: str
    success: bool
    kept: bool
    decisions: int
    steps: int


def metrics(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Numbers of a shard.

    Args:
        attempts: every episode that was played, at least one of them kept.

    Returns:
        Episodes played, kept and solved and the mean steps of those kept; under `.../TASK` the same for each task, the
        mean only where an episode was kept.
    """
    found = {**_numbers(attempts), "rollout/decisions": float(sum(a.decisions for a in attempts if a.kept))}
    for task in dict.fromkeys(attempt.task for attempt in attempts):
        of_task = [attempt for attempt in attempts if attempt.task == task]
        found |= {f"{name}/{task}": value for name, value in _numbers(of_task).items()}
    return found


def _numbers(attempts: Sequence[Attempt]) -> dict[str, float]:
    kept = [attempt for attempt in attempts if attempt.kept]
    length = {"rollout/episode_length": sum(attempt.steps for attempt in kept) / len(kept)} if kept else {}
    return {
        "rollout/played": float(len(attempts)),
        "rollout/episodes": float(len(kept)),
        "rollout/success_rate": sum(attempt.success for attempt in attempts) / len(attempts),
        **length,
    }
