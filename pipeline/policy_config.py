"""What a run says of its policy."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.block import Block, Count, Index, NonNegative
from pipeline.flow_config import Flow

PRESETS = {"openvla_oft": ("tiny", "7b"), "pi0": ("tiny", "small", "base")}
"""Policy -> its presets."""
OPTIONS = {
    "openvla_oft": (
        *("image_size", "patch_size", "images", "resize", "crop", "dino", "siglip", "projector_width", "hidden"),
        *("layers", "heads", "mlp", "rms_norm_eps", "rope_theta", "vocab_size", "prompt_end_id", "proprio_dim"),
        *("stop_token", "action_head", "film", "top_k", "dims_per_position", "bounds", "value_widths", "value_level"),
        *("value_position", "value_init", "prompt_length", "class_position", "camera_embedding", "action_embedding"),
        *("position_std", "token_std", "attention"),
    ),
    "pi0": (
        *("image_size", "patch_size", "images", "vision", "vlm", "expert", "layers", "heads", "kv_heads"),
        *("head_width", "rope_theta", "vocab_size", "prompt_length", "discrete_state", "action_width", "proprio_dim"),
        *("normalise", "delta_actions", "noise_range", "squared_log_prob", "value_widths", "value_init", "attention"),
    ),
}
"""Policy -> fields of its own config that the run's config has no field for."""


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

    name: Literal["openvla_oft", "pi0"] = "openvla_oft"
    """folder under stages/policies; pi0.5 is pi0 with flow.version=pi05"""
    preset: Literal["tiny", "small", "base", "7b"] = "tiny"
    """dimensions of the architecture: tiny or 7b of openvla_oft; tiny, small or base (the published one) of pi0"""
    checkpoint: str | None = None
    """directory of a policy to start from, Baton's or a published one; null: random weights from the seed"""
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
    flow: Flow = Flow()
    """how a flow policy draws, for pi0 alone"""
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
        self._belongs()
        if self.name == "pi0" and self.flow.horizon is not None and self.flow.horizon < self.chunk:
            raise ValueError(
                f"flow.horizon={self.flow.horizon} is less than policy.chunk={self.chunk}, the actions that a decision "
                f"carries out: set flow.horizon to {self.chunk} or more"
            )
        return self

    def _belongs(self) -> None:
        """Refuse what the named policy does not have."""
        if self.preset not in PRESETS[self.name]:
            raise ValueError(f"preset={self.preset} is not one of {self.name}: set {' or '.join(PRESETS[self.name])}")
        known = OPTIONS[self.name]
        for option in self.options:
            if option in Flow.model_fields and self.name == "pi0":
                raise ValueError(f"options.{option} has a field of its own: set policy.flow.{option}")
            if option in Policy.model_fields:
                raise ValueError(f"options.{option} has a field of its own: set policy.{option}")
            if option not in known:
                near = difflib.get_close_matches(option, known, n=1)
                meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"options.{option} is no option of {self.name}: {meant}")
        if self.name == "pi0":
            if self.lora.rank or self.lora.adapter is not None:
                raise ValueError("lora is not made for pi0: leave it out, or set policy.flow.train_expert_only=true")
        elif different := [field for field in Flow.model_fields if getattr(self.flow, field) != getattr(Flow(), field)]:
            raise ValueError(f"flow.{different[0]} is of flow policies: leave it out, or set policy.name=pi0")
