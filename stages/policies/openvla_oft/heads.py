"""What is read from hidden states: action tokens, actions, and the value."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.exact import ExactLinear, LayerNorm, exactly
from stages.policies.openvla_oft.config import ACTION_BINS, OpenVLAOFTConfig
from stages.policies.openvla_oft.lora import Linear


class VocabularyHead(Linear):
    """The language model's head, of which only the action tokens' logits are computed."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the head.

        Args:
            config: the policy's.
        """
        super().__init__(config.hidden, config.padded_vocab_size, bias=False)
        self.actions = slice(config.vocab_size - ACTION_BINS, config.vocab_size)

    def forward(self, input: Tensor) -> Tensor:
        """Logits of the action tokens.

        Args:
            input: [..., hidden].

        Returns:
            float32 [..., 256]; float64 stays.
        """
        exact = exactly(input)
        logits = F.linear(exact, self.weight[self.actions].to(exact.dtype))
        if not self.adapted:
            return logits
        down, up = (part.weight.to(exact.dtype) for part in (self.lora_A, self.lora_B))
        return logits + F.linear(F.linear(self.lora_dropout(exact), down), up[self.actions]) * self.lora_scale


class TokenHead(ExactLinear):
    """A head of its own that reads several action numbers at one position: logits [..., dims per position * 256]."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the head.

        Args:
            config: the policy's.
        """
        super().__init__(config.hidden, config.dims_per_position * ACTION_BINS, bias=False)


class ValueHead(nn.Module):
    """Three layers from a hidden state to the expected return."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        first, second = config.value_widths
        self.mlp = nn.Sequential(
            ExactLinear(config.hidden, first),
            nn.GELU(),
            ExactLinear(first, second),
            nn.GELU(),
            ExactLinear(second, config.values, bias=False),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """The values.

        Args:
            hidden: [B, hidden].

        Returns:
            float32 [B, values]: one of the chunk, or one of each of its actions.
        """
        values: Tensor = self.mlp(exactly(hidden))
        return values


class ResidualBlock(nn.Module):
    """x + ReLU(W norm(x)), one block of the regression head."""

    def __init__(self, width: int) -> None:
        """Build the block.

        Args:
            width: of input and output.
        """
        super().__init__()
        self.ffn = nn.Sequential(LayerNorm(width), ExactLinear(width, width), nn.ReLU())

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        return hidden + self.ffn(hidden)


class Regression(nn.Module):
    """The layers of the regression head."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        inward = config.action_dim * config.hidden
        self.layer_norm1, self.fc1 = LayerNorm(inward), ExactLinear(inward, config.hidden)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(config.hidden) for _ in range(2))
        self.layer_norm2, self.fc2 = LayerNorm(config.hidden), ExactLinear(config.hidden, config.action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, K, A hidden] to [B, K, A]."""
        hidden = F.relu(self.fc1(self.layer_norm1(hidden)))
        for block in self.mlp_resnet_blocks:
            hidden = block(hidden)
        actions: Tensor = self.fc2(self.layer_norm2(hidden))
        return actions


class RegressionHead(nn.Module):
    """OpenVLA-OFT's L1 head: actions as numbers, without probabilities."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the head.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.chunk = config.chunk
        self.model = Regression(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalised actions.

        Args:
            hidden: [B, K A, hidden].

        Returns:
            float32 [B, K, A].
        """
        actions: Tensor = self.model(exactly(hidden).unflatten(1, (self.chunk, -1)).flatten(2))
        return actions
