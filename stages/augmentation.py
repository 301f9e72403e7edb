"""Demonstrations as they might as well have looked: cameras moved a little, in other light, as a mirror shows a scene.

From few demonstrations a policy learns where things stood in them, how they were lit and which hand reached for them.
That says more than is meant: a picture that is moved by a few pixels or a little darker asks for the same motion, and a
robot with two arms that are each other's mirror images can do everything the other way round.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from stages.policies.interface import Observation
from stages.trajectories import Trajectories

_OTHER_SIDE = {"left": "right", "right": "left"}
_GREY = (0.299, 0.587, 0.114)  # the luma of ITU-R BT.601


@dataclasses.dataclass(frozen=True)
class Mirror:
    """What a mirror that stands between a robot's arms does to the numbers of one; then the arms change places.

    Attributes:
        action: the sign that each number of an arm's action gets.
        proprio: the sign that each number gets that an arm feels.
    """

    action: tuple[int, ...]
    proprio: tuple[int, ...]


# Positions change the sign of y, rotation vectors those of x and z, a hand's heading that of y.
MIRRORS = {"household": Mirror(action=(1, -1, 1, -1, 1, -1, 1), proprio=(1, -1, 1, 1, -1, 1, 1, 1))}
"""Simulator -> the mirror of its robot, of those whose arms and cameras are each other's mirror images."""


class Augmentation:
    """What `sft.shift`, `sft.colour` and `sft.mirror` do to the decisions of a batch.

    Args:
        config: of the run.
    """

    def __init__(self, config: Config) -> None:
        self.shift, self.colour = config.sft.shift, config.sft.colour
        self.mirror = MIRRORS[config.simulator.name] if config.sft.mirror else None

    def draw(self, rng: np.random.Generator, decisions: int, cameras: int) -> np.ndarray:
        """What chance decides.

        Args:
            rng: random stream.
            decisions: B.
            cameras: C, those at wrists counted.

        Returns:
            float32 [B, 1 + 5 C] in [0, 1): whether a decision is mirrored, then how far each picture is moved down and
            to the right, then the brightness, contrast and saturation of each.
        """
        # one after the other: what is drawn for colours changes no move
        turns_and_moves = rng.random((decisions, 1 + 2 * cameras), dtype=np.float32)
        return np.concatenate([turns_and_moves, rng.random((decisions, 3 * cameras), dtype=np.float32)], axis=1)

    def __call__(self, seen: Observation, actions: Tensor, drawn: Tensor) -> tuple[Observation, Tensor]:
        """Change decisions.

        Args:
            seen: B decisions.
            actions: float32 [B, K, A], what was done.
            drawn: float32 [B, 1 + 5 C], rows of `draw`, on the same device.

        Returns:
            What might as well have been seen, and done.
        """
        if self.mirror is not None:
            chosen = drawn[:, 0] < 0.5
            seen = where(chosen, mirrored(seen, self.mirror), seen)
            actions = torch.where(chosen[:, None, None], mirrored_arms(actions, self.mirror.action), actions)
        cameras = 1 + seen.wrist.shape[1]
        moves, colours = (
            part.unflatten(1, (cameras, -1)) for part in drawn[:, 1:].split((2 * cameras, 3 * cameras), 1)
        )
        head = self._recoloured(self._shifted(seen.head[:, None], moves[:, :1]), colours[:, :1])[:, 0]
        wrist = self._recoloured(self._shifted(seen.wrist, moves[:, 1:]), colours[:, 1:])
        return dataclasses.replace(seen, head=head, wrist=wrist), actions

    def both_ways(self, demonstrations: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N, A] and proprioception [D, P] as the policy will meet them, mirrored ones too."""
        actions, proprio = demonstrations.actions[demonstrations.valid], demonstrations.proprio
        if self.mirror is None:
            return actions, proprio
        return (
            np.concatenate([actions, mirrored_arms(torch.from_numpy(actions), self.mirror.action).numpy()]),
            np.concatenate([proprio, mirrored_arms(torch.from_numpy(proprio), self.mirror.proprio).numpy()]),
        )

    def _shifted(self, images: Tensor, moves: Tensor) -> Tensor:
        """Images [B, C, 3, H, W] moved by up to `shift` of their side, as moves [B, C, 2] in [0, 1) say."""
        most = [round(self.shift * side) for side in images.shape[-2:]]
        if not any(most):
            return images
        limits = torch.tensor(most, device=images.device)
        pixels = (moves * (2 * limits + 1)).long() - limits
        return shifted(images.flatten(0, 1), pixels.flatten(0, 1)).view_as(images)

    def _recoloured(self, images: Tensor, colours: Tensor) -> Tensor:
        """Images [B, C, 3, H, W] changed by up to `colour`, as colours [B, C, 3] in [0, 1) say."""
        if not self.colour:
            return images
        factors = 1 + self.colour * (2 * colours - 1)
        return recoloured(images.flatten(0, 1), factors.flatten(0, 1)).view_as(images)


def shifted(images: Tensor, pixels: Tensor) -> Tensor:
    """Move every image by itself; what comes in from outside repeats the edge.

    Args:
        images: [N, 3, H, W].
        pixels: int64 [N, 2], down and to the right.

    Returns:
        [N, 3, H, W].
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - pixels[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - pixels[:, 1:]).clamp(0, width - 1)
    down = images.gather(2, rows[:, None, :, None].expand_as(images))
    return down.gather(3, columns[:, None, None, :].expand_as(images))


def recoloured(images: Tensor, factors: Tensor) -> Tensor:
    """Change every image's saturation, then its contrast, then its brightness, as torchvision defines them.

    Hues stay: instructions name them.

    Args:
        images: uint8 [N, 3, H, W].
        factors: float32 [N, 3], of brightness, contrast and saturation; 1 changes nothing.

    Returns:
        uint8 [N, 3, H, W].
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    weights = torch.tensor(_GREY, device=images.device)[:, None, None]
    colours = images.float()
    grey = (colours * weights).sum(1, keepdim=True)  # [N, 1, H, W], which no change of saturation changes
    colours = grey + (colours - grey) * saturation
    middle = grey.mean((-2, -1), keepdim=True)
    colours = (middle + (colours - middle) * contrast) * brightness
    return colours.round().clamp(0, 255).to(torch.uint8)


def mirrored(seen: Observation, mirror: Mirror) -> Observation:
    """Decisions as a mirror between the arms shows them; instructions name the other side."""
    return Observation(
        head=seen.head.flip(-1),
        wrist=seen.wrist.flip(1).flip(-1),
        proprio=mirrored_arms(seen.proprio, mirror.proprio),
        instructions=[_other_side(instruction) for instruction in seen.instructions],
    )


def mirrored_arms(numbers: Tensor, signs: tuple[int, ...]) -> Tensor:
    """Numbers [..., 2 n], first one arm's and then the other's, with `signs` [n] and the arms' places changed."""
    arms = numbers.unflatten(-1, (2, len(signs)))
    return (arms.flip(-2) * arms.new_tensor(signs)).flatten(-2)


def where(chosen: Tensor, these: Observation, those: Observation) -> Observation:
    """Rows of one batch where chosen, bool [B], of the other elsewhere."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (a.dim() - 1)), a, b)

    return Observation(
        head=pick(these.head, those.head),
        wrist=pick(these.wrist, those.wrist),
        proprio=pick(these.proprio, those.proprio),
        instructions=[
            this if picked else that
            for picked, this, that in zip(chosen.tolist(), these.instructions, those.instructions, strict=True)
        ],
    )


def _other_side(instruction: str) -> str:
    return re.sub(r"\b(left|right)\b", lambda found: _OTHER_SIDE[found[0]], instruction)
