"""An optimizer step of the update on a run's own rollouts: how long it takes, and how much of that a GPU works.

    python tests/benchmarks/update_step.py RUN EPOCH [--steps 20]

RUN must still hold the rollouts of EPOCH (`keep.rollouts`). Blocks as they are, and compiled. Without a GPU only the
first of the two figures is told.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline import rundir
from stages import schedule, update
from stages.policies import interface as policies
from stages.seeing import observe
from stages.training.engine import Engine
from stages.training.ranks import joined, mean_over_ranks, rank_from_environment
from stages.trajectories import concatenate, read

AT_MOST = 4096  # decisions that are drawn from


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("epoch", type=int)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    config = rundir.load(asked.run)
    rollouts = concatenate([read(path) for path in sorted(asked.run.glob(f"epochs/{asked.epoch:04d}/rollout/shard-*"))])
    targets = update.prepare(config.algorithm, rollouts)
    mine = update.that_teach(targets, ranks=1)[:AT_MOST]
    with tempfile.TemporaryDirectory() as here, joined(rank_from_environment({}), Path(here)) as device:
        targets, seen = targets[mine].to(device), observe(rollouts, mine).to(device)
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, no GPU"
        print(f"{time.strftime('%Y-%m-%d')}, {card}, {len(mine)} decisions, {config.update.minibatch} a step")
        draw = np.random.default_rng(0)
        for compiled in (False, True):
            policy = policies.load(sorted(asked.run.glob("policies/*"))[-1], device, config.policy.precision)
            engine = Engine(
                policy,
                config.update.optimizer,
                device=device,
                zero_stage=config.deepspeed.zero_stage,
                precision=config.policy.precision,
                recompute=config.update.recompute,
                compiled=compiled,
            )

            def steps(count: int, policy: policies.Policy = policy, engine: Engine = engine) -> float:
                """Milliseconds a step."""
                began = time.perf_counter()
                for _ in range(count):
                    rows = draw.permutation(len(mine))[: config.update.minibatch]
                    part = targets[rows]
                    temperature = schedule.temperature(config, asked.epoch)
                    evaluation = engine("evaluate_actions", seen[rows], part.taken, temperature=temperature)
                    steered = policy.steered.to(device)
                    loss, metrics = update.losses(config.algorithm, part, evaluation, steered, None, None)
                    engine.backward(loss)
                    mean_over_ranks(metrics | {"actor/grad_norm": engine.step()}, device)  # waits for the GPU
                return 1000 * (time.perf_counter() - began) / count

            first = 3 * steps(3) / 1000
            told = f"{'compiled' if compiled else 'as it is'}: {steps(asked.steps):.1f} ms a step"
            if device.type == "cuda":
                with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                    steps(asked.steps)
                works = sum(event.self_device_time_total for event in profiled.key_averages()) / 1000 / asked.steps
                told += f", of which the GPU works {works:.1f} ms"
            print(f"{told}; the first three took {first:.1f} s")
            engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
