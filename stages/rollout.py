"""Generate episodes into a zarr shard: of the policy under training, or of the scripted expert in epoch 0.

    python -m stages.rollout runs/quickstart --epoch 0 --shard 1     # demonstrations
    python -m stages.rollout runs/quickstart --epoch 3 --shard 1     # the policy of version 2

Epoch e acts with policy version e - 1 - staleness. A retried shard is the same shard: seeds decide everything in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.errors import UserError
from stages import schedule
from stages.door import run_stage
from stages.play import Planned, Played, Player
from stages.simulation import open_pool
from stages.simulators.interface import Episode, SimulatorSpec
from stages.simulators.pool import SimulatorPool
from stages.trajectories import EpisodeRecord, ShardAttributes, ShardSpec, ShardWriter
from stages.unit import Work, prepare_torch


def main() -> int:
    """Carry out the units that the command line names."""
    return run_stage("rollout", lambda work: demonstrate(work) if work.unit.epoch == 0 else rollout(work))


# ----------------------------------------------------------------------------------------------------------------------
# The policy under training


def rollout(work: Work) -> None:
    """Play the shard's episodes with the policy and store them in the order of the plan."""
    config, stage = work.config, work.config.rollout
    version = max(work.unit.epoch - 1 - stage.staleness, 0)
    with work.phases("load"):
        device = prepare_torch(stage.threads)
        from stages.policies import interface as policies

        policy = policies.load(work.policy(version), device, config.policy.precision).eval()
    plan = schedule.rollouts(config, work.unit.epoch, shard_of(work))
    with open_pool(work, stage) as pool:
        instructions = {task.name: task.instruction for task in pool.spec.tasks}
        player = Player(
            pool,
            policy,
            instructions,
            groups=stage.pipeline_stage_num,
            temperature=stage.temperature,
            coherent=stage.noise == "chunk",
            phases=work.phases,
        )
        spec = shard_spec(work, pool.spec, "tokens")
        with ShardWriter(work.scratch("rollout"), spec, attributes(work, pool.spec, version)) as writer:
            done: list[Played] = []
            for played in in_order(plan, player.play(plan)):
                with work.phases("write"):
                    writer.append(record(played))
                done.append(slim(played))
                work.progress(len(done), len(plan), {"rollout/success_rate": success_rate(done)})
            with work.phases("write"):
                writer.close()
    work.summary |= rollout_metrics(done)
    work.metrics.log(work.unit.epoch, work.summary)


def record(played: Played) -> EpisodeRecord:
    """An episode as the shard takes it."""
    return EpisodeRecord(
        task=played.planned.task,
        seed=played.planned.seed,
        group=played.planned.group,
        success=played.success,
        terminated=played.terminated,
        truncated=played.truncated and not played.terminated,
        bootstrap_value=played.bootstrap_value,
        head=played.head,
        wrist=played.wrist,
        proprio=played.proprio,
        actions=played.actions,
        rewards=played.rewards,
        executed=played.executed,
        tokens=played.tokens,
        log_probs=played.log_probs,
        values=played.values,
    )


def slim(played: Played) -> Played:
    """The episode without its images, for the metrics."""
    empty = np.zeros(0, np.uint8)
    played.head, played.wrist = empty, empty
    return played


def in_order(plan: list[Planned], episodes: Iterable[Played]) -> Iterator[Played]:
    """Hold back episodes that ended early until all before them in the plan have ended."""
    early: dict[int, Played] = {}
    position = 0
    for played in episodes:
        early[played.planned.index] = played
        while position < len(plan) and plan[position].index in early:
            yield early.pop(plan[position].index)
            position += 1


# ----------------------------------------------------------------------------------------------------------------------
# The scripted expert


def demonstrate(work: Work) -> None:
    """Let the expert play the shard's episodes; keep what is seen every `stride` steps and the actions that follow."""
    config, stage = work.config, work.config.demonstrate
    plan = schedule.demonstrations(config, shard_of(work))
    if config.policy.chunk < stage.stride:
        raise UserError(
            f"{work.run / 'config.yaml'}: demonstrate.stride={stage.stride} is more than "
            f"policy.chunk={config.policy.chunk}, and actions between two observations would be lost; "
            f"set it to {config.policy.chunk} or less"
        )
    limit = stage.max_episode_steps or config.simulator.max_episode_steps
    with open_pool(work, stage, expert_perturbation=stage.perturbation, max_episode_steps=limit) as pool:
        spec = shard_spec(work, pool.spec, "demonstration")
        failures = kept = 0
        with ShardWriter(work.scratch("demonstrate"), spec, attributes(work, pool.spec, None)) as writer:
            for done, demonstration in enumerate(expert_episodes(work, pool, plan), start=1):
                failures += not demonstration.success
                if demonstration.success or not stage.only_success:
                    with work.phases("write"):
                        writer.append(demonstration)
                    kept += 1
                work.progress(done, len(plan), {"rollout/success_rate": 1 - failures / done})
            if not kept:
                raise UserError(
                    f"{work.unit}: the expert solved none of {len(plan)} episodes; make the task easier in "
                    f"simulator.options or lower demonstrate.perturbation={stage.perturbation}"
                )
            with work.phases("write"):
                trajectories = writer.close()
    lengths = trajectories.episodes.length * stage.stride
    work.summary |= {
        "rollout/success_rate": 1 - failures / len(plan),
        "rollout/episodes": float(kept),
        "rollout/decisions": float(len(trajectories)),
        "rollout/episode_length": float(lengths.mean()),
    }
    work.metrics.log(0, work.summary)


def expert_episodes(work: Work, pool: SimulatorPool, plan: list[Planned]) -> Iterator[EpisodeRecord]:
    """Play the plan in waves of as many episodes as there are environments; episodes come in the plan's order."""
    stride, chunk = work.config.demonstrate.stride, work.config.policy.chunk
    for begin in range(0, len(plan), pool.num_envs):
        wave = plan[begin : begin + pool.num_envs]
        slots = list(range(len(wave)))
        parts: list[list[dict[str, np.ndarray]]] = [[] for _ in wave]
        ends: dict[int, tuple[bool, bool]] = {}
        with work.phases("simulate"):
            seen = pool.reset(slots, [Episode(p.task, p.seed) for p in wave])
            while slots:
                acted = pool.expert(slots, stride)
                result = acted.result
                for row, slot in enumerate(slots):
                    parts[slot].append(
                        {
                            "head": seen.head[row],
                            "wrist": seen.wrist[row],
                            "proprio": seen.proprio[row],
                            "actions": acted.actions[row],
                            "clean": acted.clean[row],
                            "rewards": result.rewards[row],
                            "executed": result.executed[row],
                        }
                    )
                over = result.terminated | result.truncated
                for row in np.flatnonzero(over).tolist():
                    ends[slots[row]] = bool(result.success[row]), bool(result.terminated[row])
                going = np.flatnonzero(~over)
                slots = [slots[row] for row in going.tolist()]
                seen = type(seen)(*(getattr(acted.observation, name)[going] for name in ("head", "wrist", "proprio")))
        for slot, planned in enumerate(wave):
            yield windows(planned, parts[slot], *ends[slot], chunk)


def windows(
    planned: Planned, parts: list[dict[str, np.ndarray]], success: bool, terminated: bool, chunk: int
) -> EpisodeRecord:
    """Turn pieces of `stride` steps into decisions of `chunk` actions, which overlap where the chunk is longer.

    Args:
        planned: what was played.
        parts: the pieces in order, each an observation and the steps after it.
        success: how the episode ended.
        terminated: how the episode ended.
        chunk: K.

    Returns:
        The episode. A reward stands in the first window that holds its step; past the end nothing is executed.
    """
    stride = len(parts[0]["executed"])
    steps = {name: np.concatenate([part[name] for part in parts]) for name in ("actions", "clean", "executed")}
    index = np.arange(len(parts))[:, None] * stride + np.arange(chunk)[None]
    inside = index < len(steps["executed"])
    index = np.minimum(index, len(steps["executed"]) - 1)
    executed = steps["executed"][index] & inside
    # An action after a burst corrects what this observation cannot show: nothing behind the first burst is imitated.
    clean = np.logical_and.accumulate(steps["clean"][index] | ~executed, axis=1)
    rewards = np.zeros(executed.shape, np.float32)
    rewards[:, :stride] = np.stack([part["rewards"] for part in parts])
    return EpisodeRecord(
        task=planned.task,
        seed=planned.seed,
        group=planned.group,
        success=success,
        terminated=terminated,
        truncated=not terminated,
        head=np.stack([part["head"] for part in parts]),
        wrist=np.stack([part["wrist"] for part in parts]),
        proprio=np.stack([part["proprio"] for part in parts]),
        actions=steps["actions"][index],
        rewards=rewards,
        executed=executed,
        clean=clean,
    )


# ----------------------------------------------------------------------------------------------------------------------
# What both write


def shard_of(work: Work) -> int:
    """Index of the unit's shard."""
    assert work.unit.shard is not None, "rollouts and demonstrations are sharded"
    return work.unit.shard


def shard_spec(work: Work, simulator: SimulatorSpec, kind: str) -> ShardSpec:
    """Sizes of the shard's arrays."""
    policy = work.config.policy
    if simulator.action_dim != policy.action_dim:
        raise UserError(
            f"{work.run / 'config.yaml'}: policy.action_dim={policy.action_dim}, but {simulator.name} takes "
            f"{simulator.action_dim} numbers: set policy.action_dim={simulator.action_dim}"
        )
    return ShardSpec(
        kind="tokens" if kind == "tokens" else "demonstration",
        image_size=simulator.image_size,
        proprio_dim=simulator.proprio_dim,
        chunk=policy.chunk,
        action_dim=policy.action_dim,
    )


def attributes(work: Work, simulator: SimulatorSpec, version: int | None) -> ShardAttributes:
    """Where the shard comes from."""
    return ShardAttributes(
        run=work.config.name,
        epoch=work.unit.epoch,
        shard=shard_of(work),
        policy_version=version,
        simulator=simulator.name,
        simulator_version=simulator.version,
        renderer=simulator.renderer,
        tasks=tuple(task.name for task in simulator.tasks),
        instructions=tuple(task.instruction for task in simulator.tasks),
        split="train",
    )


def success_rate(played: list[Played]) -> float:
    """Share of successful episodes."""
    return sum(p.success for p in played) / len(played)


def rollout_metrics(played: list[Played]) -> dict[str, float]:
    """Summary of a shard's episodes, overall and by task."""
    rewards = np.array([p.reward for p in played])
    steps = np.array([p.steps for p in played])
    metrics = {
        "rollout/success_rate": success_rate(played),
        "rollout/reward_mean": float(rewards.mean()),
        "rollout/reward_std": float(rewards.std()),
        "rollout/episode_length": float(steps.mean()),
        "rollout/episodes": float(len(played)),
        "rollout/decisions": float(sum(len(p.values) for p in played)),
        "rollout/value_mean": float(np.concatenate([p.values for p in played]).mean()),
        "env/step_reward": float(rewards.sum() / steps.sum()),
        "env/termination_rate": float(sum(p.terminated for p in played) / steps.sum()),
    }
    for task in dict.fromkeys(p.planned.task for p in played):
        metrics[f"rollout/success_rate/{task}"] = success_rate([p for p in played if p.planned.task == task])
    return metrics


if __name__ == "__main__":
    sys.exit(main())
