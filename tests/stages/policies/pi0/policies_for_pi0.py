"""Small policies and what they see."""

import numpy as np
import torch

from stages.policies.interface import Observation, make
from stages.policies.pi0.policy import Pi0
from stages.policies.statistics import Statistics

PLATE, DRAWER = "put the red cube on the plate", "Open the top drawer, then put the_red cube into it"
SMALL = {
    "preset": "tiny", "image_size": 32, "patch_size": 16, "vision": {"width": 16, "depth": 1, "heads": 2, "mlp": 24},
    "vlm": {"width": 24, "mlp": 32}, "expert": {"width": 16, "mlp": 24}, "layers": 2, "heads": 2, "head_width": 8,
    "value_widths": [12, 8, 6], "chunk": 3, "horizon": 4, "action_dim": 4, "proprio_dim": 5, "action_width": 6,
    "num_steps": 3, "value_init": "normal",
}  # fmt: skip


def statistics() -> Statistics:
    rng = np.random.default_rng(1)
    return Statistics.of(rng.uniform(-0.8, 0.8, (200, 4)), rng.normal(size=(200, 5)), unchanged_actions=[3])


def policy(seed: int = 0, **options) -> Pi0:
    """A policy with random weights everywhere, pi0.5's adaptive norms too."""
    model = make("pi0", SMALL | options, statistics(), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            if name.startswith("value_head."):
                parameter.mul_(10.0)
    return model


def observation(*instructions: str, seed: int = 0, side: int = 32) -> Observation:
    rng, rows = np.random.default_rng(seed), len(instructions)
    return Observation.from_arrays(
        rng.integers(0, 256, (rows, 3, side, side), dtype=np.uint8),
        rng.integers(0, 256, (rows, 2, 3, side, side), dtype=np.uint8),
        rng.normal(size=(rows, 5)).astype(np.float32),
        list(instructions),
    )


def noise_of(model: Pi0, seeds, coherent: bool = False) -> torch.Tensor:
    return torch.from_numpy(np.stack([model.draw_noise(np.random.default_rng(s), coherent) for s in seeds]))


def imitation_noise(model: Pi0, rows: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(model.draw_imitation_noise(np.random.default_rng(seed), rows))
