"""How large an OpenVLA-OFT policy is, from the config alone: its dimensions, its matrices and its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from pipeline.config import Config
from pipeline.simulator_facts import robot

TARGETS = ("proj", "qkv", "fc1", "fc2", "fc3", "lm_head", "q_proj", "k_proj", "v_proj", "o_proj") + (
    *("gate_proj", "up_proj", "down_proj"),
)
"""The originals' list of what LoRA adds to."""
BASE = ("vision_backbone", "projector", "language_model")
"""What LoRA freezes."""


@dataclasses.dataclass(frozen=True)
class Tower:
    """Dimensions of a vision tower, as in the policy's config."""

    width: int
    depth: int
    mlp: int
    registers: int = 0


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """Dimensions of an OpenVLA-OFT policy, under the names of the policy's config."""

    image_size: int = 224
    patch_size: int = 14
    images: int = 3
    dino: Tower = Tower(1024, 24, 4096, 4)
    siglip: Tower = Tower(1152, 27, 4304)
    projector_width: int = 8704
    hidden: int = 4096
    layers: int = 32
    mlp: int = 11008
    vocab_size: int = 32000
    chunk: int = 8
    action_dim: int = 14
    proprio_dim: int = 0
    dims_per_position: int = 1
    value_widths: tuple[int, int] = (512, 128)
    camera_embedding: bool = False
    action_embedding: bool = False
    class_position: bool = False

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def positions(self) -> int:
        """Positions at which actions are read."""
        return self.chunk * self.action_dim // self.dims_per_position


PRESETS = {
    "7b": Dimensions(),
    "tiny": Dimensions(
        image_size=64,
        patch_size=16,
        dino=Tower(64, 2, 256, 1),
        siglip=Tower(64, 2, 256),
        projector_width=256,
        hidden=128,
        layers=3,
        mlp=256,
        vocab_size=959,
        dims_per_position=14,
        value_widths=(128, 64),
        camera_embedding=True,
        action_embedding=True,
        class_position=True,
    ),
}
PROMPT = 40
"""Tokens of a prompt, about."""
PROPRIO = 16
"""Numbers of proprioception, about: the simulator alone knows, and they hardly count."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A matrix of the policy, `count` times: the path of its module, its sides, and whether it has a bias."""

    path: str
    inputs: int
    outputs: int
    count: int = 1
    bias: bool = True

    @property
    def parameters(self) -> int:
        """Numbers in all of them."""
        return self.count * self.outputs * (self.inputs + self.bias)


@dataclasses.dataclass(frozen=True)
class Parameters:
    """How many numbers a policy has, and how many of them are trained."""

    total: int
    trained: int


@dataclasses.dataclass(frozen=True)
class Stack:
    """Blocks in a row: how many, and of each the tokens of a decision, its width and the numbers a token has inside."""

    blocks: int
    tokens: int
    width: int
    inside: int


def dimensions(config: Config) -> Dimensions:
    """The policy's dimensions: the preset's, which a checkpoint is taken to be of, with what the config changes."""
    base = PRESETS[config.policy.preset]
    changes: dict[str, Any] = {"chunk": config.policy.chunk, "action_dim": config.policy.action_dim}
    changes["proprio_dim"] = PROPRIO if config.policy.proprio else 0
    if config.policy.checkpoint is None:
        changes["image_size"] = config.simulator.image_size
        if (body := robot(config.simulator)) is not None:
            changes["images"] = 1 + body.wrist_cameras
    known = {field.name for field in dataclasses.fields(Dimensions)}
    for name, value in config.policy.options.items():
        if isinstance(value, dict) and isinstance(tower := getattr(base, name, None), Tower):
            value = dataclasses.replace(tower, **{key: v for key, v in value.items() if hasattr(tower, key)})
        if name in known:
            changes[name] = value
    return dataclasses.replace(base, **changes)


def parameters(size: Dimensions, rank: int = 0, targets: tuple[str, ...] = TARGETS) -> Parameters:
    """Count a policy's parameters.

    Args:
        size: its dimensions.
        rank: of LoRA; 0 for none.
        targets: last parts of the names that LoRA adds to, or `all-linear`.
    """
    every = list(_matrices(size))
    base = [matrix for matrix in every if matrix.path.split(".")[0] in BASE]
    vectors = _vectors(size)
    total = sum(matrix.parameters for matrix in every) + sum(vectors.values())
    if not rank:
        return Parameters(total, total)
    added = sum(m.count * rank * (m.inputs + m.outputs) for m in base if _adapted(m.path, targets))
    frozen = sum(matrix.parameters for matrix in base) + vectors["base"]
    return Parameters(total + added, total - frozen + added)


def sequence_length(size: Dimensions) -> int:
    """Tokens that the language model sees of a decision."""
    return size.images * size.patches + PROMPT + size.positions


def stacks(size: Dimensions) -> list[Stack]:
    """The blocks of the language model and of the towers."""
    found = [Stack(size.layers, sequence_length(size), size.hidden, 3 * size.mlp)]
    for tower in (size.dino, size.siglip):
        prefix = 1 + tower.registers if tower.registers else 0
        found.append(Stack(tower.depth - 1, size.images * (size.patches + prefix), tower.width, 2 * tower.mlp))
    return found


def _matrices(size: Dimensions) -> Iterator[Matrix]:
    """All matrices of a policy."""
    pixels = 3 * size.patch_size**2
    for name, tower in (("featurizer", size.dino), ("fused_featurizer", size.siglip)):
        place, width, blocks = f"vision_backbone.{name}", tower.width, tower.depth - 1
        yield Matrix(f"{place}.patch_embed.proj", pixels, width)
        yield Matrix(f"{place}.blocks.attn.qkv", width, 3 * width, blocks)
        yield Matrix(f"{place}.blocks.attn.proj", width, width, blocks)
        yield Matrix(f"{place}.blocks.mlp.fc1", width, tower.mlp, blocks)
        yield Matrix(f"{place}.blocks.mlp.fc2", tower.mlp, width, blocks)
    features, hidden, layers = size.dino.width + size.siglip.width, size.hidden, size.layers
    yield Matrix("projector.fc1", features, size.projector_width)
    yield Matrix("projector.fc2", size.projector_width, hidden)
    yield Matrix("projector.fc3", hidden, hidden)
    rows = -(-(size.vocab_size + 1) // 64) * 64  # the vocabulary and <PAD>, up to a multiple of 64
    yield Matrix("language_model.model.embed_tokens", hidden, rows, bias=False)
    for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
        yield Matrix(f"language_model.model.layers.self_attn.{projection}", hidden, hidden, layers, False)
    for projection in ("gate_proj", "up_proj"):
        yield Matrix(f"language_model.model.layers.mlp.{projection}", hidden, size.mlp, layers, False)
    yield Matrix("language_model.model.layers.mlp.down_proj", size.mlp, hidden, layers, False)
    if size.dims_per_position == 1:
        yield Matrix("language_model.lm_head", hidden, rows, bias=False)
    else:
        yield Matrix("action_head_tokens", hidden, 256 * size.dims_per_position, bias=False)
    first, second = size.value_widths
    yield Matrix("value_head.0", hidden, first)
    yield Matrix("value_head.2", first, second)
    yield Matrix("value_head.4", second, 1, bias=False)
    if size.proprio_dim:
        yield Matrix("proprio_projector.fc1", size.proprio_dim, hidden)
        yield Matrix("proprio_projector.fc2", hidden, hidden)


def _vectors(size: Dimensions) -> dict[str, int]:
    """Numbers in norms and embeddings of places: of the base, and of what LoRA leaves in training."""
    base = size.hidden * (2 * size.layers + 1)
    for tower in (size.dino, size.siglip):
        own = 1 + tower.registers + size.class_position if tower.registers else 0
        base += tower.width * (size.patches + own + (tower.depth - 1) * (6 if tower.registers else 4))
    rest = size.camera_embedding * size.images + size.action_embedding * size.positions
    return {"base": base, "rest": rest * size.hidden}


def _adapted(path: str, targets: tuple[str, ...]) -> bool:
    """Whether LoRA adds to a matrix; `all-linear` means none of the patch embeddings, word embeddings and outputs."""
    last = path.rsplit(".", 1)[-1]
    everywhere = "all-linear" in targets and not path.endswith(("patch_embed.proj", "embed_tokens", "lm_head"))
    return last in targets or everywhere
