"""OpenVLA-OFT's speed beside straightforward transformers code with the same weights, and its update under DeepSpeed.

    python -m tests.benchmarks.openvla_oft act [--batches 1 32]
    python -m tests.benchmarks.openvla_oft evaluate [--settings none:8 mlp:12 block:16] [--reference 8 16]
    python -m tests.benchmarks.openvla_oft update --processes 2 [--settings lora:2:mlp:8 full:3:block:8]

Random weights, three cameras, chunk 8 x 14, a prompt of 36 tokens; the 7B in bf16 on GPUs, `--preset tiny` in fp32
anywhere. `act` is from uint8 images and text to actions, values and log-probs; the reference's input processor works on
the CPU, and figures without it stand beside. `evaluate` is `evaluate_actions` forward and backward with gradients of
all weights, settings being what is recomputed and the batch; the reference checkpoints every block. `update` is an
optimizer step over `--micros` micro-batches: LoRA of rank 32 or all weights, ZeRO stage, what is recomputed, and the
micro-batch of a rank. Sides alternate; figures are medians. Not a test: it prints what it measures.

Model FLOPs of a sample: 2 a weight and token in every matrix product, 4 S^2 width in every layer's attention; the last
layer only where it is read. A backward pass counts twice the forward pass, with LoRA once plus the additions' own
gradients. What is computed again counts nothing. MFU is model FLOPs a second over 989 TFLOP/s, H100's and H200's
dense bf16 peak.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pipeline.config import Optimizer
from stages.blocks import prepare_blocks
from stages.policies.interface import Observation
from stages.policies.openvla_oft import checkpoint
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.policy import OpenVLAOFT
from stages.policies.openvla_oft.prompt import DIRECTORY
from stages.policies.statistics import Statistics
from stages.training import ranks
from stages.training.engine import Engine
from tests.benchmarks.openvla_oft_reference import Reference
from tests.benchmarks.timing import alternate, machine, peak, release

PEAK = 989e12
INSTRUCTION = "put the red mug that is open onto shelf"
OWN = ("camera_embedding", "action_embedding", "class_position")  # what the tiny preset has and the original lacks
PUBLISHED = {"dims_per_position": 1, "proprio_dim": 0, **dict.fromkeys(OWN, False)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("7b", "tiny"), default="7b")
    parser.add_argument("--repeats", type=int, default=7)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("act")
    command.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    command.add_argument("--plain", action="store_true", help="do not compile")
    command = commands.add_parser("evaluate")
    command.add_argument("--settings", nargs="+", default=["none:8", "mlp:12", "block:16"], metavar="RECOMPUTE:BATCH")
    command.add_argument("--reference", type=int, nargs="*", default=[8, 16], metavar="BATCH")
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--plain", action="store_true", help="do not compile")
    command = commands.add_parser("update")
    command.add_argument("--settings", nargs="+", default=["lora:2:mlp:8", "full:3:block:8"])
    command.add_argument("--processes", type=int, default=1)
    command.add_argument("--micros", type=int, default=4)
    command.add_argument("--plain", action="store_true", help="do not compile")
    command.add_argument("--rendezvous", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.command != "update" or arguments.rendezvous is None:
        print(f"{time.strftime('%Y-%m-%d')}, {machine()}, torch {torch.__version__}, {arguments.preset}", flush=True)
    {"act": act, "evaluate": evaluate, "update": update}[arguments.command](arguments)


# ----------------------------------------------------------------------------------------------------------------------
# The three measurements


@torch.no_grad()
def act(arguments: argparse.Namespace) -> None:
    ours, reference = build(arguments.preset), build_reference(arguments.preset)
    share_weights(ours, reference)
    if not arguments.plain:
        ours.accelerate()
    print(
        "batch  reference ms  (after its processor)  ours ms  chunks/s: reference  (after its processor)   ours  times"
    )
    for batch in arguments.batches:
        whole, network, mine = act_seconds(ours, reference, batch, arguments.repeats)
        print(
            f"{batch:5d}  {1e3 * whole:12.1f}  {1e3 * network:21.1f}  {1e3 * mine:7.1f}  {batch / whole:19.1f}  "
            f"{batch / network:21.1f}  {batch / mine:5.1f}  {whole / mine:.2f} ({network / mine:.2f})",
            flush=True,
        )
    print(f"largest difference of log-probs: {difference(ours, reference):.2g}")


def act_seconds(ours: OpenVLAOFT, reference: Reference, batch: int, repeats: int) -> list[float]:
    """Median seconds of a decision: the reference's, the reference's after its processor, and ours."""
    seen, rng = observe(ours.config, batch), np.random.default_rng(0)
    noise = torch.from_numpy(np.stack([ours.draw_noise(rng) for _ in range(batch)]))
    images, weight = cameras(seen), reference.value_head.mlp[0].weight
    pixels, ids = reference.process(images, list(seen.instructions))
    pixels, ids = pixels.to(weight.device, weight.dtype), ids.to(weight.device)
    calls = [
        lambda: reference.act(images, list(seen.instructions)),
        lambda: reference.decide(pixels, ids),
        lambda: ours.act(seen, noise).actions.cpu(),
    ]
    return alternate(calls, repeats)


def evaluate(arguments: argparse.Namespace) -> None:
    print("side       recompute  batch  samples/s  forward + backward ms  peak GiB  TFLOP/s", flush=True)
    for setting in [*(f"reference:{batch}" for batch in arguments.reference), *arguments.settings] * arguments.rounds:
        recompute, batch = setting.split(":")
        side = "reference" if recompute == "reference" else "ours"
        step = (reference_step if side == "reference" else our_step)(arguments, recompute, int(batch))
        release()
        try:
            seconds = alternate([step], arguments.repeats)[0]
            rate, flops = int(batch) / seconds, 3 * forward_flops(config_of(arguments.preset))
            told = f"{rate:9.2f}  {1e3 * seconds:21.0f}  {peak():8.1f}  {rate * flops / 1e12:7.0f}"
        except torch.OutOfMemoryError:
            told = "does not fit"
        print(f"{side:9s}  {'block' if side == 'reference' else recompute:9s}  {batch:>5s}  {told}", flush=True)
        del step
        release()


def our_step(arguments: argparse.Namespace, recompute: str, batch: int) -> Callable[[], None]:
    policy = build(arguments.preset)
    prepare_blocks(policy, recompute=recompute, compiled=not arguments.plain)  # type: ignore[arg-type]
    seen, taken = observe(policy.config, batch), drawn(policy.config, batch)

    def step() -> None:
        loss_of(*policy("evaluate_actions", seen, {"tokens": taken})).backward()
        policy.zero_grad()

    return step


def reference_step(arguments: argparse.Namespace, _: str, batch: int) -> Callable[[], None]:
    reference = build_reference(arguments.preset)
    reference.recompute()
    weight, seen = reference.value_head.mlp[0].weight, observe(reference.config, batch)
    pixels, ids = reference.process(cameras(seen), list(seen.instructions))
    pixels, ids = pixels.to(weight.device, weight.dtype), ids.to(weight.device)
    taken = drawn(reference.config, batch).flatten(1).to(weight.device) + reference.config.vocab_size - 256

    def step() -> None:
        loss_of(*reference.evaluate(pixels, ids, taken)).backward()
        reference.zero_grad()

    return step


def update(arguments: argparse.Namespace) -> None:
    rank = ranks.rank_from_environment()
    if arguments.rendezvous is None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.benchmarks.openvla_oft", *sys.argv[1:], "--rendezvous", folder]
            sys.exit(ranks.run_ranks(arguments.processes, command))
    with ranks.joined(rank, arguments.rendezvous) as device:
        if rank.first:
            print(
                "weights  ZeRO  recompute  ranks x micros x batch  s a step  samples/s/GPU   MFU  peak GiB", flush=True
            )
        for setting in arguments.settings:
            weights, stage, recompute, batch = setting.split(":")
            seconds, memory = step_seconds(arguments, device, weights, int(stage), recompute, int(batch))
            config = config_of(arguments.preset)
            flops = forward_flops(config) * (3 if weights == "full" else 2) + lora_flops(config, weights)
            rate = arguments.micros * int(batch) / seconds
            if rank.first:
                shape = f"{rank.size} x {arguments.micros} x {batch}"
                print(
                    f"{weights:7s}  {stage:>4s}  {recompute:9s}  {shape:>22s}  {seconds:8.2f}  {rate:13.2f}  "
                    f"{rate * flops / PEAK:4.0%}  {memory:8.1f}",
                    flush=True,
                )


def step_seconds(
    arguments: argparse.Namespace, device: torch.device, weights: str, stage: int, recompute: str, batch: int
) -> tuple[float, float]:
    """Median seconds of an optimizer step, and the most GiB that this rank held."""
    release()
    policy = build(arguments.preset, rank=32 if weights == "lora" else 0)
    engine = Engine(
        policy,
        Optimizer(lr=1e-5),
        device=device,
        zero_stage=stage,
        precision=policy.precision,
        recompute=recompute,  # type: ignore[arg-type]
        compiled=not arguments.plain,
    )
    seen, taken = observe(policy.config, batch), drawn(policy.config, batch)

    def step() -> None:
        for micro in range(arguments.micros):
            loss = loss_of(*engine("evaluate_actions", seen, {"tokens": taken})) / arguments.micros
            engine.backward(loss, last=micro == arguments.micros - 1)
        engine.step()

    release()
    seconds, memory = alternate([step], max(1, arguments.repeats // 2))[0], peak()
    engine.close()
    return seconds, memory


# ----------------------------------------------------------------------------------------------------------------------
# What is measured


def loss_of(log_probs: Tensor, entropy: Tensor, values: Tensor) -> Tensor:
    return -log_probs.mean() - 0.01 * entropy.mean() + (values - 1.0).square().mean()


def config_of(preset: str, rank: int = 0) -> OpenVLAOFTConfig:
    precision = "bf16" if preset == "7b" else "fp32"
    return OpenVLAOFTConfig.from_options(
        {"preset": preset, **PUBLISHED, "precision": precision, "lora": {"rank": rank}}
    )


def build(preset: str, rank: int = 0) -> OpenVLAOFT:
    """The policy with random weights, made where they will be."""
    config = config_of(preset, rank)
    rng = np.random.default_rng(0)
    measured = Statistics.of(rng.uniform(-1, 1, (100, config.action_dim)), np.zeros((1, 0)), (6, 13))
    with tempfile.TemporaryDirectory() as folder:
        policy = checkpoint.build(config, measured, tokenizer_of(config, Path(folder)))
    materialise(policy, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    return policy


def build_reference(preset: str) -> Reference:
    config = config_of(preset)
    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        file = tokenizer_of(config, Path(folder)) / "tokenizer.json"
        reference = Reference(config, PreTrainedTokenizerFast(tokenizer_file=str(file)))
        rotary = type(reference.language_model.model.rotary_emb)
    reference.language_model.model.rotary_emb = rotary(reference.language_model.config)
    materialise(reference, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    return reference


def materialise(module: nn.Module, dtype: torch.dtype) -> None:
    """Draw every parameter on the GPU, if there is one, in its final type; buffers only move."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                drawn = torch.empty(parameter.shape, dtype=dtype, device=device)
                if parameter.dim() > 1:
                    drawn.normal_(0.0, min(0.05, parameter[0].numel() ** -0.5))
                else:
                    drawn.fill_(0.0 if name == "bias" else 1.0)
                part._parameters[name] = nn.Parameter(drawn, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)


def tokenizer_of(config: OpenVLAOFTConfig, folder: Path) -> Path:
    """The tiny preset's own tokenizer, or one of Llama's size that makes 36 tokens of the prompt."""
    if config.vocab_size != 32000:
        return DIRECTORY
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, " ": config.prompt_end_id}
    free = (index for index in range(config.vocab_size) if index not in words.values())
    words |= {f"<{index}>": index for index in free}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    splits = [pre_tokenizers.Split(pattern, "isolated") for pattern in (" ", "Out:")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def observe(config: OpenVLAOFTConfig, batch: int) -> Observation:
    rng, side = np.random.default_rng(batch), config.image_size
    head = rng.integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
    wrist = rng.integers(0, 256, (batch, 2, 3, side, side), dtype=np.uint8)
    return Observation.from_arrays(head, wrist, np.zeros((batch, 0), np.float32), [INSTRUCTION] * batch)


def cameras(seen: Observation) -> np.ndarray:
    return torch.cat([seen.head[:, None], seen.wrist], dim=1).numpy()


def drawn(config: OpenVLAOFTConfig, batch: int) -> Tensor:
    return torch.randint(0, 256, (batch, config.chunk, config.action_dim), generator=torch.Generator().manual_seed(1))


def share_weights(ours: OpenVLAOFT, reference: Reference) -> None:
    """Give the reference our weights; what it has beyond them keeps its own and takes no part in the result."""
    mine = dict(ours.named_parameters())
    for name, parameter in reference.named_parameters():
        if ".attn.qkv." in name:
            start, end = name.split("qkv")
            parts = [mine.pop(f"{start}qkv.{part}{end}", None) for part in "qkv"]
            if None not in parts:
                parameter.copy_(torch.cat(parts))
        elif name in mine:
            parameter.copy_(mine.pop(name))
    assert not mine, f"the reference has no {sorted(mine)}"


@torch.no_grad()
def difference(ours: OpenVLAOFT, reference: Reference) -> float:
    """How far apart the two sides' log-probs of the same ids are, at most."""
    seen, taken = observe(ours.config, 2), drawn(ours.config, 2)
    weight = reference.value_head.mlp[0].weight
    pixels, ids = reference.process(cameras(seen), list(seen.instructions))
    pixels, ids = pixels.to(weight.device, weight.dtype), ids.to(weight.device)
    wanted = taken.flatten(1).to(weight.device) + ours.config.vocab_size - 256
    theirs = reference.evaluate(pixels, ids, wanted)[0]
    return float((ours.evaluate_actions(seen, {"tokens": taken}).log_probs.flatten(1) - theirs).abs().max())


# ----------------------------------------------------------------------------------------------------------------------
# How it is measured


def forward_flops(config: OpenVLAOFTConfig, prompt: int = 36) -> float:
    """Floating-point operations of one sample's forward pass."""
    patches, flops = config.patches, 0.0
    for tower, tokens in ((config.dino, patches + 1 + config.dino.registers), (config.siglip, patches)):
        block = 2 * tokens * (4 * tower.width**2 + 2 * tower.width * tower.mlp) + 4 * tokens**2 * tower.width
        flops += config.images * ((tower.depth - 1) * block + 2 * patches * 3 * config.patch_size**2 * tower.width)
    features, wide, hidden = config.dino.width + config.siglip.width, config.projector_width, config.hidden
    flops += 2 * config.images * patches * (features * wide + wide * hidden + hidden**2)
    length, read = config.images * patches + prompt + config.positions, config.positions
    layer = 2 * length * (4 * hidden**2 + 3 * hidden * config.mlp) + 4 * length**2 * hidden
    last = (
        2 * length * 2 * hidden**2 + 2 * read * (2 * hidden**2 + 3 * hidden * config.mlp) + 4 * read * length * hidden
    )
    return flops + (config.layers - 1) * layer + last + 2 * read * hidden * 256


def lora_flops(config: OpenVLAOFTConfig, weights: str, rank: int = 32) -> float:
    """What LoRA adds to a sample's training step: three products with each of the language model's additions."""
    if weights == "full":
        return 0.0
    length, hidden, mlp = config.images * config.patches + 36 + config.positions, config.hidden, config.mlp
    return 3 * 2 * length * rank * config.layers * (4 * 2 * hidden + 3 * (hidden + mlp))


if __name__ == "__main__":
    main()
