"""Trains the tiny policy one setting after another, as one rank: `python policy_worker_for_tests.py JOBS FOLDER`.

Each job writes FOLDER/NAME.json: gradient norms, and log-probs of what the saved policy, loaded again, would do.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from pipeline.config import Optimizer
from stages.policies import interface as policies
from stages.policies.interface import Observation
from stages.policies.statistics import Statistics
from stages.training import ranks
from stages.training.engine import Engine

DECISIONS, STEPS, MICROS = 8, 3, 2


def observe() -> Observation:
    rng = np.random.default_rng(1)
    head = rng.integers(0, 256, (DECISIONS, 3, 64, 64), dtype=np.uint8)
    wrist = rng.integers(0, 256, (DECISIONS, 2, 3, 64, 64), dtype=np.uint8)
    proprio = rng.normal(size=(DECISIONS, 16)).astype(np.float32)
    return Observation.from_arrays(head, wrist, proprio, ["pick the cube", "put it onto the plate"] * (DECISIONS // 2))


def fresh(options: dict) -> policies.Policy:
    rng = np.random.default_rng(0)
    statistics = Statistics.of(rng.uniform(-1, 1, (200, 14)), rng.normal(size=(200, 16)), unchanged_actions=(6, 13))
    lora = {"lora": {"rank": options["rank"], "targets": ["all-linear"]}} if "rank" in options else {}
    chosen = {"preset": "tiny", "precision": options.get("precision", "fp32"), **lora}
    return policies.make("openvla_oft", chosen, statistics, 3)


def train(options: dict, rank: ranks.Rank, device: torch.device, folder: Path) -> dict:
    before = folder.parent / options.get("start", "")
    policy = policies.load(before / "policy") if "start" in options else fresh(options)
    engine = Engine(
        policy,
        Optimizer(lr=1e-3, value_lr=3e-3),
        device=device,
        zero_stage=options.get("zero", 0),
        precision=policy.precision,
        recompute=options.get("recompute", "none"),
    )
    if "start" in options:
        engine.load(before / "engine")
    seen = observe()
    rng = np.random.default_rng(2)
    actions = torch.from_numpy(rng.uniform(-1, 1, (DECISIONS, 8, 14)).astype(np.float32))
    taken = torch.from_numpy(rng.integers(0, 256, (DECISIONS, 8, 14)))
    mine = np.arange(rank.index, DECISIONS, rank.size)
    with torch.no_grad():  # as an update looks at stale rollouts before it trains
        engine("evaluate_actions", seen[mine], {"tokens": taken[mine]})
    norms = []
    for _ in range(options.get("steps", STEPS)):
        parts = np.array_split(mine, MICROS)
        for part in parts:
            if options.get("stage") == "sft":
                valid = torch.ones(len(part), 8, dtype=torch.bool)
                loss = engine("imitation_loss", seen[part], actions[part], valid, 1.5).loss
            else:
                judged = engine("evaluate_actions", seen[part], {"tokens": taken[part]}, temperature=0.7)
                loss = (judged.values - 1.0).square().mean() - judged.log_probs.mean() - 0.01 * judged.entropy.mean()
            engine.backward(loss * (len(part) / len(mine)), last=part is parts[-1])
        norms.append(engine.step())
    state = engine.consolidated_state_dict()
    if rank.first:
        for name in ("policy", "engine"):
            (folder / name).mkdir(parents=True)
        policy.save(folder / "policy", state)
    torch.distributed.barrier()
    engine.save(folder / "engine")
    engine.close()
    return {"norms": norms}


def judge(policy: policies.Policy) -> dict:
    """What a policy thinks."""
    taken = torch.from_numpy(np.random.default_rng(4).integers(0, 256, (DECISIONS, 8, 14)))
    with torch.no_grad():
        judged = policy.evaluate_actions(observe(), {"tokens": taken})
    return {"log_probs": judged.log_probs.flatten().tolist(), "values": judged.values.tolist()}


def main() -> None:
    jobs, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    rank = ranks.rank_from_environment()
    device = ranks.join(rank, folder, timeout_s=120)
    for name, options in jobs.items():
        found = train(options, rank, device, folder / name)
        if rank.first:
            found |= judge(policies.load(folder / name / "policy", precision="fp32"))
            (folder / f"{name}.json").write_text(json.dumps(found))
    ranks.leave()


if __name__ == "__main__":
    main()
