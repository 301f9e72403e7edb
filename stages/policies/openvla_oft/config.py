"""The dimensions of an OpenVLA-OFT policy: the real 7B's, and a tiny preset of the same classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from stages.policies.fields import check, check_choices, preset_of, replaced
from stages.policies.interface import Precision
from stages.policies.statistics import Bounds

ACTION_BINS = 256
"""Action tokens: the last 256 ids of the unpadded vocabulary."""

Resize = Literal["refuse", "resize-naive", "resize-crop", "letterbox"]


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A vision tower.

    Attributes:
        width: of a patch's feature.
        depth: blocks of the published tower. Features leave the last but one, so depth - 1 blocks are built.
        heads: attention heads.
        mlp: hidden width of a block's MLP.
        registers: register tokens beside the class token (the DINOv2 tower only).
        mean: of the three colours of pixels in [0, 1], taken away before they are embedded.
        std: what they are divided by then.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    registers: int = 0
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


# ImageNet's, rounded to bfloat16 as in the published preprocessor
IMAGENET_MEAN, IMAGENET_STD = (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)

LORA_TARGETS = (
    *("proj", "qkv", "fc1", "fc2", "q", "kv", "fc3", "out_proj"),
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
)
"""What the originals adapt."""


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Low-rank additions to frozen weights.

    Attributes:
        rank: of an addition; 0 trains all weights instead.
        alpha: an addition is scaled by alpha / rank; 0 for alpha = rank.
        dropout: share of an addition's inputs that is dropped in training.
        targets: last parts of the names of the modules that get one, or `all-linear`.
    """

    rank: int = 0
    alpha: float = 0.0
    dropout: float = 0.0
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self) -> None:
        """Refuse what is no LoRA."""
        check(self.rank >= 0, "lora.rank", self.rank, "0 (none) or more")
        check(self.alpha >= 0, "lora.alpha", self.alpha, "above 0, or 0 for alpha = rank")
        check(0 <= self.dropout < 1, "lora.dropout", self.dropout, "in [0, 1)")
        check(self.rank == 0 or bool(self.targets), "lora.targets", self.targets, "names of modules")


@dataclasses.dataclass(frozen=True)
class OpenVLAOFTConfig:
    """An OpenVLA-OFT policy; the defaults are the published 7B's.

    Attributes:
        image_size: pixels of a camera image's side.
        patch_size: pixels of a patch's side.
        images: cameras a decision sees: 1 the head's, 2 and the first wrist's, 3 and the second's.
        resize: how images of another size are made to fit: `refuse` them, or as the original's PIL path does,
            `resize-naive` (stretch), `resize-crop` (the shorter side, then its middle), `letterbox` (pad to a square).
        crop: share of an image's area that is kept, its middle, enlarged again (the original's `center_crop` is 0.9).
        dino: the first tower, DINOv2 with registers.
        siglip: the second tower, SigLIP.
        projector_width: hidden width of the projector's first layer (the original: four times the towers' together).
        hidden: width of the language model.
        layers: of the language model.
        heads: attention heads of the language model.
        mlp: hidden width of the language model's MLP.
        rms_norm_eps: of the language model's norms.
        rope_theta: base of the rotary frequencies.
        vocab_size: of the tokenizer, action ids included, `<PAD>` not.
        prompt_end_id: the token every prompt ends with, a lone space.
        chunk: K, actions a decision.
        action_dim: A.
        proprio_dim: P; 0 for none.
        stop_token: whether </s> follows the action positions, as in supervised training of the original.
        action_head: `tokens`, or `l1` for the regression head of published policies, which can only be evaluated.
        film: whether the instruction modulates the vision towers (published policies for ALOHA).
        top_k: sample among the k likeliest of the 256 action tokens; 0 for all. Log-probs stay those of the whole
            distribution, so that a stored action has one under every later policy.
        dims_per_position: action numbers read at one position. 1 is the original, read from the language model's own
            head; more are read by a linear head of their own, which shortens the sequence by this factor.
        bounds: what the actions' normalisation maps to -1 and 1: `q99` quantiles, or `minmax` (ALOHA).
        value_widths: hidden widths of the value head.
        value_level: `chunk` for one value a decision, `action` for one of each of its actions.
        value_position: `prompt` reads values at the prompt's last token; `official` at the place counted from the end
            of a sequence padded on the right to `prompt_length`, as RLinf's version of that name does.
        value_init: `zero` starts at value 0 everywhere; `normal` draws N(0, 0.02) as RLinf does.
        prompt_length: tokens that prompts are padded to, BOS included; 0 for the longest of a batch.
        class_position: add a learned position to the class token (the original has none).
        camera_embedding: add a learned vector for each camera to its patches (the original has none).
        action_embedding: add a learned vector to each zeroed action position (the original has none).
        position_std: initial standard deviation of position, camera and action embeddings.
        token_std: initial standard deviation of token embeddings.
        precision: `fp32`, `mixed` or `bf16`; see `stages.policies.interface.Precision`.
        attention: `eager` is an explicit softmax, `sdpa` torch's fused kernels, `auto` eager on a CPU, sdpa on a GPU.
    """

    image_size: int = 224
    patch_size: int = 14
    images: int = 3
    resize: Resize = "refuse"
    crop: float = 1.0
    dino: TowerConfig = TowerConfig(
        1024, depth=24, heads=16, mlp=4096, registers=4, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    siglip: TowerConfig = TowerConfig(width=1152, depth=27, heads=16, mlp=4304)
    projector_width: int = 8704
    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    mlp: int = 11008
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    vocab_size: int = 32000
    prompt_end_id: int = 29871
    chunk: int = 8
    action_dim: int = 14
    proprio_dim: int = 0
    stop_token: bool = False
    action_head: Literal["tokens", "l1"] = "tokens"
    film: bool = False
    top_k: int = 0
    dims_per_position: int = 1
    bounds: Bounds = "q99"
    value_widths: tuple[int, int] = (512, 128)
    value_level: Literal["chunk", "action"] = "chunk"
    value_position: Literal["prompt", "official"] = "prompt"
    value_init: Literal["zero", "normal"] = "zero"
    prompt_length: int = 0
    class_position: bool = False
    camera_embedding: bool = False
    action_embedding: bool = False
    position_std: float = 0.02
    token_std: float = 0.02
    precision: Precision = "bf16"
    lora: LoRAConfig = LoRAConfig()
    attention: Literal["auto", "eager", "sdpa"] = "auto"

    def __post_init__(self) -> None:
        """Refuse dimensions that do not fit together."""
        whole = self.image_size % self.patch_size == 0
        check(whole, "image_size", self.image_size, f"a multiple of {self.patch_size}")
        check(self.images in (1, 2, 3), "images", self.images, "1, 2 or 3: head, first wrist, second wrist")
        check(0 < self.crop <= 1, "crop", self.crop, "in (0, 1]")
        for place, width, heads in (
            ("dino.width", self.dino.width, self.dino.heads),
            ("siglip.width", self.siglip.width, self.siglip.heads),
            ("hidden", self.hidden, 2 * self.heads),
        ):
            check(width % heads == 0, place, width, f"a multiple of {heads}")
        for place, depth in (("dino.depth", self.dino.depth), ("siglip.depth", self.siglip.depth)):
            check(depth >= 2, place, depth, "2 or more: the last block is not used")
        check(self.dino.registers > 0, "dino.registers", self.dino.registers, "1 or more")
        check(self.siglip.registers == 0, "siglip.registers", self.siglip.registers, "0: SigLIP has none")
        check(self.chunk >= 1, "chunk", self.chunk, "1 or more")
        check(self.action_dim >= 1, "action_dim", self.action_dim, "1 or more")
        check(self.proprio_dim >= 0, "proprio_dim", self.proprio_dim, "0 (none) or more")
        tokens = self.chunk * self.action_dim
        fits = self.dims_per_position >= 1 and tokens % self.dims_per_position == 0
        check(fits, "dims_per_position", self.dims_per_position, f"a divisor of chunk * action_dim = {tokens}")
        check_choices(self)
        check(0 <= self.top_k <= ACTION_BINS, "top_k", self.top_k, f"0 (all) to {ACTION_BINS}")
        regressed = self.action_head == "tokens" or self.dims_per_position == 1
        check(regressed, "action_head", self.action_head, "tokens where dims_per_position is above 1")
        padded = self.value_position == "prompt" or (self.stop_token and self.prompt_length > 0)
        check(padded, "value_position", self.value_position, "prompt, or stop_token and prompt_length must be set")

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def positions(self) -> int:
        """Positions at which actions are read."""
        return self.chunk * self.action_dim // self.dims_per_position

    @property
    def values(self) -> int:
        """Values of a decision."""
        return self.chunk if self.value_level == "action" else 1

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table: the vocabulary and `<PAD>`, up to a multiple of 64."""
        return math.ceil((self.vocab_size + 1) / 64) * 64

    @property
    def pad_id(self) -> int:
        """The id of `<PAD>`, right after the vocabulary."""
        return self.vocab_size

    def to_json(self) -> dict[str, Any]:
        """The config as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> OpenVLAOFTConfig:
        """Build a config from a preset and fields that differ from it.

        Args:
            options: field names and values, and `preset` (`7b` by default, or `tiny`).

        Returns:
            The config.

        Raises:
            PolicyConfigError: a field is unknown, of the wrong type, or does not fit the others.
        """
        preset, fields = preset_of(PRESETS, options, "7b")
        return preset.changed(fields)

    def changed(self, options: Mapping[str, Any]) -> OpenVLAOFTConfig:
        """The config with some fields changed.

        Args:
            options: field names and values.

        Returns:
            The config.

        Raises:
            PolicyConfigError: a field is unknown, of the wrong type, or does not fit the others.
        """
        return replaced(self, options)


PRESETS = {
    "7b": OpenVLAOFTConfig(),
    "tiny": OpenVLAOFTConfig(
        image_size=64,
        patch_size=16,
        dino=TowerConfig(64, depth=2, heads=4, mlp=256, registers=1, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        siglip=TowerConfig(width=64, depth=2, heads=4, mlp=256),
        projector_width=256,
        hidden=128,
        layers=3,
        heads=4,
        mlp=256,
        rope_theta=100.0,
        vocab_size=959,
        prompt_end_id=223,
        proprio_dim=16,
        dims_per_position=14,
        value_widths=(128, 64),
        camera_embedding=True,
        action_embedding=True,
        class_position=True,
        position_std=0.3,
        token_std=0.3,
        precision="fp32",
    ),
}
