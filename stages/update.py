"""Update the policy on an epoch's rollouts: PPO or GRPO under DeepSpeed, policy version e from version e - 1.

    python -m stages.update runs/quickstart --epoch 3

Reads every shard of the epoch, computes advantages over whole episodes, and goes through the decisions
`update.passes` times in shuffled minibatches. Optimizer state comes from the last update and goes on to the next.
"""

from __future__ import annotations

import dataclasses
import functools
import sys

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import Unit
from pipeline.config import Algorithm, Config
from pipeline.errors import UserError
from stages.door import run_ranked_stage
from stages.objectives.advantages import normalise
from stages.objectives.episodes import Episodes, episode_gae, episode_grpo
from stages.objectives.losses import actor_loss, critic_loss, decoupled_actor_loss, explained_variance, kl_penalty
from stages.objectives.reductions import masked_mean
from stages.policies import interface as policies
from stages.policies.interface import Observation, Policy
from stages.training.engine import Engine
from stages.training.ranks import Rank, mean_over_ranks
from stages.trajectories import Trajectories, concatenate, read
from stages.unit import Work, stream


def main() -> int:
    """Carry out the units that the command line names."""
    return run_ranked_stage("update", update)


def update(work: Work, rank: Rank, device: torch.device) -> None:
    """Train on the epoch's rollouts and write the policy and the optimizer's state."""
    config, stage, epoch = work.config, work.config.update, work.unit.epoch
    with work.phases("load"):
        with work.phases("read shards"):
            shards = [work.require(Unit(epoch, "rollout", s)) for s in range(config.rollout.shards)]
            rollouts = concatenate([read(path) for path in shards])
        policy = policies.load(work.policy(epoch - 1), device, config.policy.precision)
        reference = policies.load(work.policy(0), device, config.policy.precision) if config.algorithm.kl_coef else None
    with work.phases("advantages"):
        mine = np.arange(rank.index, len(rollouts), rank.size)
        targets = prepare(config.algorithm, rollouts)[mine].to(device)
        with work.phases("read shards"):
            seen = observe(rollouts, mine).to(device)
    with work.phases("initialise"):
        value_only = epoch <= stage.value_only_epochs
        if value_only:
            policy.requires_grad_(False)
            policy.value_head.requires_grad_(True)
        engine = Engine(
            policy,
            stage.optimizer,
            device=device,
            zero_stage=config.deepspeed.zero_stage,
            precision=config.policy.precision,
            recompute=stage.recompute,
            compiled=config.policy.compile,
        )
        if epoch not in (1, stage.value_only_epochs + 1):  # the value head's own optimizer is not the whole policy's
            engine.load(work.require(Unit(epoch - 1, "update"), "engine"))
        policy_share = 0.0 if value_only else min(1.0, epoch / (stage.lr_warmup_epochs + 1))
        engine.set_lr(policy_share, value=1.0)
        proximal = log_probs_of(engine, seen, targets, config) if config.rollout.staleness else None
        anchors = log_probs_of(reference, seen, targets, config) if reference is not None else None
    logged: list[dict[str, float]] = []
    with work.phases("train"):
        minibatches = plan_minibatches(config, epoch, rank, len(mine), len(rollouts))
        for step, rows in enumerate(minibatches):
            pieces = np.array_split(rows, -(-len(rows) // (stage.micro_batch or len(rows))))
            for piece in pieces:
                part = targets[piece]
                evaluation = engine("evaluate_actions", seen[piece], part.taken, temperature=config.rollout.temperature)
                loss, metrics = losses(
                    config.algorithm,
                    part,
                    evaluation,
                    policy.steered.to(device),
                    None if proximal is None else proximal[piece],
                    None if anchors is None else anchors[piece],
                )
                engine.backward(loss * (len(piece) / len(rows)), last=piece is pieces[-1])
            logged.append(mean_over_ranks(metrics | {"actor/grad_norm": engine.step()}, device))
            if rank.first:
                work.metrics.log(step, logged[-1])
                work.progress(step + 1, len(minibatches), logged[-1])
    with work.phases("save"):
        state = engine.consolidated_state_dict()
        engine.save(work.scratch("engine"))
        if rank.first:
            policy.save(work.scratch("policy"), state)
        engine.close()
    work.summary |= {name: float(np.mean([one[name] for one in logged])) for name in logged[0]}
    work.summary["actor/lr"] = stage.optimizer.lr * policy_share
    work.summary["actor/ratio_max"] = max(one["actor/ratio_max"] for one in logged)
    work.summary["actor/explained_variance"] = float(explained_variance(targets.values, targets.returns))
    work.summary["actor/decisions"] = float(len(rollouts))


@dataclasses.dataclass(frozen=True)
class Targets:
    """What the objective needs to know of decisions, D of them.

    Attributes:
        taken: tokens [D, K, A].
        log_probs: of the policy that acted, [D, K, A].
        values: of the policy that acted, [D].
        advantages: [D].
        returns: [D].
        mask: bool [D, K], steps that count.
    """

    taken: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor

    def __getitem__(self, rows: np.ndarray) -> Targets:
        """Some decisions."""
        index = torch.from_numpy(rows).to(self.values.device)
        return Targets(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def to(self, device: torch.device) -> Targets:
        """The same decisions on another device."""
        return Targets(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def observe(rollouts: Trajectories, decisions: np.ndarray) -> Observation:
    """What was seen at some decisions; their images are read from the shards."""
    head, wrist = rollouts.images(decisions)
    return Observation.from_arrays(head, wrist, rollouts.proprio[decisions], rollouts.instructions_of(decisions))


def prepare(algorithm: Algorithm, rollouts: Trajectories) -> Targets:
    """Compute advantages and returns over whole episodes.

    Args:
        algorithm: the objective.
        rollouts: all shards of the epoch, D decisions.

    Returns:
        The epoch's decisions.

    Raises:
        UserError: the shards hold no tokens, or nothing in them tells better from worse.
    """
    if rollouts.tokens is None or rollouts.log_probs is None or rollouts.values is None:
        raise UserError("the rollout shards hold no action tokens: they were not made by a policy over tokens")
    rewards, executed = torch.from_numpy(rollouts.rewards), torch.from_numpy(rollouts.executed)
    values = torch.from_numpy(rollouts.values)
    ends = rollouts.episodes
    episodes = Episodes(
        *(torch.from_numpy(a) for a in (ends.start, ends.length, ends.terminated, ends.truncated, ends.bootstrap_value))
    )
    mask = executed
    if algorithm.name == "ppo":
        advantages, returns = episode_gae(
            rewards, executed, values, episodes, gamma=algorithm.gamma, lam=algorithm.gae_lambda
        )
        if algorithm.normalize_advantages:
            advantages = normalise(advantages)
    else:
        lower, upper = algorithm.filter_groups or (None, None)
        groups = torch.from_numpy(ends.group)
        advantages, kept = episode_grpo(rewards, executed, episodes, groups, lower=lower, upper=upper)
        returns = torch.zeros_like(values)
        mask = executed & kept[:, None]
    return Targets(
        torch.from_numpy(rollouts.tokens.astype(np.int64)),
        torch.from_numpy(rollouts.log_probs),
        values,
        advantages,
        returns,
        mask,
    )


def losses(
    algorithm: Algorithm,
    part: Targets,
    evaluation: policies.Evaluation,
    steered: Tensor,
    proximal: Tensor | None,
    anchors: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective on one minibatch.

    Args:
        algorithm: the objective and its coefficients.
        part: B decisions.
        evaluation: what the policy in training makes of them.
        steered: bool [A], numbers that tokens decide; tokens of the others carry no information and are left out.
        proximal: log-probs [B, K, A] at the start of the update, where the rollouts are stale; else None.
        anchors: log-probs [B, K, A] of the warm start, where its KL counts; else None.

    Returns:
        The loss, and metrics by the mission's names.
    """
    new, old, entropy = (x[..., steered] for x in (evaluation.log_probs, part.log_probs, evaluation.entropy))
    clipped = functools.partial(
        actor_loss if proximal is None else decoupled_actor_loss,
        level=algorithm.log_prob_level,
        clip_low=algorithm.clip_ratio_low,
        clip_high=algorithm.clip_ratio_high,
        dual_clip=algorithm.clip_ratio_c,
    )
    behaviour = (old,) if proximal is None else (old, proximal[..., steered])
    policy_loss, metrics = clipped(new, *behaviour, part.advantages, part.mask)
    mean_entropy = masked_mean(entropy, part.mask)
    loss = policy_loss - algorithm.entropy_coef * mean_entropy
    if anchors is not None:
        loss = loss + algorithm.kl_coef * masked_mean(kl_penalty(new, anchors[..., steered]), part.mask)
    if algorithm.name == "ppo":
        value_loss, value_metrics = critic_loss(
            evaluation.values,
            part.values,
            part.returns,
            value_clip=algorithm.value_clip,
            huber_delta=algorithm.huber_delta,
        )
        loss = loss + algorithm.value_coef * value_loss
        metrics |= value_metrics
    else:  # the value head takes no part, but ZeRO-3 would apply a stale gradient to parameters a step did not use
        loss = loss + 0.0 * evaluation.values.sum()
    metrics |= {"loss": loss.detach(), "entropy": mean_entropy.detach()}
    return loss, {f"actor/{name}": value for name, value in metrics.items()}


@torch.no_grad()
def log_probs_of(policy: Policy | Engine, seen: Observation, targets: Targets, config: Config) -> Tensor:
    """Log-probs [D, K, A] that a policy, or the one in training, gives to the actions taken."""
    size = config.update.micro_batch or config.update.minibatch
    parts = np.split(np.arange(len(seen)), range(size, len(seen), size))
    temperature = config.rollout.temperature
    return torch.cat(
        [policy("evaluate_actions", seen[rows], targets[rows].taken, temperature).log_probs for rows in parts]
    )


def plan_minibatches(config: Config, epoch: int, rank: Rank, mine: int, everything: int) -> list[np.ndarray]:
    """Rows of this rank's decisions for every optimizer step; all ranks take the same number of steps.

    Args:
        config: of the run.
        epoch: seeds the shuffle.
        rank: this rank.
        mine: decisions on this rank.
        everything: decisions on all ranks.

    Returns:
        One array of row indices a step; a pass uses every decision once.
    """
    steps = -(-everything // config.update.minibatch)
    rng = stream(config.seed, "update batches", epoch, rank.index)
    return [rows for _ in range(config.update.passes) for rows in np.array_split(rng.permutation(mine), steps)]


if __name__ == "__main__":
    sys.exit(main())
