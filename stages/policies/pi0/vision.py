"""PaliGemma's SigLIP tower and its projector, under the names of their published tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.embedding import Embedding
from stages.policies.exact import LayerNorm, computed_in, exactly
from stages.policies.pi0.config import Pi0Config, VisionConfig

EPS = 1e-6


class PatchEmbedding(nn.Conv2d):
    """A convolution whose kernel is its stride, as one matrix product in float32."""

    def __init__(self, width: int, side: int) -> None:
        """Build the kernel.

        Args:
            width: of a patch's embedding.
            side: pixels of a patch's side.
        """
        super().__init__(3, width, side, stride=side)

    def forward(self, input: Tensor) -> Tensor:
        """Embed patches.

        Args:
            input: pixels in [-1, 1], float32 [N, 3, H, W].

        Returns:
            [N, patches, width].
        """
        side = self.kernel_size[0]
        rows, columns = input.shape[2] // side, input.shape[3] // side
        tiles = input.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5)
        patches = tiles.reshape(len(input), rows * columns, -1)
        assert self.bias is not None
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(patches, self.weight.flatten(1).to(input.dtype), self.bias.to(input.dtype))


class Embeddings(nn.Module):
    """Patches and their places."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the embeddings.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.patch_embedding = PatchEmbedding(config.vision.width, config.patch_size)
        self.position_embedding = Embedding(config.patches, config.vision.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, patches, width], in the pixels' type."""
        embedded: Tensor = self.patch_embedding(pixels)
        places = torch.arange(embedded.shape[1], device=pixels.device)
        return embedded + self.position_embedding(places).to(embedded.dtype)


class Attention(nn.Module):
    """Every patch attends to every patch."""

    def __init__(self, vision: VisionConfig) -> None:
        """Build the projections.

        Args:
            vision: the tower's dimensions.
        """
        super().__init__()
        self.heads = vision.heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(vision.width, vision.width) for _ in range(4))

    def forward(self, hidden: Tensor, fused: bool) -> Tensor:
        """[N, S, width] to [N, S, width]; `fused` uses torch's fused attention."""
        q, k, v = (
            projection(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
            mixed = torch.softmax(exactly(scores), dim=-1).to(v.dtype) @ v
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """Two layers with the tanh form of GELU between them."""

    def __init__(self, vision: VisionConfig) -> None:
        """Build the layers.

        Args:
            vision: the tower's dimensions.
        """
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(vision.width, vision.mlp), nn.Linear(vision.mlp, vision.width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, S, width] to [N, S, width]."""
        projected: Tensor = self.fc2(F.gelu(self.fc1(hidden), approximate="tanh"))
        return projected


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, vision: VisionConfig) -> None:
        """Build the block.

        Args:
            vision: the tower's dimensions.
        """
        super().__init__()
        self.layer_norm1, self.layer_norm2 = LayerNorm(vision.width, eps=EPS), LayerNorm(vision.width, eps=EPS)
        self.self_attn, self.mlp = Attention(vision), Mlp(vision)

    def forward(self, hidden: Tensor, fused: bool) -> Tensor:
        """[N, S, width] to [N, S, width]; `fused` uses torch's fused attention."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), fused)
        block: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return block


class Encoder(nn.Module):
    """Holds the blocks under their published name."""

    def __init__(self, vision: VisionConfig) -> None:
        """Build the blocks.

        Args:
            vision: the tower's dimensions.
        """
        super().__init__()
        self.layers = nn.ModuleList(Block(vision) for _ in range(vision.depth))


class VisionModel(nn.Module):
    """The tower."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the tower.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config.vision)
        self.post_layernorm = LayerNorm(config.vision.width, eps=EPS)
        self.narrow = config.precision == "bf16"

    def forward(self, pixels: Tensor, fused: bool) -> Tensor:
        """Features of images.

        Args:
            pixels: in [-1, 1], float32 [N, 3, H, W].
            fused: use torch's fused attention instead of an explicit softmax.

        Returns:
            [N, patches, width], bfloat16 where the weights are.
        """
        hidden: Tensor = self.embeddings(pixels)
        if self.narrow:
            hidden = hidden.bfloat16()
        for block in self.encoder.layers:
            hidden = block(hidden, fused)
        normed: Tensor = self.post_layernorm(hidden)
        return normed


class VisionTower(nn.Module):
    """Holds the tower under its published name."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the tower.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.vision_model = VisionModel(config)


class Projector(nn.Module):
    """From the tower's width to the language model's."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the layer.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.linear = nn.Linear(config.vision.width, config.vlm.width)

    def forward(self, features: Tensor) -> Tensor:
        """[..., tower's width] to [..., language model's width], in the type of the products."""
        projected: Tensor = self.linear(features.to(computed_in(features)))
        return projected
