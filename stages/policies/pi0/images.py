"""Makes images fit the tower: resized with black bars, and scaled to [-1, 1], as openpi's PyTorch code does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stages.policies.interface import Observation, PolicyInputError
from stages.policies.pi0.config import Pi0Config


def pixels_of(observation: Observation, config: Pi0Config, device: torch.device) -> Tensor:
    """The images of a batch as the tower takes them.

    Args:
        observation: B decisions, with images of any size.
        config: the policy's.
        device: where the pixels go.

    Returns:
        float32 [B, images, 3, side, side] in [-1, 1]: the head's, then the wrists'.
    """
    cameras = observation.cameras(config.images)
    fitting = [
        resize_with_pad(scaled(camera.flatten(0, 1).to(device)), config.image_size).unflatten(0, camera.shape[:2])
        for camera in cameras
    ]
    return torch.cat(fitting, dim=1)


def scaled(images: Tensor) -> Tensor:
    """Bytes as float32 in [-1, 1]."""
    return images.float() / 255.0 * 2.0 - 1.0


def resize_with_pad(images: Tensor, side: int) -> Tensor:
    """Resize to a square, keeping the proportions; black bars fill what is left.

    Args:
        images: float32 [N, 3, H, W] in [-1, 1].
        side: pixels of the square's side.

    Returns:
        float32 [N, 3, side, side].
    """
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    ratio = max(height, width) / side
    shape = (max(1, int(height / ratio)), max(1, int(width / ratio)))
    resized = F.interpolate(images, size=shape, mode="bilinear", align_corners=False).clamp(-1.0, 1.0)
    above, before = ((side - length) // 2 for length in shape)
    bars = (before, side - shape[1] - before, above, side - shape[0] - above)
    return F.pad(resized, bars, value=-1.0)


def check(observation: Observation, config: Pi0Config) -> Observation:
    """Refuse images that are none, or proprioception of another length than the config's.

    Args:
        observation: B decisions.
        config: the policy's.

    Returns:
        The observation.

    Raises:
        PolicyInputError: something has another shape.
    """
    numbers = config.proprio_dim or observation.proprio.shape[1]
    for place, found, expected in (
        ("head", observation.head.shape[1:-2], (3,)),
        ("wrist", observation.wrist.shape[2:-2], (3,)),
        ("proprio", observation.proprio.shape[1:], (numbers,)),
    ):
        if tuple(found) != expected:
            raise PolicyInputError(
                f"{place} has shape {tuple(found)}, this policy takes {expected}: "
                "set the simulator and the policy to one proprio_dim"
            )
    return observation
