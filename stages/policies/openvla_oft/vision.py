"""The two vision towers, under the names of their published tensors (timm's).

Features leave each tower before its last block, without the final norm, so neither is built.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.openvla_oft.config import OpenVLAOFTConfig, TowerConfig
from stages.policies.openvla_oft.lora import Adapted, Factor, Linear, Qkv

MIDDLE = 128.0
"""Taken from pixels, so that they are small whole numbers on both sides of 0."""
EPS = 1e-6


def cut(images: Tensor, side: int) -> Tensor:
    """Cut images into patches.

    Args:
        images: [N, 3, H, W], of 0..255.
        side: pixels of a patch's side.

    Returns:
        float32 [N, patches, 3 side side], pixels less 128; float64 stays.
    """
    rows, columns = images.shape[2] // side, images.shape[3] // side
    tiles = images.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5)
    flat = tiles.reshape(len(images), rows * columns, -1)
    return (flat if flat.dtype == torch.float64 else flat.float()) - MIDDLE


class PatchEmbedding(nn.Conv2d, Adapted):
    """A convolution whose kernel is its stride, as one matrix product over pixels as they come.

    The tower's normalisation (pixel / 255 - mean) / std is folded into weight and bias, so both towers read the same
    cut-up image, whose whole numbers are exact even in bfloat16.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, width: int, side: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """Build the kernel.

        Args:
            width: of a patch's embedding.
            side: pixels of a patch's side.
            mean: of the three colours, of pixels in [0, 1].
            std: likewise.
        """
        super().__init__(3, width, side, stride=side)
        centre, spread = (torch.tensor(values, device="cpu") for values in (mean, std))
        self.register_buffer("scale", (1.0 / (255.0 * spread))[None, :, None], persistent=False)
        self.register_buffer("shift", ((MIDDLE / 255.0 - centre) / spread)[None, :, None], persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Embed patches.

        Args:
            input: [N, patches, 3 p p], from `cut`.

        Returns:
            [N, patches, width].
        """
        kernel = self.weight + self._delta().view_as(self.weight).to(self.weight.dtype) if self.adapted else self.weight
        weight = kernel.flatten(2)
        offset = (weight * self.shift).sum(dim=(1, 2))
        bias = offset if self.bias is None else self.bias + offset
        return F.linear(input, (weight * self.scale).flatten(1).to(input.dtype), bias.to(input.dtype))

    def _factors(self, rank: int) -> tuple[Factor, Factor]:
        down = nn.Conv2d(3, rank, self.kernel_size, stride=self.stride, bias=False)  # type: ignore[arg-type]
        return down, nn.Conv2d(rank, self.out_channels, 1, bias=False)

    def _add(self, delta: Tensor) -> None:
        self.weight += delta.view_as(self.weight)


class PatchEmbed(nn.Module):
    """Holds the patch embedding under its published name."""

    def __init__(self, tower: TowerConfig, side: int) -> None:
        """Build the embedding.

        Args:
            tower: the tower's dimensions and the normalisation of its pixels.
            side: pixels of a patch's side.
        """
        super().__init__()
        self.proj = PatchEmbedding(tower.width, side, tower.mean, tower.std)


class Attention(nn.Module):
    """Every token attends to every token."""

    def __init__(self, tower: TowerConfig) -> None:
        """Build the projections.

        Args:
            tower: the tower's dimensions.
        """
        super().__init__()
        self.heads = tower.heads
        # as in transformers: SigLIP's softmax is float32 by itself, DINOv2's where autocast makes it so
        self.softmax_dtype = None if tower.registers else torch.float32
        self.qkv = Qkv(tower.width)
        self.proj = Linear(tower.width, tower.width)

    def forward(self, hidden: Tensor, fused: bool) -> Tensor:
        """[N, S, width] to [N, S, width]; `fused` uses torch's fused attention."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(hidden))
        if fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
            mixed = torch.softmax(scores, dim=-1, dtype=self.softmax_dtype).to(v.dtype) @ v
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, tower: TowerConfig) -> None:
        """Build the layers.

        Args:
            tower: the tower's dimensions.
        """
        super().__init__()
        self.fc1, self.fc2 = Linear(tower.width, tower.mlp), Linear(tower.mlp, tower.width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, S, width] to [N, S, width]."""
        projected: Tensor = self.fc2(F.gelu(self.fc1(hidden)))
        return projected


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        """Start at 1.

        Args:
            width: channels.
        """
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return hidden * self.scale_factor


class Block(nn.Module):
    """A transformer block; with FiLM the instruction scales and shifts the channels between its two branches."""

    def __init__(self, tower: TowerConfig, language: int) -> None:
        """Build the block.

        Args:
            tower: the tower's dimensions; its layers are scaled where it has registers (DINOv2).
            language: width of the vector that modulates it; 0 for none.
        """
        super().__init__()
        scaled = tower.registers > 0
        self.norm1, self.norm2 = nn.LayerNorm(tower.width, eps=EPS), nn.LayerNorm(tower.width, eps=EPS)
        self.attn, self.mlp = Attention(tower), Mlp(tower)
        self.ls1, self.ls2 = (LayerScale(tower.width) if scaled else nn.Identity() for _ in range(2))
        self.scale, self.shift = (nn.Linear(language, tower.width) if language else None for _ in range(2))

    def forward(self, hidden: Tensor, fused: bool, language: Tensor | None) -> Tensor:
        """One block.

        Args:
            hidden: [N, S, width].
            fused: use torch's fused attention instead of an explicit softmax.
            language: [N, language width] where there is FiLM, else None.

        Returns:
            [N, S, width].
        """
        hidden = self.ls1(self.attn(self.norm1(hidden), fused)) + hidden
        if self.scale is not None and self.shift is not None and language is not None:
            hidden = hidden * (1 + self.scale(language)[:, None]) + self.shift(language)[:, None]
        block: Tensor = self.ls2(self.mlp(self.norm2(hidden))) + hidden
        return block


class Tower(nn.Module):
    """A tower up to the last block but one: DINOv2 with class token and registers, or SigLIP with neither."""

    def __init__(self, config: OpenVLAOFTConfig, tower: TowerConfig) -> None:
        """Build the tower.

        Args:
            config: the policy's.
            tower: which of its towers.
        """
        super().__init__()
        self.patch_embed = PatchEmbed(tower, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, tower.width))
        self.prefix = 1 + tower.registers if tower.registers else 0
        self.cls_token = self.reg_token = self.class_position = None
        if tower.registers:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, tower.width))
            self.reg_token = nn.Parameter(torch.zeros(1, tower.registers, tower.width))
            if config.class_position:
                self.class_position = nn.Parameter(torch.zeros(1, 1, tower.width))
        language = config.hidden if config.film else 0
        self.blocks = nn.ModuleList(Block(tower, language) for _ in range(tower.depth - 1))

    def forward(self, patches: Tensor, fused: bool, language: Tensor | None = None) -> Tensor:
        """Features of patches.

        Args:
            patches: [N, patches, 3 p p].
            fused: use torch's fused attention instead of an explicit softmax.
            language: [N, language width] where there is FiLM.

        Returns:
            [N, patches, width].
        """
        hidden: Tensor = self.patch_embed.proj(patches)
        hidden = hidden + self.pos_embed.to(hidden.dtype)
        if self.cls_token is not None and self.reg_token is not None:
            first = self.cls_token.to(hidden.dtype)
            if self.class_position is not None:
                first = first + self.class_position.to(hidden.dtype)
            prefix = torch.cat([first, self.reg_token.to(hidden.dtype)], dim=1)
            hidden = torch.cat([prefix.expand(len(patches), -1, -1), hidden], dim=1)
        for block in self.blocks:
            hidden = block(hidden, fused, language)
        return hidden[:, self.prefix :]


class VisionBackbone(nn.Module):
    """Both towers, under the published names: `featurizer` is DINOv2, `fused_featurizer` SigLIP."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build both towers.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.featurizer = Tower(config, config.dino)
        self.fused_featurizer = Tower(config, config.siglip)

    def forward(self, dino: Tensor, siglip: Tensor, fused: bool, language: Tensor | None = None) -> Tensor:
        """Features of images.

        Args:
            dino: [N, patches, 3 p p], from `cut`; both towers see the same pixels, each normalises them its own way.
            siglip: likewise.
            fused: use torch's fused attention instead of an explicit softmax.
            language: [N, language width] where there is FiLM.

        Returns:
            [N, patches, dino width + siglip width].
        """
        return torch.cat(
            [self.featurizer(dino, fused, language), self.fused_featurizer(siglip, fused, language)], dim=-1
        )
