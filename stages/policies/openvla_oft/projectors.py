"""Projectors from images and proprioception to the language model's width; all GELUs are exact."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.lora import Linear


class Projector(nn.Module):
    """Three layers from the towers' features."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.fc1 = Linear(config.dino.width + config.siglip.width, config.projector_width)
        self.fc2 = Linear(config.projector_width, config.hidden)
        self.fc3 = Linear(config.hidden, config.hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Project.

        Args:
            features: [..., dino width + siglip width].

        Returns:
            [..., hidden].
        """
        projected: Tensor = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))
        return projected


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
        projected: Tensor = self.fc2(F.gelu(self.fc1(proprio)))
        return projected
