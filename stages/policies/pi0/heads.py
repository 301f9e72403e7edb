"""What reads the expert's states beside the velocity: the value head, and the learned deviation of flow_noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stages.policies.exact import ExactLinear
from stages.policies.pi0.config import Pi0Config


class ValueHead(nn.Module):
    """Four layers from a hidden state to the expected return."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        stream = config.expert if config.value_position == "expert" else config.vlm
        widths = (stream.width, *config.value_widths)
        layers: list[nn.Module] = []
        for inward, outward in zip(widths, widths[1:], strict=False):
            layers += [ExactLinear(inward, outward), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, ExactLinear(widths[-1], 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, width] to float32 [B]."""
        values: Tensor = self.mlp(hidden)
        return values[:, 0]


class NoiseLayer(nn.Module):
    """A matrix product under RLinf's name."""

    def __init__(self, inward: int, outward: int) -> None:
        """Build the matrix.

        Args:
            inward: width of the input.
            outward: of the output.
        """
        super().__init__()
        self.linear_1 = ExactLinear(inward, outward)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inward] to [..., outward]."""
        projected: Tensor = self.linear_1(hidden)
        return projected


class NoiseMlp(nn.Module):
    """Three layers with tanh between them, under RLinf's names."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        widths = (config.expert.width, 128, 64, config.action_width)
        self.moduleList = nn.ModuleList(NoiseLayer(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] to [..., D]."""
        first, second, last = self.moduleList
        raw: Tensor = last(torch.tanh(second(torch.tanh(first(hidden)))))
        return raw


class NoiseHead(nn.Module):
    """The deviation of flow_noise: between the bounds of the config, in the logarithm."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.low, self.high = (2 * math.log(bound) for bound in config.noise_range)
        self.mlp_logvar = NoiseMlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Deviations.

        Args:
            hidden: [B, H, width], the expert's states.

        Returns:
            [B, H, D].
        """
        share = (torch.tanh(self.mlp_logvar(hidden)) + 1) / 2
        return torch.exp(0.5 * (self.low + (self.high - self.low) * share))
