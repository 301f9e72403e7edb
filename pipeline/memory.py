"""What a stage will need of a GPU's memory, from the config alone.

A training rank holds, in bytes, with N parameters, T of them in training, R ranks and ZeRO stage z:

    weights      N w                     w = 2 for bf16, 4 otherwise; / R where z = 3
    gradients    T w                     / R where z >= 2
    optimizer    T (8 + m)               AdamW's two moments and, for bf16, m = 4 of master weights; / R where z >= 1
    step         T 4                     for bf16: fp32 gradients while the optimizer steps; / R, at most 4e9 if z = 3
    reference    N w                     where algorithm.kl_coef holds the warm start beside the policy
    activations  samples x blocks x tokens x numbers x 2 (4 for fp32)

A compiled block of width d stores about 8 d numbers a token for its backward pass, and 2 or, where it is gated, 3 times
its MLP's width; 8 d where the MLP is recomputed, d where the block is. A step comes after the backward pass, so of step
and activations the larger counts. Buffers for communication and what the allocator wastes are not in it: leave a tenth.
"""

from __future__ import annotations

import dataclasses

from pipeline import resources
from pipeline.artifacts import Unit
from pipeline.config import Config, Sft, Update
from pipeline.flow_sizes import flow_dimensions, flow_parameters, flow_stacks
from pipeline.sizes import TARGETS, Parameters, Stack, dimensions, parameters, stacks

GIB = 2**30
ZERO_BUCKET = 1e9
"""Parameters that ZeRO-3 steps at a time."""


@dataclasses.dataclass(frozen=True)
class Size:
    """What of a policy takes memory.

    Attributes:
        count: its parameters.
        stacks: its blocks that are trained.
        largest: the blocks that a decision's forward pass is largest in.
        beside: numbers that a sample's forward pass stores beside the blocks.
    """

    count: Parameters
    stacks: list[Stack]
    largest: Stack
    beside: int = 0


def measure(config: Config) -> Size:
    """The size of a config's policy."""
    if config.policy.name == "pi0":
        flow = flow_dimensions(config)
        whole = flow_stacks(dataclasses.replace(flow, train_expert_only=False))
        return Size(flow_parameters(flow), flow_stacks(flow), whole[0])
    size, lora = dimensions(config), config.policy.lora
    count = parameters(size, lora.rank, tuple(lora.targets or TARGETS))
    return Size(
        count, stacks(size), stacks(size)[0], 2 * size.images * size.patches * (size.projector_width + size.hidden)
    )


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a unit of a stage needs on each GPU that its policy uses, or on CPU cores in each process.

    Attributes:
        stage: which.
        ranks: processes that share the policy's training; 1 where none does.
        parts: GiB by what they hold.
    """

    stage: str
    ranks: int
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """GiB in all; of a step and activations the larger."""
        both = {"step", "activations"}
        rest = sum(size for part, size in self.parts.items() if part not in both)
        return rest + max(self.parts.get(part, 0.0) for part in both)

    def __str__(self) -> str:
        """One line."""
        scale, unit, digits = (1, "GiB", 1) if self.total >= 1 else (1024, "MiB", 0)
        shown = {part: f"{size * scale:.{digits}f}" for part, size in self.parts.items()}
        parts = ", ".join(f"{part} {size}" for part, size in shown.items() if float(size))
        over = f" on each of {self.ranks} ranks" if self.ranks > 1 else ""
        return f"{self.stage}: about {self.total * scale:.{digits}f} {unit}{over} ({parts})"


def estimate(config: Config) -> list[Memory]:
    """What each stage that has a policy will need.

    Args:
        config: of the run, its placement included.

    Returns:
        The stages in their order.
    """
    size = measure(config)
    width = 2 if config.policy.precision == "bf16" else 4
    acting = {name: _acting(config, size, width, name) for name in ("rollout", "evaluate")}
    sft = _training(config, config.sft, size, "sft", config.sft.batch)
    update = _training(config, config.update, size, "update", config.update.minibatch)
    return [*([sft] if config.sft.steps else []), acting["rollout"], update, acting["evaluate"]]


def _training(config: Config, block: Sft | Update, size: Size, stage: str, batch: int) -> Memory:
    ranks = resources.share(config, Unit(int(stage == "update"), stage)).processes
    zero, bf16 = config.deepspeed.zero_stage, config.policy.precision == "bf16"
    width = 2 if bf16 else 4
    samples = min(block.micro_batch or batch, -(-batch // ranks))
    whole, trained = size.count.total, size.count.trained
    stepped = trained / ranks
    parts = {
        "weights": whole * width / (ranks if zero == 3 else 1),
        "gradients": trained * width / (ranks if zero >= 2 else 1),
        "optimizer": trained * (12 if bf16 else 8) / (ranks if zero else 1),
        "step": 4 * (min(stepped, ZERO_BUCKET) if zero == 3 else stepped) if bf16 else 0,
        "activations": samples * _stored(size, block.recompute) * (4 if config.policy.precision == "fp32" else 2),
    }
    if stage == "update" and config.algorithm.kl_coef:
        parts["reference"] = whole * width
    return Memory(stage, ranks, {part: value / GIB for part, value in parts.items()})


def _acting(config: Config, size: Size, width: int, stage: str) -> Memory:
    """Without gradients one block at a time stores anything."""
    block = getattr(config, stage)
    batch = block.num_envs // block.pipeline_stage_num
    largest = size.largest
    seen = batch * largest.tokens * (6 * largest.width + 2 * largest.inside // 3)
    return Memory(stage, 1, {"weights": size.count.total * width / GIB, "activations": seen * width / GIB})


def _stored(size: Size, recompute: str) -> int:
    """Numbers a sample's forward pass stores for its backward pass; of what is recomputed one block's at a time."""
    stored = size.beside
    for stack in size.stacks:
        width, inside = stack.width, stack.inside
        kept = {"none": 8 * width + inside, "mlp": 8 * width, "block": width}[recompute]
        stored += stack.tokens * (stack.blocks * kept + (8 * width + inside - kept))
    return stored
