"""pi0's speed beside its plain PyTorch form, with the same weights.

    python -m tests.benchmarks.pi0 act [--batches 1 32] [--steps 10]
    python -m tests.benchmarks.pi0 evaluate [--settings none:8 block:32]

Random weights, three cameras, a horizon of 50 steps of 32 numbers, a prompt of 36 tokens; `--preset base` in bf16 on a
GPU, `--preset tiny` in fp32 anywhere; `--version pi05` for the other body. `act` is from uint8 images and text to
actions, values and log-probs. The plain form runs the whole network at every denoising step, neither compiled nor
recorded, with the same fused attention; `cached` is it with the prefix run once. `evaluate` is `evaluate_actions`
forward and backward with gradients of all weights, settings being what is recomputed and the batch. Sides alternate;
figures are medians. Not a test: it prints what it measures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from stages.blocks import prepare_blocks
from stages.policies.interface import Observation
from stages.policies.pi0 import checkpoint, denoising, flow
from stages.policies.pi0.config import Pi0Config
from stages.policies.pi0.denoising import Draws
from stages.policies.pi0.network import Inputs
from stages.policies.pi0.policy import Pi0
from stages.policies.pi0.prompt import DIRECTORY
from stages.policies.pi0.published import held_in
from stages.policies.statistics import Statistics
from tests.benchmarks.timing import alternate, machine, peak, release

INSTRUCTION = " ".join(f"word{index}" for index in range(34))
"""With what a prompt begins and ends with, 36 tokens."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("base", "small", "tiny"), default="base")
    parser.add_argument("--version", choices=("pi0", "pi05"), default="pi0")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plain", action="store_true", help="compile nothing")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("act")
    command.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    command.add_argument("--steps", type=int, default=10)
    command = commands.add_parser("evaluate")
    command.add_argument("--settings", nargs="+", default=["none:8", "mlp:16", "block:32"], metavar="RECOMPUTE:BATCH")
    arguments = parser.parse_args(argv)
    about = f"{arguments.version} {arguments.preset}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, torch {torch.__version__}, {about}", flush=True)
    {"act": act, "evaluate": evaluate}[arguments.command](arguments)


# ----------------------------------------------------------------------------------------------------------------------
# The two measurements


@torch.no_grad()
def act(arguments: argparse.Namespace) -> None:
    ours, eager = build(arguments, num_steps=arguments.steps), build(arguments, num_steps=arguments.steps)
    eager.load_state_dict(ours.state_dict(), assign=True)
    if not arguments.plain:
        ours.accelerate()
    print(f"{arguments.steps} denoising steps; {sum(p.numel() for p in ours.parameters()):,} weights")
    print("batch  plain ms  cached ms  ours ms  chunks/s: plain  cached    ours  times plain  (cached)  peak GiB")
    for batch in arguments.batches:
        sides = sides_of(ours, eager, batch)
        release()
        sides[2]()
        memory = peak()
        plain, cached, mine = alternate(sides, arguments.repeats)
        print(
            f"{batch:5d}  {1e3 * plain:8.1f}  {1e3 * cached:9.1f}  {1e3 * mine:7.1f}  {batch / plain:15.1f}  "
            f"{batch / cached:6.1f}  {batch / mine:6.1f}  {plain / mine:11.2f}  {cached / mine:8.2f}  {memory:8.1f}",
            flush=True,
        )
        apart = (sides[0]() - sides[2]()).abs().max()
        print(f"       largest difference of actions, plain and ours: {float(apart):.2g}", flush=True)


def sides_of(ours: Pi0, eager: Pi0, batch: int) -> list[Callable[[], Tensor]]:
    """From what is seen to actions on the CPU: plainly, with the prefix run once, and as a rollout does."""
    seen, noise = observe(ours.config, batch), draws(ours, batch)

    def plain() -> Tensor:
        given = denoising.draws_of(eager.config, noise, eager.level(1.0))
        return eager.actions_of(uncached(eager, eager.inputs(seen), given), seen.proprio).cpu()

    return [plain, lambda: eager.act(seen, noise).actions.cpu(), lambda: ours.act(seen, noise).actions.cpu()]


def uncached(policy: Pi0, inputs: Inputs, given: Draws) -> Tensor:
    """The denoising loop with the prefix run again at every step; the end of the chain."""
    config, x = policy.config, given.start
    times = flow.times(config.sampler, config.num_steps, x.device)
    with policy.autocast():
        for number in range(config.num_steps):
            states = policy.suffix(policy.prefix(inputs), inputs.state, x, times[number].expand(len(x)))
            velocity, index = policy.action_out_proj(states), torch.full_like(given.step, number)
            level = given.level * (given.step == number)
            step = flow.denoise(config.sampler, x, velocity, index, config.num_steps, level, None)
            x = step.mean + step.std * given.normals[:, 0]
            policy.value_head(states.mean(dim=1))
    return x


def evaluate(arguments: argparse.Namespace) -> None:
    print("recompute  batch  samples/s  forward + backward ms  peak GiB", flush=True)
    for setting in arguments.settings:
        recompute, batch = setting.split(":")
        policy = build(arguments)
        prepare_blocks(policy, recompute=recompute, compiled=not arguments.plain)  # type: ignore[arg-type]
        seen, taken = observe(policy.config, int(batch)), made_up(policy, int(batch))

        def step(policy: Pi0 = policy, seen: Observation = seen, taken: dict[str, Tensor] = taken) -> None:
            evaluation = policy("evaluate_actions", seen, taken)
            (-evaluation.log_probs.mean() + (evaluation.values - 1.0).square().mean()).backward()
            policy.zero_grad()

        release()
        try:
            seconds = alternate([step], arguments.repeats)[0]
            told = f"{int(batch) / seconds:9.2f}  {1e3 * seconds:21.0f}  {peak():8.1f}"
        except torch.OutOfMemoryError:
            told = "does not fit"
        print(f"{recompute:9s}  {batch:>5s}  {told}", flush=True)
        del step, policy
        release()


# ----------------------------------------------------------------------------------------------------------------------
# What is measured


def build(arguments: argparse.Namespace, **options: object) -> Pi0:
    """The policy with random weights, made where they will be."""
    precision = "fp32" if arguments.preset == "tiny" else "bf16"
    seen = 16 if arguments.version == "pi0" else 0
    fixed = {"preset": arguments.preset, "version": arguments.version, "precision": precision, "proprio_dim": seen}
    config = Pi0Config.from_options(fixed | options)
    rng = np.random.default_rng(0)
    measured = Statistics.of(rng.uniform(-1, 1, (100, config.action_dim)), rng.normal(size=(100, seen)), (6, 13))
    with tempfile.TemporaryDirectory() as folder:
        policy = checkpoint.build(config, measured, tokenizer_of(config, Path(folder)))
    materialise(policy)
    return policy


def materialise(policy: Pi0) -> None:
    """Draw every parameter on the GPU, if there is one, in its final type; buffers only move."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)
    for place, part in policy.named_modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                dtype = held_in(f"{place}.{name}", policy.precision)
                drawn = torch.zeros(parameter.shape, dtype=dtype, device=device)
                if parameter.dim() > 1:
                    drawn.normal_(0.0, min(0.05, parameter[0].numel() ** -0.5))
                part._parameters[name] = nn.Parameter(drawn, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)


def tokenizer_of(config: Pi0Config, folder: Path) -> Path:
    """The package's own tokenizer, or one of words for PaliGemma's vocabulary."""
    if config.vocab_size < 10000:
        return DIRECTORY
    words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "\n": 4} | {f"word{i}": 5 + i for i in range(1000)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def observe(config: Pi0Config, batch: int) -> Observation:
    rng, side = np.random.default_rng(batch), config.image_size
    head = rng.integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
    wrist = rng.integers(0, 256, (batch, 2, 3, side, side), dtype=np.uint8)
    proprio = rng.normal(size=(batch, config.proprio_dim)).astype(np.float32)
    instruction = INSTRUCTION if config.vocab_size > 10000 else "put the red cube on the plate"
    return Observation.from_arrays(head, wrist, proprio, [instruction] * batch)


def draws(policy: Pi0, batch: int) -> Tensor:
    rows = [policy.draw_noise(np.random.default_rng(row)) for row in range(batch)]
    return torch.from_numpy(np.stack(rows)).to(policy.device)


def made_up(policy: Pi0, batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    chain = torch.randn((batch, *policy.chain_shape), generator=generator)
    return {"chain": chain, "step": torch.arange(batch) % policy.config.num_steps}


if __name__ == "__main__":
    main()
