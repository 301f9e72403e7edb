"""Trains small policies one after another, as one rank: `python worker_for_tests.py JOBS RENDEZVOUS RESULT`."""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import nn

from pipeline.config import Optimizer
from pipeline.errors import UserError
from stages.training import ranks
from stages.training.engine import Engine


class SmallPolicy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.value_head = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor, unused_value_head: bool = False) -> torch.Tensor:
        x = x.to(self.embed.weight.dtype)
        hidden = self.embed(x)
        for layer in self.layers:
            hidden = hidden + layer(hidden).tanh()
        return hidden.mean(-1) if unused_value_head else self.value_head(hidden)[:, 0] + hidden.mean(-1)


def batch_of(step: int, size: int) -> torch.Tensor:
    return torch.randn(size, 6, generator=torch.Generator().manual_seed(step))


def train(options: dict, rank: ranks.Rank, device: torch.device) -> dict:
    torch.manual_seed(7 + 100 * rank.index)  # ranks differ until DeepSpeed spreads rank 0's weights
    policy = SmallPolicy()
    if options.get("nan"):
        policy.embed.bias.data.fill_(torch.nan)
    optimizer = Optimizer(name=options.get("optimizer", "adamw"), lr=1e-2, value_lr=5e-2, gradient_clip=0.5)
    zero, unused = options.get("zero", 0), options.get("unused_value_head", False)
    engine = Engine(policy, optimizer, device=device, zero_stage=zero, precision=options.get("precision", "fp32"))
    if options.get("load"):
        engine.load(Path(options["load"]))
    norms, micros = [], options.get("micros", 1)
    for step in range(options.get("first", 0), options.get("last", 8)):
        engine.set_lr(1 / (1 + step))
        parts = batch_of(step, 8)[rank.index :: rank.size].to(device).chunk(micros)
        for index, part in enumerate(parts):
            error = engine(part, unused) - part.sum(-1)
            engine.backward(error.square().mean() / micros, last=index == micros - 1)
        norms.append(engine.step())
    if options.get("save"):
        Path(options["save"]).mkdir(exist_ok=True)
        engine.save(Path(options["save"]))
    whole = engine.consolidated_state_dict()
    bits = b"".join(whole[name].contiguous().view(torch.uint8).numpy().tobytes() for name in sorted(whole))
    weights = {name: tensor.flatten()[:3].tolist() for name, tensor in whole.items()}
    mean_rank = ranks.mean_over_ranks({"index": float(rank.index)}, device)["index"]
    return {"digest": hashlib.sha256(bits).hexdigest(), "norms": norms, "weights": weights, "mean_rank": mean_rank}


def main() -> None:
    jobs, rendezvous, result = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    rank = ranks.rank_from_environment()
    device = ranks.join(rank, rendezvous, timeout_s=120)
    results = {}
    for name, options in jobs.items():
        try:
            results[name] = train(options, rank, device)
        except UserError as error:
            results[name] = {"error": str(error)}
    ranks.leave()
    if rank.first:
        result.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
