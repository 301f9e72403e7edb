"""Small OpenVLA-OFT policies, and what they see."""

import numpy as np
import torch

from stages.policies.interface import (
    Observation,
    make,
)
from stages.policies.statistics import Statistics

PLATE, STACK = "put the red cube on the plate", "Stack the red cube on the blue cube"
TOWER = {"width": 16, "depth": 2, "heads": 2, "mlp": 32}
SMALL = {
    "preset": "tiny", "image_size": 32, "dino": TOWER, "siglip": TOWER, "projector_width": 32, "hidden": 32,
    "layers": 2, "mlp": 48, "chunk": 3, "action_dim": 4, "dims_per_position": 4, "proprio_dim": 5,
}  # fmt: skip
ORIGINAL = SMALL | {"dims_per_position": 1, "camera_embedding": False, "action_embedding": False, "proprio_dim": 0}


def statistics() -> Statistics:
    rng = np.random.default_rng(1)
    return Statistics.of(rng.uniform(-0.8, 0.8, (200, 4)), rng.normal(size=(200, 5)), unchanged_actions=[3])


def policy(**options):
    return make("openvla_oft", SMALL | options, statistics(), seed=0)


def observation(*instructions: str, seed: int = 0) -> Observation:
    rng, rows = np.random.default_rng(seed), len(instructions)
    return Observation.from_arrays(
        rng.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8),
        rng.integers(0, 256, (rows, 2, 3, 32, 32), dtype=np.uint8),
        rng.normal(size=(rows, 5)).astype(np.float32),
        list(instructions),
    )


def noise_of(model, seeds, coherent=False) -> torch.Tensor:
    return torch.from_numpy(np.stack([model.draw_noise(np.random.default_rng(s), coherent) for s in seeds]))
