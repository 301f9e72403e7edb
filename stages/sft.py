"""Warm-start the policy on demonstrations: supervised fine-tuning, the policy version 0.

    python -m stages.sft runs/quickstart --epoch 0

Reads every demonstration shard, measures the statistics that normalise actions, and trains for `sft.steps` optimizer
steps on windows of K actions, leaving out what a perturbation made unpredictable. Without steps the checkpoint of the
config is version 0.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import Unit
from pipeline.config import Config
from stages.door import run_ranked_stage
from stages.policies import interface as policies
from stages.policies.interface import Observation, Policy
from stages.policies.statistics import Statistics
from stages.training.engine import Engine
from stages.training.optimizers import warmup_cosine
from stages.training.ranks import Rank
from stages.trajectories import Trajectories, concatenate, read
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
        shards = [work.require(Unit(0, "demonstrate", s)) for s in range(config.demonstrate.shards)]
        demonstrations = concatenate([read(path) for path in shards])
        policy = warm(config, demonstrations)
        head, wrist = demonstrations.load_images()
        instructions = demonstrations.instructions_of(np.arange(len(demonstrations)))
        seen = Observation.from_arrays(head, wrist, demonstrations.proprio, instructions)
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
    with work.phases("train"):
        for step, rows in enumerate(batches(config, usable)):
            scale = warmup_cosine(step, warmup=stage.warmup_steps, total=stage.steps, final=stage.final_lr)
            engine.set_lr(scale)
            part = rows[rank.index :: rank.size]
            pieces = np.array_split(part, -(-len(part) // (stage.micro_batch or len(part))))
            for piece in pieces:
                imitation = engine(
                    "imitation_loss",
                    seen[piece].to(device),
                    actions[piece].to(device),
                    valid[piece].to(device),
                    stage.label_sigma,
                )
                engine.backward(imitation.loss * (len(piece) / len(part)), last=piece is pieces[-1])
            norm = engine.step()
            if rank.first and (step % LOG_EVERY == 0 or step == stage.steps - 1):
                metrics = {
                    "actor/loss": float(imitation.loss.detach()),
                    "actor/token_accuracy": float(imitation.token_accuracy),
                    "actor/action_error": float(imitation.action_error),
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
    measured = Statistics.of(
        demonstrations.actions[demonstrations.valid],
        demonstrations.proprio if chosen.proprio else demonstrations.proprio[:, :0],
        unchanged_actions=grippers(chosen.action_dim),
        dataset=config.simulator.name,
    )
    sizes = {"proprio_dim": len(measured.proprio.mask)}
    if chosen.checkpoint is not None:
        return checkpoint(config, sizes, measured)
    options = {"preset": chosen.preset, "image_size": demonstrations.spec.image_size[0], **sizes, **described(config)}
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
        chosen.checkpoint, precision=chosen.precision, options=options, statistics=statistics, seed=config.seed
    )


def described(config: Config) -> dict[str, Any]:
    """Fields of the policy's own config that the run's config sets."""
    chosen = config.policy
    options = {"chunk": chosen.chunk, "action_dim": chosen.action_dim, **chosen.options}
    return options | (
        {"lora": chosen.lora.model_dump(exclude={"adapter"}, exclude_none=True)} if chosen.lora.rank else {}
    )


def grippers(action_dim: int) -> tuple[int, ...]:
    """Indices of the gripper numbers, the last of every arm's seven; they are in [-1, 1] already."""
    return tuple(range(6, action_dim, 7))


def batches(config: Config, usable: np.ndarray) -> list[np.ndarray]:
    """Decisions of every step: epochs of shuffled demonstrations laid end to end."""
    stage = config.sft
    rng = stream(config.seed, "sft batches")
    rounds = -(-stage.steps * stage.batch // len(usable))
    order = np.concatenate([rng.permutation(usable) for _ in range(rounds)])
    return list(order[: stage.steps * stage.batch].reshape(stage.steps, stage.batch))


if __name__ == "__main__":
    sys.exit(main())
