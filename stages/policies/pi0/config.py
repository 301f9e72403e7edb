"""The dimensions of a pi0 policy: the published 3.3 B's, and smaller presets of the same classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from stages.policies.fields import check, check_choices, preset_of, replaced
from stages.policies.interface import PolicyConfigError, Precision

Version = Literal["pi0", "pi05"]
Sampler = Literal["flow_ode", "flow_sde", "flow_cps", "flow_noise"]


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The SigLIP tower.

    Attributes:
        width: of a patch's feature.
        depth: blocks.
        heads: attention heads.
        mlp: hidden width of a block's MLP.
    """

    width: int = 1152
    depth: int = 27
    heads: int = 16
    mlp: int = 4304


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """One of the two Gemma streams; what both share is in `Pi0Config`.

    Attributes:
        width: of a hidden state.
        mlp: hidden width of a layer's gated MLP.
    """

    width: int
    mlp: int


@dataclasses.dataclass(frozen=True)
class Pi0Config:
    """A pi0 policy; the defaults are the published pi0's.

    Attributes:
        version: `pi0` sees proprioception as a token; `pi05` has adaptive norms in the expert and no state token.
        image_size: pixels of a camera image's side; other sizes are resized with padding.
        patch_size: pixels of a patch's side.
        images: cameras a decision sees: 1 the head's, 2 and the first wrist's, 3 and the second's.
        vision: the SigLIP tower.
        vlm: the prefix stream, PaliGemma's language model.
        expert: the suffix stream, the action expert.
        layers: of both streams.
        heads: attention heads of both streams.
        kv_heads: heads of keys and values.
        head_width: of an attention head.
        rope_theta: base of the rotary frequencies.
        vocab_size: rows of the token embedding.
        prompt_length: most tokens of a prompt (published: 48 of pi0, 200 of pi05).
        discrete_state: the prompt spells out the proprioception in 256 bins (pi05 alone).
        horizon: H, steps that are denoised together; the first K of them are carried out. 0 for H = K.
        chunk: K.
        action_width: D, numbers of a step inside the network: actions and proprioception are padded with zeros to it.
        action_dim: A.
        proprio_dim: P; 0 for none.
        normalise: `zscore` (pi0), `quantile` (pi05), or `auto` by version.
        delta_actions: the network's actions are differences to the proprioception, all but every seventh, the gripper.
        sampler: how a denoising step draws: `flow_ode` not at all, `flow_sde`, `flow_cps`, or `flow_noise` with a
            learned deviation; see `flow.py`.
        num_steps: N, denoising steps.
        noise_level: of flow_sde and flow_cps.
        noise_range: least and largest deviation of flow_noise.
        joint_log_prob: every step draws, and log-probs are the mean over all of them and the initial noise; else one
            step k of each decision draws, and log-probs are that step's. RLinf shares k over a batch, here each
            decision has its own, from its episode's random numbers.
        ignore_last: the last step never draws.
        squared_log_prob: log-probs are -(x - mean)^2 instead of the Gaussian's (RLinf's `safe_get_logprob`).
        value_position: values are read from the `expert`'s states or from the `vlm`'s.
        value_vlm_mode: which of the vlm's states: `mean_token`, `last_token` or `first_token`.
        value_widths: hidden widths of the value head.
        value_of_chunk: the expert's states of the first K steps alone.
        detach_value: values send no gradient into the network.
        averaged_rollout_values: as RLinf's rollout, `act` gives the mean value of all denoising steps although training
            sees the drawn step's; for comparison.
        padding_in_mean: as RLinf, `mean_token` counts the padding of prompts up to `prompt_length`; for comparison.
        train_expert_only: PaliGemma stays as it is.
        value_init: `zero` starts at value 0 everywhere; `normal` draws N(0, 0.02).
        precision: `fp32`, `mixed` or `bf16`; see `stages.policies.interface.Precision`.
        attention: `eager` is an explicit softmax, `sdpa` torch's fused kernels, `auto` eager on a CPU, sdpa on a GPU.
    """

    version: Version = "pi0"
    image_size: int = 224
    patch_size: int = 14
    images: int = 3
    vision: VisionConfig = VisionConfig()
    vlm: StreamConfig = StreamConfig(width=2048, mlp=16384)
    expert: StreamConfig = StreamConfig(width=1024, mlp=4096)
    layers: int = 18
    heads: int = 8
    kv_heads: int = 1
    head_width: int = 256
    rope_theta: float = 10000.0
    vocab_size: int = 257152
    prompt_length: int = 48
    discrete_state: bool = False
    horizon: int = 50
    chunk: int = 8
    action_width: int = 32
    action_dim: int = 14
    proprio_dim: int = 0
    normalise: Literal["auto", "zscore", "quantile"] = "auto"
    delta_actions: bool = False
    sampler: Sampler = "flow_sde"
    num_steps: int = 4
    noise_level: float = 0.5
    noise_range: tuple[float, float] = (0.08, 0.16)
    joint_log_prob: bool = False
    ignore_last: bool = False
    squared_log_prob: bool = False
    value_position: Literal["expert", "vlm"] = "expert"
    value_vlm_mode: Literal["mean_token", "last_token", "first_token"] = "mean_token"
    value_widths: tuple[int, int, int] = (512, 256, 128)
    value_of_chunk: bool = False
    detach_value: bool = False
    averaged_rollout_values: bool = False
    padding_in_mean: bool = False
    train_expert_only: bool = False
    value_init: Literal["zero", "normal"] = "zero"
    precision: Precision = "bf16"
    attention: Literal["auto", "eager", "sdpa"] = "auto"

    def __post_init__(self) -> None:
        """Refuse dimensions that do not fit together."""
        check_choices(self)
        whole = self.image_size % self.patch_size == 0
        check(whole, "image_size", self.image_size, f"a multiple of {self.patch_size}")
        check(self.images in (1, 2, 3), "images", self.images, "1, 2 or 3: head, first wrist, second wrist")
        for place, width, heads in (
            ("vision.width", self.vision.width, self.vision.heads),
            ("heads", self.heads, self.kv_heads),
            ("head_width", self.head_width, 2),
            ("expert.width", self.expert.width, 2),
        ):
            check(width % heads == 0, place, width, f"a multiple of {heads}")
        for place in ("chunk", "action_dim", "layers", "num_steps", "prompt_length"):
            check(getattr(self, place) >= 1, place, getattr(self, place), "1 or more")
        check(self.proprio_dim >= 0, "proprio_dim", self.proprio_dim, "0 (none) or more")
        check(self.steps >= self.chunk, "horizon", self.horizon, f"0, or chunk={self.chunk} or more")
        wide = self.action_dim <= self.action_width
        check(wide, "action_dim", self.action_dim, f"action_width={self.action_width} at most")
        state = self.version == "pi0" or self.discrete_state
        fits = not state or self.proprio_dim <= self.action_width
        check(fits, "proprio_dim", self.proprio_dim, f"action_width={self.action_width} at most, or 0")
        spoken = self.version == "pi05" or not self.discrete_state
        check(spoken, "discrete_state", self.discrete_state, "false unless version is pi05")
        seen = self.proprio_dim > 0 or not self.discrete_state
        check(seen, "discrete_state", self.discrete_state, "false without proprioception")
        check(self.noise_level >= 0, "noise_level", self.noise_level, "0 or more")
        low, high = self.noise_range
        check(0 < low <= high, "noise_range", self.noise_range, "two deviations above 0, the lesser first")
        others = not self.ignore_last or (self.num_steps > 1 and not self.joint_log_prob)
        check(others, "ignore_last", self.ignore_last, "false where num_steps is 1 or joint_log_prob is set")
        from_state = self.proprio_dim >= self.action_dim or not self.delta_actions
        check(from_state, "delta_actions", self.delta_actions, f"false unless proprio_dim >= {self.action_dim}")

    @property
    def steps(self) -> int:
        """H."""
        return self.horizon or self.chunk

    @property
    def patches(self) -> int:
        """Patches of one image, which are its tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def quantiles(self) -> bool:
        """Whether numbers are normalised by quantiles, not by mean and deviation."""
        return self.normalise == "quantile" or (self.normalise == "auto" and self.version == "pi05")

    @property
    def stored(self) -> int:
        """Elements of a chain that are kept: all, or the pair around the step that drew."""
        return self.num_steps + 1 if self.joint_log_prob else 2

    def to_json(self) -> dict[str, Any]:
        """The config as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Pi0Config:
        """Build a config from a preset and fields that differ from it.

        Args:
            options: field names and values, and `preset` (`base` by default, `small` or `tiny`).

        Returns:
            The config.

        Raises:
            PolicyConfigError: a field is unknown, of the wrong type, or does not fit the others.
        """
        preset, fields = preset_of(PRESETS, options, "base")
        if fields.get("version") == "pi05":
            seen = fields.get("proprio_dim", preset.proprio_dim)
            fields = {"prompt_length": 200, "discrete_state": seen != 0} | fields
        return preset.changed(fields)

    def changed(self, options: Mapping[str, Any]) -> Pi0Config:
        """The config with some fields changed.

        Args:
            options: field names and values.

        Returns:
            The config.

        Raises:
            PolicyConfigError: a field is unknown, of the wrong type, or does not fit the others.
        """
        if options.get("lora"):
            raise PolicyConfigError("lora: pi0 has none; leave it out, or set policy.flow.train_expert_only=true")
        return replaced(self, {name: value for name, value in options.items() if name != "lora"})


PRESETS = {
    "base": Pi0Config(),
    "small": Pi0Config(
        image_size=112,
        vision=VisionConfig(width=256, depth=6, heads=4, mlp=1024),
        vlm=StreamConfig(width=512, mlp=2048),
        expert=StreamConfig(width=256, mlp=1024),
        layers=8,
        heads=8,
        head_width=64,
        vocab_size=960,
        horizon=0,
        precision="mixed",
    ),
    "tiny": Pi0Config(
        image_size=64,
        patch_size=16,
        vision=VisionConfig(width=64, depth=2, heads=4, mlp=256),
        vlm=StreamConfig(width=128, mlp=256),
        expert=StreamConfig(width=128, mlp=256),
        layers=3,
        heads=4,
        head_width=32,
        rope_theta=100.0,
        vocab_size=960,
        horizon=0,
        action_width=16,
        proprio_dim=16,
        value_widths=(128, 64, 32),
        precision="fp32",
    ),
}
