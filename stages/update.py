"""Update the policy on an epoch's rollouts: PPO or GRPO under DeepSpeed, policy version e from version e - 1.

    python -m stages.update runs/quickstart --epoch 3

Reads every shard of the epoch, computes advantages over whole episodes, and goes through the decisions
`update.passes` times in shuffled minibatches. Optimizer state comes from the last update and goes on to the next.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.artifacts import Unit
from pipeline.config import Algorithm, Config
from pipeline.errors import UserError
from stages import schedule
from stages.door import run_ranked_stage
from stages.objectives.advantages import normalise
from stages.objectives.episodes import Episodes, episode_gae, episode_grpo
from stages.objectives.losses import actor_loss, critic_loss, decoupled_actor_loss, explained_variance, kl_penalty
from stages.objectives.reductions import masked_mean
from stages.policies import interface as policies
from stages.policies.interface import Observation, Policy
from stages.seeing import observe
from stages.training.engine import Engine
from stages.training.ranks import Rank, mean_over_ranks
from stages.trajectories import Trajectories, concatenate, read
from stages.trajectories.storage import REMEDY
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
        refuse_foreign(rollouts, policy)
        reference = policies.load(work.policy(0), device, config.policy.precision) if config.algorithm.kl_coef else None
    with work.phases("advantages"):
        targets = prepare(config.algorithm, rollouts)
        teaching = that_teach(targets, rank.size)
        mine = teaching[rank.index :: rank.size]
        targets = targets[mine].to(device)
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
        proximal = log_probs_of(engine, seen, targets, work) if config.rollout.staleness else None
        anchors = log_probs_of(reference, seen, targets, work) if reference is not None else None
    temperature = schedule.temperature(config, epoch)
    logged: list[dict[str, float]] = []
    with work.phases("train"):
        minibatches = plan_minibatches(config, epoch, rank, len(mine), len(teaching))
        for step, rows in enumerate(minibatches):
            pieces = np.array_split(rows, -(-len(rows) // (stage.micro_batch or len(rows))))
            for piece in pieces:
                part = targets[piece]
                evaluation = engine("evaluate_actions", seen[piece], part.taken, temperature=temperature)
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
    work.summary["actor/decisions"] = float(len(teaching))


@dataclasses.dataclass(frozen=True)
class Targets:
    """What the objective needs to know of decisions, D of them.

    Attributes:
        taken: what the policy judges again, [D, ...] by name; see `Decision.taken`.
        log_probs: of the policy that acted, [D, K, A].
        values: of the policy that acted, [D].
        advantages: [D].
        returns: [D].
        mask: bool [D, K], steps that count.
    """

    taken: dict[str, Tensor]
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor

    def __getitem__(self, rows: np.ndarray) -> Targets:
        """Some decisions."""
        index = torch.from_numpy(rows).to(self.values.device)
        return self._each(lambda part: part[index])

    def to(self, device: torch.device) -> Targets:
        """The same decisions on another device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        taken = {name: change(part) for name, part in self.taken.items()}
        others = (getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "taken")
        return Targets(taken, *map(change, others))


def refuse_foreign(rollouts: Trajectories, policy: Policy) -> None:
    """Refuse shards of another kind of policy than the one to train."""
    made, trained = rollouts.spec.chain_shape, policy.chain_shape
    if made != trained or rollouts.spec.kind == "demonstration":
        raise UserError(
            f"{rollouts.stored_images[0].path} is a shard of kind {rollouts.spec.kind!r}{_chains(made)}, which "
            f"{policy.name} cannot judge: it takes {'chain' if trained else 'tokens'!r}{_chains(trained)}; {REMEDY}"
        )


def _chains(shape: tuple[int, int, int] | None) -> str:
    return f" of {list(shape)}" if shape else ""


def as_taken(array: np.ndarray) -> Tensor:
    """What a shard holds as the policy takes it: whole numbers as int64."""
    return torch.from_numpy(array if array.dtype == np.float32 else array.astype(np.int64))


def prepare(algorithm: Algorithm, rollouts: Trajectories) -> Targets:
    """Compute advantages and returns over whole episodes.

    Args:
        algorithm: the objective.
        rollouts: all shards of the epoch, D decisions.

    Returns:
        The epoch's decisions.

    Raises:
        UserError: nothing in the shards tells better from worse.
    """
    assert rollouts.log_probs is not None, "these are no demonstrations: see refuse_foreign"
    assert rollouts.values is not None, "these are no demonstrations: see refuse_foreign"
    rewards, executed = torch.from_numpy(rollouts.rewards), torch.from_numpy(rollouts.executed)
    values = torch.from_numpy(rollouts.values)
    ends = rollouts.episodes
    beyond = ends.bootstrap_value if algorithm.time_limit == "bootstrap" else np.zeros_like(ends.bootstrap_value)
    episodes = Episodes(
        *(torch.from_numpy(part) for part in (ends.start, ends.length, ends.terminated, ends.truncated, beyond))
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
        {name: as_taken(array) for name, array in rollouts.taken.items()},
        torch.from_numpy(rollouts.log_probs),
        values,
        advantages,
        returns,
        mask,
    )


def that_teach(targets: Targets, ranks: int) -> np.ndarray:
    """Decisions that have a part in the loss: those of filtered groups would be gone through for nothing.

    Args:
        targets: D decisions.
        ranks: how many processes will share them.

    Returns:
        Int [n], ascending, at least one a rank; all D where none has a part, so that an epoch always is an update.
    """
    teaching = np.flatnonzero(targets.mask.any(dim=1).numpy())
    return np.resize(teaching, max(len(teaching), ranks)) if len(teaching) else np.arange(len(targets.mask))


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
    new, old = evaluation.log_probs[..., steered], part.log_probs[..., steered]
    clipped = functools.partial(
        actor_loss if proximal is None else decoupled_actor_loss,
        level=algorithm.log_prob_level,
        clip_low=algorithm.clip_ratio_low,
        clip_high=algorithm.clip_ratio_high,
        dual_clip=algorithm.clip_ratio_c,
    )
    behaviour = (old,) if proximal is None else (old, proximal[..., steered])
    policy_loss, metrics = clipped(new, *behaviour, part.advantages, part.mask)
    loss = policy_loss
    if evaluation.entropy is not None:
        mean_entropy = masked_mean(evaluation.entropy[..., steered], part.mask)
        loss = loss - algorithm.entropy_coef * mean_entropy
        metrics["entropy"] = mean_entropy.detach()
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
    metrics["loss"] = loss.detach()
    return loss, {f"actor/{name}": value for name, value in metrics.items()}


@torch.no_grad()
def log_probs_of(policy: Policy | Engine, seen: Observation, targets: Targets, work: Work) -> Tensor:
    """Log-probs [D, K, A] that a policy, or the one in training, gives to the actions taken."""
    size = work.config.update.micro_batch or work.config.update.minibatch
    parts = np.split(np.arange(len(seen)), range(size, len(seen), size))
    temperature = schedule.temperature(work.config, work.unit.epoch)
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
