"""Makes images fit the policy, as the originals do: PIL's resize, and the middle of an image enlarged again."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from stages.policies.interface import Observation, PolicyInputError
from stages.policies.openvla_oft.config import OpenVLAOFTConfig


class Images(nn.Module):
    """From a simulator's images to the towers' size."""

    taps: Tensor

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Take the settings.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.side, self.resize, self.crop = config.image_size, config.resize, config.crop
        self.fill = tuple(int(255 * channel) for channel in config.siglip.mean)  # the originals': the last tower's mean
        self.register_buffer("taps", enlargement(self.side, self.crop), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize where the size differs, and crop where the policy was trained on crops.

        Args:
            images: uint8 [N, 3, H, W].

        Returns:
            uint8 [N, 3, side, side], on the policy's device.
        """
        if images.shape[-2:] != (self.side, self.side) and len(images):
            images = self._resized(images)
        images = images.to(self.taps.device, non_blocking=True)
        return images if self.crop == 1.0 else self._middle(images)

    def _resized(self, images: Tensor) -> Tensor:
        """Each image by PIL, as the originals: its filter's rounding differs from torch's."""
        rows = [self._one(Image.fromarray(image)) for image in images.permute(0, 2, 3, 1).cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

    def _one(self, image: Image.Image) -> np.ndarray:
        """One image, [side, side, 3], by torchvision's arithmetic of sizes and PIL's bicubic filter."""
        if self.resize == "letterbox":
            width, height = image.size
            across, down = (max(height - width, 0) // 2, max(width - height, 0) // 2)
            image = ImageOps.expand(image, (across, down, across, down), fill=self.fill)
        if self.resize == "resize-naive":
            return np.asarray(image.resize((self.side, self.side), Image.Resampling.BICUBIC))
        width, height = image.size
        short = min(width, height)
        image = image.resize((self.side * width // short, self.side * height // short), Image.Resampling.BICUBIC)
        left, top = (round((size - self.side) / 2.0) for size in image.size)
        return np.asarray(image.crop((left, top, left + self.side, top + self.side)))

    def _middle(self, images: Tensor) -> Tensor:
        """The original's `center_crop`: TensorFlow's `crop_and_resize`, then its conversion to uint8."""
        enlarged = self.taps @ (images.float() / 255.0) @ self.taps.mT
        return (enlarged.clamp_(0.0, 1.0) * 255.5).to(torch.uint8)


def enlargement(side: int, share: float) -> Tensor:
    """Weights that enlarge the middle of a line by linear interpolation.

    Args:
        side: pixels of the line, before and after.
        share: of a square's area that is kept, so that its root is the share of the line.

    Returns:
        float32 [side, side]: each row has the weights of one pixel.
    """
    kept = math.sqrt(share)
    places = ((1 - kept) / 2 + kept * torch.arange(side, dtype=torch.float64, device="cpu") / (side - 1)) * (side - 1)
    distance = (places[:, None] - torch.arange(side, dtype=torch.float64, device="cpu")).abs()
    return (1.0 - distance).clamp(min=0.0).float()


def check(observation: Observation, config: OpenVLAOFTConfig) -> Observation:
    """Refuse images or proprioception of another shape than the config's.

    Args:
        observation: B decisions.
        config: the policy's; images may have any size if it says how to resize.

    Returns:
        The observation.

    Raises:
        PolicyInputError: something has another shape.
    """
    sides = {"head": observation.head.shape[-2:], "wrist": observation.wrist.shape[-2:]}
    if config.resize == "refuse":
        sides = dict.fromkeys(sides, torch.Size([config.image_size] * 2))
    for place, found, expected in (
        ("head", observation.head.shape[1:], (3, *sides["head"])),
        ("wrist", observation.wrist.shape[2:], (3, *sides["wrist"])),
        ("proprio", observation.proprio.shape[1:], (config.proprio_dim or observation.proprio.shape[1],)),
    ):
        if tuple(found) != expected:
            raise PolicyInputError(
                f"{place} has shape {tuple(found)}, this policy takes {expected}: "
                "set the simulator and the policy to one image_size and proprio_dim, or policy.options.resize"
            )
    return observation
