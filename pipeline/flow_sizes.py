"""How large a pi0 policy is, from the config alone: its dimensions, its parameters and its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from pipeline.config import Config
from pipeline.simulator_facts import robot
from pipeline.sizes import PROMPT, PROPRIO, Matrix, Parameters, Stack


@dataclasses.dataclass(frozen=True)
class Vision:
    """Dimensions of the vision tower, as in the policy's config."""

    width: int
    depth: int
    mlp: int


@dataclasses.dataclass(frozen=True)
class Stream:
    """Dimensions of one of the two Gemma streams, as in the policy's config."""

    width: int
    mlp: int


@dataclasses.dataclass(frozen=True)
class FlowDimensions:
    """Dimensions of a pi0 policy, under the names of the policy's config."""

    version: str = "pi0"
    image_size: int = 224
    patch_size: int = 14
    images: int = 3
    vision: Vision = Vision(1152, 27, 4304)
    vlm: Stream = Stream(2048, 16384)
    expert: Stream = Stream(1024, 4096)
    layers: int = 18
    heads: int = 8
    kv_heads: int = 1
    head_width: int = 256
    vocab_size: int = 257152
    prompt_length: int = 48
    horizon: int = 50
    chunk: int = 8
    action_width: int = 32
    proprio_dim: int = 0
    sampler: str = "flow_sde"
    num_steps: int = 4
    joint_log_prob: bool = False
    value_position: str = "expert"
    value_widths: tuple[int, int, int] = (512, 256, 128)
    train_expert_only: bool = False

    @property
    def prefix(self) -> int:
        """Tokens of images and prompt."""
        return self.images * (self.image_size // self.patch_size) ** 2 + min(PROMPT, self.prompt_length)

    @property
    def suffix(self) -> int:
        """Tokens of state and actions."""
        return (self.horizon or self.chunk) + (self.version == "pi0")


FLOW_PRESETS = {
    "base": FlowDimensions(),
    "small": FlowDimensions(
        image_size=112,
        vision=Vision(256, 6, 1024),
        vlm=Stream(512, 2048),
        expert=Stream(256, 1024),
        layers=8,
        head_width=64,
        vocab_size=960,
        horizon=0,
    ),
    "tiny": FlowDimensions(
        image_size=64,
        patch_size=16,
        vision=Vision(64, 2, 256),
        vlm=Stream(128, 256),
        expert=Stream(128, 256),
        layers=3,
        heads=4,
        head_width=32,
        vocab_size=960,
        horizon=0,
        action_width=16,
        value_widths=(128, 64, 32),
    ),
}


def flow_dimensions(config: Config) -> FlowDimensions:
    """The policy's dimensions: the preset's, which a checkpoint is taken to be of, with what the config changes."""
    policy = config.policy
    base = FLOW_PRESETS[policy.preset]
    given = {"chunk": policy.chunk, "proprio_dim": PROPRIO if policy.proprio else 0}
    if policy.checkpoint is None and (body := robot(config.simulator)) is not None:
        given["images"] = 1 + body.wrist_cameras
    changes: dict[str, Any] = {}
    for name, value in (given | policy.options | policy.flow.options()).items():
        part = getattr(base, name, None)
        if isinstance(value, dict) and isinstance(part, (Vision, Stream)):
            value = dataclasses.replace(part, **{key: v for key, v in value.items() if hasattr(part, key)})
        if hasattr(base, name):
            changes[name] = value
    return dataclasses.replace(base, **changes)


def flow_parameters(size: FlowDimensions) -> Parameters:
    """Count a policy's parameters.

    Args:
        size: its dimensions.
    """
    seeing, acting = list(_paligemma(size)), list(_expert(size))
    frozen = sum(m.parameters for m in seeing) + _vectors(size, "vlm") if size.train_expert_only else _unread(size)
    total = sum(matrix.parameters for matrix in (*seeing, *acting)) + _vectors(size, "vlm") + _vectors(size, "expert")
    return Parameters(total, total - frozen)


def flow_stacks(size: FlowDimensions) -> list[Stack]:
    """The blocks whose insides a backward pass needs; where all denoising steps draw, the expert's once each."""
    passes = size.num_steps if size.joint_log_prob else 1
    expert = Stack(size.layers, passes * size.suffix, size.expert.width, 3 * size.expert.mlp)
    if size.train_expert_only:
        return [expert]
    patches = size.images * (size.image_size // size.patch_size) ** 2
    vision = Stack(size.vision.depth, patches, size.vision.width, 2 * size.vision.mlp)
    return [Stack(size.layers, size.prefix, size.vlm.width, 3 * size.vlm.mlp), expert, vision]


def _paligemma(size: FlowDimensions) -> Iterator[Matrix]:
    """The matrices of the vision tower and its language model."""
    width, depth = size.vision.width, size.vision.depth
    yield Matrix("vision.patch_embedding", 3 * size.patch_size**2, width)
    yield Matrix("vision.self_attn", width, width, 4 * depth)
    yield Matrix("vision.mlp.fc1", width, size.vision.mlp, depth)
    yield Matrix("vision.mlp.fc2", size.vision.mlp, width, depth)
    yield Matrix("multi_modal_projector", width, size.vlm.width)
    yield Matrix("lm_head", size.vlm.width, size.vocab_size, bias=False)
    yield from _stream(size, size.vlm)


def _expert(size: FlowDimensions) -> Iterator[Matrix]:
    """The matrices of the action expert and of what reads it."""
    width, read = size.expert.width, size.vlm.width if size.value_position == "vlm" else size.expert.width
    yield from _stream(size, size.expert)
    yield Matrix("action_in_proj", size.action_width, width)
    yield Matrix("action_out_proj", width, size.action_width)
    if size.version == "pi0":
        yield Matrix("state_proj", size.action_width, width)
        yield Matrix("action_time_mlp_in", 2 * width, width)
        yield Matrix("action_time_mlp_out", width, width)
    else:
        yield Matrix("time_mlp", width, width, 2)
        yield Matrix("norms.dense", width, 3 * width, 2 * size.layers + 1)
    for inputs, outputs in zip((read, *size.value_widths), (*size.value_widths, 1), strict=True):
        yield Matrix("value_head", inputs, outputs)
    if size.sampler == "flow_noise":
        for inputs, outputs in zip((width, 128, 64), (128, 64, size.action_width), strict=True):
            yield Matrix("noise_head", inputs, outputs)


def _stream(size: FlowDimensions, stream: Stream) -> Iterator[Matrix]:
    queries, keys = size.heads * size.head_width, size.kv_heads * size.head_width
    for inputs, outputs, count in ((stream.width, queries, 1), (stream.width, keys, 2), (queries, stream.width, 1)):
        yield Matrix("self_attn", inputs, outputs, count * size.layers, bias=False)
    yield Matrix("mlp", stream.width, stream.mlp, 3 * size.layers, bias=False)


def _vectors(size: FlowDimensions, stream: str) -> int:
    """Numbers in norms and embeddings of places."""
    if stream == "expert":
        return size.expert.width * (2 * size.layers + 1) if size.version == "pi0" else 0
    patches = (size.image_size // size.patch_size) ** 2
    return size.vlm.width * (2 * size.layers + 1) + size.vision.width * (patches + 4 * size.vision.depth + 2)


def _unread(size: FlowDimensions) -> int:
    """What nothing reads where values are not the vision-language model's: its last layer but for keys and values."""
    if size.value_position == "vlm":
        return 0
    queries = size.heads * size.head_width
    return size.vlm.width * (2 * queries + 3 * size.vlm.mlp + 2)
