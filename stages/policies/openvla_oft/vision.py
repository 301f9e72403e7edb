"""The two vision towers and the projector, from transformers' own blocks.

Features leave each tower before its last block, without the final norm, so neither is built.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2WithRegistersConfig, SiglipVisionConfig
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersEmbeddings,
    Dinov2WithRegistersLayer,
)
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer, SiglipVisionEmbeddings

from stages.policies.openvla_oft.config import OpenVLAOFTConfig

# ImageNet's, rounded to bfloat16 in the published preprocessor
DINO_MEAN, DINO_STD = (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)
SIGLIP_MEAN, SIGLIP_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
MIDDLE = 128.0
"""Taken from pixels, so that they are small whole numbers on both sides of 0."""


class PatchEmbedding(nn.Conv2d):
    """A convolution whose kernel is its stride, as one matrix product over pixels as they come.

    The tower's normalisation (pixel / 255 - mean) / std is folded into weight and bias, so both towers read the same
    cut-up image, whose whole numbers are exact even in bfloat16.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, like: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take over a convolution's parameters.

        Args:
            like: the convolution.
            mean: of the three colours, of pixels in [0, 1].
            std: likewise.
        """
        side = like.kernel_size[0]
        super().__init__(like.in_channels, like.out_channels, side, stride=side)
        self.weight, self.bias = like.weight, like.bias
        centre, spread = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", (1.0 / (255.0 * spread))[None, :, None], persistent=False)
        self.register_buffer("shift", ((MIDDLE / 255.0 - centre) / spread)[None, :, None], persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Embed patches.

        Args:
            input: [N, patches, 3 p p], from `cut`.

        Returns:
            [N, patches, width].
        """
        weight = self.weight.flatten(2)
        offset = (weight * self.shift).sum(dim=(1, 2))
        bias = offset if self.bias is None else self.bias + offset
        return F.linear(input, (weight * self.scale).flatten(1), bias)


def cut(images: Tensor, side: int) -> Tensor:
    """Cut images into patches.

    Args:
        images: uint8 [N, 3, H, W].
        side: pixels of a patch's side.

    Returns:
        float32 [N, patches, 3 side side], pixels less 128.
    """
    rows, columns = images.shape[2] // side, images.shape[3] // side
    tiles = images.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(len(images), rows * columns, -1).float().sub_(MIDDLE)


class DinoEmbeddings(Dinov2WithRegistersEmbeddings):
    """Class token, registers and patches; the mask token of pre-training is left out."""

    def __init__(self, native: Dinov2WithRegistersConfig) -> None:
        """Build the embeddings.

        Args:
            native: transformers' config of the tower.
        """
        super().__init__(native)
        self.mask_token = None  # type: ignore[assignment]
        projection = self.patch_embeddings.projection
        self.patch_embeddings = PatchEmbedding(projection, DINO_MEAN, DINO_STD)  # type: ignore[assignment]

    def forward(self, patches: Tensor) -> Tensor:  # type: ignore[override]
        """Embed.

        Args:
            patches: [N, patches, 3 p p].

        Returns:
            [N, 1 + registers + patches, width]; only class token and patches have a position.
        """
        embedded = self.patch_embeddings(patches)
        places = self.position_embeddings.to(embedded.dtype)
        first, registers = self.cls_token.to(embedded.dtype) + places[:, :1], self.register_tokens.to(embedded.dtype)
        prefix = torch.cat([first, registers], dim=1)
        return torch.cat([prefix.expand(len(patches), -1, -1), embedded + places[:, 1:]], dim=1)


class SiglipEmbeddings(SiglipVisionEmbeddings):
    """Patches and their positions."""

    def __init__(self, native: SiglipVisionConfig) -> None:
        """Build the embeddings.

        Args:
            native: transformers' config of the tower.
        """
        super().__init__(native)
        self.patch_embedding = PatchEmbedding(self.patch_embedding, SIGLIP_MEAN, SIGLIP_STD)

    def forward(self, patches: Tensor) -> Tensor:  # type: ignore[override]
        """Embed.

        Args:
            patches: [N, patches, 3 p p].

        Returns:
            [N, patches, width].
        """
        embedded = self.patch_embedding(patches)
        places: Tensor = self.position_embedding(self.position_ids)
        return embedded + places.to(embedded.dtype)


class DinoTower(nn.Module):
    """DINOv2 with registers, up to the last block but one."""

    def __init__(self, config: OpenVLAOFTConfig, attention: str) -> None:
        """Build the tower.

        Args:
            config: the policy's.
            attention: `eager` or `sdpa`.
        """
        super().__init__()
        tower = config.dino
        native = Dinov2WithRegistersConfig(
            hidden_size=tower.width,
            num_hidden_layers=tower.depth - 1,
            num_attention_heads=tower.heads,
            mlp_ratio=tower.mlp // tower.width,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_register_tokens=tower.registers,
        )
        native._attn_implementation = attention
        self.embeddings = DinoEmbeddings(native)
        self.layers = nn.ModuleList(Dinov2WithRegistersLayer(native) for _ in range(tower.depth - 1))
        self.prefix = 1 + tower.registers

    def forward(self, patches: Tensor) -> Tensor:
        """Features of patches.

        Args:
            patches: [N, patches, 3 p p].

        Returns:
            [N, patches, width].
        """
        hidden: Tensor = self.embeddings(patches)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden[:, self.prefix :]


class SiglipTower(nn.Module):
    """SigLIP, up to the last block but one."""

    def __init__(self, config: OpenVLAOFTConfig, attention: str) -> None:
        """Build the tower.

        Args:
            config: the policy's.
            attention: `eager` or `sdpa`.
        """
        super().__init__()
        tower = config.siglip
        native = SiglipVisionConfig(
            hidden_size=tower.width,
            num_hidden_layers=tower.depth - 1,
            num_attention_heads=tower.heads,
            intermediate_size=tower.mlp,
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_act="gelu",  # the published tower's is exact; transformers' default is the tanh approximation
        )
        native._attn_implementation = attention
        self.embeddings = SiglipEmbeddings(native)
        self.layers = nn.ModuleList(SiglipEncoderLayer(native) for _ in range(tower.depth - 1))

    def forward(self, patches: Tensor) -> Tensor:
        """Features of patches.

        Args:
            patches: [N, patches, 3 p p].

        Returns:
            [N, patches, width].
        """
        hidden: Tensor = self.embeddings(patches)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=None)
        return hidden


class VisionBackbone(nn.Module):
    """Both towers, under the published names: `featurizer` is DINOv2, `fused_featurizer` SigLIP."""

    def __init__(self, config: OpenVLAOFTConfig, attention: str) -> None:
        """Build both towers.

        Args:
            config: the policy's.
            attention: `eager` or `sdpa`.
        """
        super().__init__()
        self.patch_size = config.patch_size
        self.featurizer = DinoTower(config, attention)
        self.fused_featurizer = SiglipTower(config, attention)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: uint8 [N, 3, H, W].

        Returns:
            [N, patches, dino width + siglip width].
        """
        patches = cut(images, self.patch_size)
        if torch.is_autocast_enabled(images.device.type):
            patches = patches.to(torch.get_autocast_dtype(images.device.type))  # once for both towers
        return torch.cat([self.featurizer(patches), self.fused_featurizer(patches)], dim=-1)


class Projector(nn.Module):
    """Three layers from the towers' features to the language model's width; both GELUs are exact."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.fc1 = nn.Linear(config.dino.width + config.siglip.width, config.projector_width)
        self.fc2 = nn.Linear(config.projector_width, config.hidden)
        self.fc3 = nn.Linear(config.hidden, config.hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Project.

        Args:
            features: [..., dino width + siglip width].

        Returns:
            [..., hidden].
        """
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))


class ProprioProjector(nn.Module):
    """Two layers from normalised proprioception to one token."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.fc1 = nn.Linear(config.proprio_dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)

    def forward(self, proprio: Tensor) -> Tensor:
        """Project.

        Args:
            proprio: [B, P] in [-1, 1].

        Returns:
            [B, hidden].
        """
        return self.fc2(F.gelu(self.fc1(proprio)))
