"""Warm-start the policy on demonstrations: supervised fine-tuning, the policy version 0.

    python -m stages.sft runs/quickstart --epoch 0

Reads every demonstration shard, measures the statistics that normalise actions, and trains for `sft.steps` optimizer
steps on windows of K actions, leaving out what a perturbation made unpredictable, changed as `augmentation.py` says.
Without steps the checkpoint of the config is version 0.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from pipeline.config import Config
from stages.augmentation import Augmentation
from stages.demonstrations import gather
from stages.door import run_ranked_stage
from stages.policies import interface as policies
from stages.policies.interface import Policy
from stages.policies.statistics import Statistics
from stages.seeing import observer
from stages.training.engine import Engine
from stages.training.optimizers import warmup_cosine
from stages.training.ranks import Rank
from stages.trajectories import Trajectories
from stages.unit import Work, stream

LOG_EVERY = 20


def main() -> int:
    """Carry out the units that the command line names."""
    return run_ranked_stage("sft", lambda *arguments: (sft if arguments[0].config.sft.steps else adopt)(*arguments))


def adopt(work: Work, rank: Rank, device: torch.device) -> None:
    """Write the policy of the checkpoint as it is."""
    if rank.first:
        with work.phases("load"):
            policy = checkpoint(work.config, {}, None)
        with work.phases("save"):
            policy.save(work.scratch("policy"))


def sft(work: Work, rank: Rank, device: torch.device) -> None:
    """Train on the demonstrations and write the policy."""
    config, stage = work.config, work.config.sft
    with work.phases("load"):
        demonstrations = gather(work)
        augmentation = Augmentation(config)
        policy = warm(config, demonstrations)
        see = observer(demonstrations)
        actions, valid = torch.from_numpy(demonstrations.actions), torch.from_numpy(demonstrations.valid)
    with work.phases("initialise"):
        engine = Engine(
            policy,
            stage.optimizer,
            device=device,
            zero_stage=config.deepspeed.zero_stage,
            precision=config.policy.precision,
            recompute=stage.recompute,
            compiled=config.policy.compile,
        )
    usable = np.flatnonzero(demonstrations.valid.any(axis=1))
    cameras = 1 + demonstrations.spec.wrist_cameras
    with work.phases("train"):
        for step, rows in enumerate(batches(config, usable)):
            scale = warmup_cosine(step, warmup=stage.warmup_steps, total=stage.steps, final=stage.final_lr)
            engine.set_lr(scale)
            # Chance is drawn for the whole batch, so that no number of ranks changes it.
            drawn = policy.draw_imitation_noise(work.stream("sft noise", step), len(rows))
            changes = augmentation.draw(work.stream("sft augmentation", step), len(rows), cameras)
            part = np.arange(rank.index, len(rows), rank.size)
            pieces = np.array_split(part, -(-len(part) // (stage.micro_batch or len(part))))
            for piece in pieces:
                chosen = rows[piece]
                seen, done = augmentation(
                    see(chosen).to(device), actions[chosen].to(device), torch.from_numpy(changes[piece]).to(device)
                )
                imitation = engine(
                    "imitation_loss",
                    seen,
                    done,
                    valid[chosen].to(device),
                    stage.label_sigma,
                    None if drawn is None else torch.from_numpy(drawn[piece]).to(device),
                )
                engine.backward(imitation.loss * (len(piece) / len(part)), last=piece is pieces[-1])
            norm = engine.step()
            if rank.first and (step % LOG_EVERY == 0 or step == stage.steps - 1):
                metrics = {
                    "actor/loss": float(imitation.loss.detach()),
                    **{f"actor/{name}": float(value) for name, value in imitation.metrics.items()},
                    "actor/grad_norm": norm,
                    "actor/lr": engine.lr,
                }
                work.metrics.log(step, metrics)
                work.progress(step + 1, stage.steps, metrics)
                work.summary |= metrics
    with work.phases("save"):
        state = engine.consolidated_state_dict()
        if rank.first:
            policy.save(work.scratch("policy"), state)
        engine.close()
    work.summary["sft/decisions"] = float(len(usable))


def warm(config: Config, demonstrations: Trajectories) -> Policy:
    """The policy to train: fresh from the seed, or the checkpoint of the config."""
    chosen = config.policy
    actions, proprio = Augmentation(config).both_ways(demonstrations)
    measured = Statistics.of(
        actions,
        proprio if chosen.proprio else proprio[:, :0],
        unchanged_actions=grippers(chosen.action_dim),
        dataset=config.simulator.name,
    )
    sizes = {"proprio_dim": len(measured.proprio.mask)}
    if chosen.checkpoint is not None:
        return checkpoint(config, sizes, measured)
    sizes["images"] = 1 + demonstrations.spec.wrist_cameras
    if chosen.name == "openvla_oft":  # which refuses images of another size than its own
        sizes["image_size"] = demonstrations.spec.image_size[0]
    options = {"preset": chosen.preset, **sizes, **described(config)}
    return policies.make(chosen.name, {"precision": chosen.precision} | options, measured, config.seed)


def checkpoint(config: Config, sizes: dict[str, Any], measured: Statistics | None) -> Policy:
    """The policy of the config's checkpoint; statistics `measured` of demonstrations serve where the config says so."""
    chosen = config.policy
    options = sizes | described(config)
    if chosen.lora.adapter is not None:
        options |= {"adapter": chosen.lora.adapter}
    statistics = measured if chosen.statistics == "demonstrations" else chosen.statistics
    assert chosen.checkpoint is not None, "the config's own checks see to it"
    return policies.load(
        chosen.checkpoint,
        precision=chosen.precision,
        options=options,
        statistics=statistics,
        seed=config.seed,
        name=chosen.name,
    )


def described(config: Config) -> dict[str, Any]:
    """Fields of the policy's own config that the run's config sets."""
    chosen = config.policy
    options = {"chunk": chosen.chunk, "action_dim": chosen.action_dim, **chosen.options}
    if chosen.name == "pi0":
        options |= chosen.flow.options()
    return options | (
        {"lora": chosen.lora.model_dump(exclude={"adapter"}, exclude_none=True)} if chosen.lora.rank else {}
    )


def grippers(action_dim: int) -> tuple[int, ...]:
    """Indices of the gripper numbers, which are in [-1, 1] already: the last of every arm's seven.

    The R1 Pro's 23 are a base's 3, a trunk's 4, and twice an arm's 7 with its gripper.
    """
    return (14, 22) if action_dim == 23 else tuple(range(6, action_dim, 7))


def batches(config: Config, usable: np.ndarray) -> list[np.ndarray]:
    """Decisions of every step: epochs of shuffled demonstrations laid end to end."""
    stage = config.sft
    rng = stream(config.seed, "sft batches")
    rounds = -(-stage.steps * stage.batch // len(usable))
    order = np.concatenate([rng.permutation(usable) for _ in range(rounds)])
    return list(order[: stage.steps * stage.batch].reshape(stage.steps, stage.batch))


if __name__ == "__main__":
    sys.exit(main())
