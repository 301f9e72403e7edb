"""The dimensions of an OpenVLA-OFT policy: the real 7B's, and a tiny preset of the same classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from stages.policies.interface import PolicyConfigError, Precision, nearest
from stages.policies.statistics import Bounds

ACTION_BINS = 256
"""Action tokens: the last 256 ids of the unpadded vocabulary."""


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """A vision tower.

    Attributes:
        width: of a patch's feature.
        depth: blocks of the published tower. Features leave the last but one, so depth - 1 blocks are built.
        heads: attention heads.
        mlp: hidden width of a block's MLP.
        registers: register tokens beside the class token (the DINOv2 tower only).
    """

    width: int
    depth: int
    heads: int
    mlp: int
    registers: int = 0


@dataclasses.dataclass(frozen=True)
class OpenVLAOFTConfig:
    """An OpenVLA-OFT policy; the defaults are the published 7B's.

    Attributes:
        image_size: pixels of a camera image's side.
        patch_size: pixels of a patch's side.
        images: cameras a decision sees (head, left wrist, right wrist).
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
        dims_per_position: action numbers read at one position. 1 is the original, read from the language model's own
            head; more are read by a linear head of their own, which shortens the sequence by this factor.
        bounds: what the actions' normalisation maps to -1 and 1: `q99` quantiles, or `minmax` (ALOHA).
        value_widths: hidden widths of the value head.
        camera_embedding: add a learned vector for each camera to its patches (the original has none).
        action_embedding: add a learned vector to each zeroed action position (the original has none).
        position_std: initial standard deviation of position, camera and action embeddings.
        token_std: initial standard deviation of token embeddings.
        precision: `fp32`, or `bf16` computation under autocast; logits and values are float32 in both.
        attention: `eager` is an explicit softmax, `sdpa` torch's fused kernels, `auto` eager on a CPU, sdpa on a GPU.
    """

    image_size: int = 224
    patch_size: int = 14
    images: int = 3
    dino: TowerConfig = TowerConfig(width=1024, depth=24, heads=16, mlp=4096, registers=4)
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
    dims_per_position: int = 1
    bounds: Bounds = "q99"
    value_widths: tuple[int, int] = (512, 128)
    camera_embedding: bool = False
    action_embedding: bool = False
    position_std: float = 0.02
    token_std: float = 0.02
    precision: Precision = "bf16"
    attention: Literal["auto", "eager", "sdpa"] = "auto"

    def __post_init__(self) -> None:
        """Refuse dimensions that do not fit together."""
        whole = self.image_size % self.patch_size == 0
        _check(whole, "image_size", self.image_size, f"a multiple of {self.patch_size}")
        _check(self.images == 3, "images", self.images, "3: head, left wrist, right wrist")
        for place, width, heads in (
            ("dino.width", self.dino.width, self.dino.heads),
            ("siglip.width", self.siglip.width, self.siglip.heads),
            ("hidden", self.hidden, 2 * self.heads),
        ):
            _check(width % heads == 0, place, width, f"a multiple of {heads}")
        for place, depth in (("dino.depth", self.dino.depth), ("siglip.depth", self.siglip.depth)):
            _check(depth >= 2, place, depth, "2 or more: the last block is not used")
        _check(self.dino.mlp % self.dino.width == 0, "dino.mlp", self.dino.mlp, f"a multiple of {self.dino.width}")
        _check(self.chunk >= 1, "chunk", self.chunk, "1 or more")
        _check(self.action_dim >= 1, "action_dim", self.action_dim, "1 or more")
        _check(self.proprio_dim >= 0, "proprio_dim", self.proprio_dim, "0 (none) or more")
        tokens = self.chunk * self.action_dim
        fits = self.dims_per_position >= 1 and tokens % self.dims_per_position == 0
        _check(fits, "dims_per_position", self.dims_per_position, f"a divisor of chunk * action_dim = {tokens}")
        _check(self.precision in ("fp32", "bf16"), "precision", self.precision, "fp32 or bf16")
        _check(self.attention in ("auto", "eager", "sdpa"), "attention", self.attention, "auto, eager or sdpa")
        _check(self.bounds in ("q99", "minmax"), "bounds", self.bounds, "q99 or minmax")

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def positions(self) -> int:
        """Positions at which actions are read."""
        return self.chunk * self.action_dim // self.dims_per_position

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
        fields = dict(options)
        preset = fields.pop("preset", "7b")
        if preset not in PRESETS:
            raise PolicyConfigError(f"preset: no preset is called {preset!r}; known: {', '.join(PRESETS)}")
        base = PRESETS[preset]
        changes: dict[str, Any] = {}
        for key, value in fields.items():
            if key not in base.__dataclass_fields__:
                raise PolicyConfigError(f"{key}: unknown; {nearest(key, list(base.__dataclass_fields__))}")
            changes[key] = _typed(key, value, getattr(base, key))
        return dataclasses.replace(base, **changes)


def _typed(key: str, value: Any, like: Any) -> Any:
    """`value` as the type of `like`: towers from mappings, tuples from lists, whole numbers where floats are meant."""
    if isinstance(like, TowerConfig) and isinstance(value, Mapping):
        known = list(TowerConfig.__dataclass_fields__)
        for part in value:
            if part not in known:
                raise PolicyConfigError(f"{key}.{part}: unknown; {nearest(part, known)}")
        parts = {part: _typed(f"{key}.{part}", number, 0) for part, number in value.items()}
        return dataclasses.replace(like, **parts)
    if isinstance(like, tuple) and isinstance(value, list | tuple) and len(value) == len(like):
        return tuple(_typed(f"{key}[{i}]", part, like[i]) for i, part in enumerate(value))
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(like):
        raise PolicyConfigError(f"{key}: {value!r} is not of the type of {like!r}")
    return value


def _check(holds: bool, place: str, value: Any, remedy: str) -> None:
    if not holds:
        raise PolicyConfigError(f"{place}: {value!r} does not fit; it must be {remedy}")


PRESETS = {
    "7b": OpenVLAOFTConfig(),
    "tiny": OpenVLAOFTConfig(
        image_size=64,
        patch_size=16,
        dino=TowerConfig(width=64, depth=2, heads=4, mlp=256, registers=1),
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
        position_std=0.3,
        token_std=0.3,
        precision="fp32",
    ),
}
