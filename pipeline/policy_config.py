"""What a run says of its policy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.block import Block, Count, Index, NonNegative


class Lora(Block):
    """Low-rank additions that are trained while the weights they add to stay as they are."""

    rank: Index = 0
    """of an addition; 0: none, all weights are trained, or what the checkpoint itself has"""
    alpha: NonNegative = 0.0
    """an addition is scaled by alpha / rank; 0: alpha = rank"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of an addition's inputs that is dropped in training"""
    targets: list[str] | None = None
    """last parts of the names of the modules that get one, or [all-linear]; null: the originals' list"""
    adapter: str | None = None
    """directory with peft's files to start from; it decides all of the above"""

    @model_validator(mode="after")
    def one_source(self) -> Lora:
        """Refuse settings beside an adapter that has its own."""
        own = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout, "targets": self.targets}
        if self.adapter is not None and any(own.values()):
            beside = ", ".join(name for name, value in own.items() if value)
            raise ValueError(f"lora.adapter has its own {beside}: leave them out")
        return self


class Policy(Block):
    """The policy and its size."""

    name: Literal["openvla_oft"] = "openvla_oft"
    """folder under stages/policies"""
    preset: Literal["tiny", "7b"] = "tiny"
    """dimensions of the architecture"""
    checkpoint: str | None = None
    """directory in Hugging Face layout to start from, Baton's or a published one; null: random weights from the seed"""
    statistics: str | None = None
    """what normalises actions: `demonstrations`, or a data set that the checkpoint knows; null: its only one"""
    lora: Lora = Lora()
    """low-rank additions"""
    chunk: Count = 8
    """K, actions a decision commits to"""
    action_dim: Count = 14
    """A, numbers an action has"""
    proprio: bool = True
    """whether the policy sees the robot's proprioception"""
    precision: Literal["fp32", "mixed", "bf16"] = "mixed"
    """fp32; mixed: bf16 arithmetic on fp32 weights; bf16: bf16 weights too, whose fp32 masters the optimizer holds"""
    compile: bool = False
    """run the blocks through torch.compile and, on a GPU, replay small batches as CUDA graphs"""
    options: dict[str, Any] = {}
    """overrides of single fields of the preset or the checkpoint, e.g. images, top_k, stop_token, value_init"""

    @model_validator(mode="after")
    def parts_fit(self) -> Policy:
        """Refuse what the stages cannot train."""
        if self.options.get("value_level") == "action":
            raise ValueError("options.value_level=action: the objectives take one value a decision; use chunk")
        if self.options.get("action_head") == "l1":
            raise ValueError("options.action_head=l1: the L1 head has no probabilities to train; use tokens")
        if self.lora.adapter is not None and self.checkpoint is None:
            raise ValueError("lora.adapter adds to a policy: name that one in policy.checkpoint")
        return self
