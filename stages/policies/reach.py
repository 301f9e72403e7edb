"""How far actions may go: to -1 and 1, and beyond that as far as demonstrations went, as joint angles do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from stages.policies.statistics import Moments


class Reach(nn.Module):
    """Cuts actions off at their bounds."""

    low: Tensor
    high: Tensor

    def __init__(self, moments: Moments) -> None:
        """Take the bounds.

        Args:
            moments: of the A action numbers; where their extremes are unknown their quantiles count.
        """
        super().__init__()
        low = np.fmin(-1.0, np.fmin(moments.minimum, moments.q01))
        high = np.fmax(1.0, np.fmax(moments.maximum, moments.q99))
        for name, bound in (("low", low), ("high", high)):
            self.register_buffer(name, torch.tensor(bound, dtype=torch.float64, device="cpu"), persistent=False)

    def forward(self, actions: Tensor) -> Tensor:
        """[..., A] in the environment's units as float32 [..., A] within the bounds."""
        return actions.double().clamp(self.low, self.high).float()
