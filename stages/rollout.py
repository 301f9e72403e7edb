"""Generate episodes into a zarr shard: of the policy under training, or of the scripted expert in epoch 0.

    python -m stages.rollout runs/quickstart --epoch 0 --shard 1     # demonstrations
    python -m stages.rollout runs/quickstart --epoch 3 --shard 1     # the policy of version 2

Epoch e acts with policy version e - 1 - staleness. A retried shard is the same shard: seeds decide everything in it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from pipeline.errors import UserError
from stages import demonstrations, schedule
from stages.door import run_stage
from stages.expert_actor import ExpertActor, windows
from stages.lineup import Planned
from stages.play import LOG, Played, Player, Shoot, in_order, logged
from stages.simulation import open_pool
from stages.simulators.interface import SimulatorSpec
from stages.simulators.pool import SimulatorPool
from stages.trajectories import EpisodeRecord, Kind, ShardAttributes, ShardSpec, ShardWriter
from stages.unit import Work, prepare_torch
from stages.video.filming import filming


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
        from stages.policy_actor import PolicyActor

        policy = policies.load(work.policy(version), device, config.policy.precision).eval()
        if config.policy.compile:
            policy.accelerate()
    plan = schedule.rollouts(config, work.unit.epoch, shard_of(work))
    limit = stage.max_episode_steps or config.simulator.max_episode_steps
    with open_pool(work, stage, max_episode_steps=limit) as pool, filming(work, pool.spec) as films:
        actor = PolicyActor(
            pool,
            policy,
            temperature=schedule.temperature(config, work.unit.epoch),
            coherent=stage.noise == "chunk",
            phases=work.phases,
        )
        player = Player(pool, actor, groups=stage.pipeline_stage_num, phases=work.phases, shoot=films.shoot)
        spec = shard_spec(work, pool.spec, "chain" if policy.chain_shape else "tokens", policy.chain_shape)
        with ShardWriter(work.scratch("rollout"), spec, attributes(work, pool.spec, version)) as writer:
            done, solved = list[Played](), 0
            for played in in_order(plan, logged(work.directory / LOG, player.play(plan))):
                with work.phases("write"):
                    writer.append(record(played))
                played.forget_images()
                done.append(played)
                solved += played.success
                work.tell(len(done), len(plan), {"rollout/success_rate": solved / len(done)})
            with work.phases("write"):
                writer.close()
    work.summary |= rollout_metrics(done)


def record(played: Played) -> EpisodeRecord:
    """An episode as the shard takes it."""
    return EpisodeRecord(
        task=played.planned.task,
        seed=played.planned.seed,
        group=played.planned.group,
        success=played.success,
        terminated=played.terminated,
        truncated=played.truncated,
        bootstrap_value=played.bootstrap_value,
        head=played.head,
        wrist=played.wrist,
        proprio=played.proprio,
        rewards=played.rewards,
        executed=played.executed,
        **played.acted,
    )


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
    with (
        open_pool(work, stage, expert_perturbation=stage.perturbation, max_episode_steps=limit) as pool,
        filming(work, pool.spec) as films,
    ):
        spec = shard_spec(work, pool.spec, "demonstration")
        attempts, solved = list[demonstrations.Attempt](), 0
        with ShardWriter(work.scratch("demonstrate"), spec, attributes(work, pool.spec, None)) as writer:
            for played in expert_episodes(work, pool, plan, films.shoot):
                kept = played.success or not stage.only_success
                if kept:
                    with work.phases("write"):
                        writer.append(played)
                steps = int(played.executed[:, : stage.stride].sum())  # windows overlap behind that
                attempts.append(demonstrations.Attempt(played.task, played.success, kept, len(played.executed), steps))
                solved += played.success
                work.tell(len(attempts), len(plan), {"rollout/success_rate": solved / len(attempts)})
            if not any(attempt.kept for attempt in attempts):
                raise UserError(
                    f"{work.unit}: the expert solved none of {len(plan)} episodes; make the task easier in "
                    f"simulator.options or lower demonstrate.perturbation={stage.perturbation}"
                )
            with work.phases("write"):
                writer.close()
    work.summary |= demonstrations.metrics(attempts)


def expert_episodes(work: Work, pool: SimulatorPool, plan: list[Planned], shoot: Shoot) -> Iterator[EpisodeRecord]:
    """Let the expert play the plan; episodes come in its order."""
    actor = ExpertActor(pool, work.config.demonstrate.stride)
    player = Player(pool, actor, groups=min(2, pool.num_envs), phases=work.phases, shoot=shoot)
    for played in in_order(plan, logged(work.directory / LOG, player.play(plan))):
        yield windows(played, work.config.policy.chunk)


# ----------------------------------------------------------------------------------------------------------------------
# What both write


def shard_of(work: Work) -> int:
    """Index of the unit's shard."""
    assert work.unit.shard is not None, "rollouts and demonstrations are sharded"
    return work.unit.shard


def shard_spec(
    work: Work, simulator: SimulatorSpec, kind: Kind, chain_shape: tuple[int, int, int] | None = None
) -> ShardSpec:
    """Sizes of the shard's arrays; `chain_shape` is a flow policy's."""
    policy = work.config.policy
    if simulator.action_dim != policy.action_dim:
        raise UserError(
            f"{work.run / 'config.yaml'}: policy.action_dim={policy.action_dim}, but {simulator.name} takes "
            f"{simulator.action_dim} numbers: set policy.action_dim={simulator.action_dim}"
        )
    return ShardSpec(
        kind=kind,
        image_size=simulator.image_size,
        proprio_dim=simulator.proprio_dim,
        chunk=policy.chunk,
        action_dim=policy.action_dim,
        chain_shape=chain_shape,
        wrist_cameras=simulator.wrist_cameras,
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
        split=schedule.TRAINING,
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
        "rollout/decisions": float(sum(p.decisions for p in played)),
        "rollout/value_mean": float(np.concatenate([p.acted["values"] for p in played]).mean()),
        "env/step_reward": float(rewards.sum() / steps.sum()),
        "env/termination_rate": float(sum(p.terminated for p in played) / steps.sum()),
    }
    for task in dict.fromkeys(p.planned.task for p in played):
        metrics[f"rollout/success_rate/{task}"] = success_rate([p for p in played if p.planned.task == task])
    return metrics


if __name__ == "__main__":
    sys.exit(main())
