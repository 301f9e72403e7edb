"""Flow matching: the path from noise to actions, its loss, and one denoising step in four kinds.

Time runs from 1, pure noise, to 0, the actions. Where x_t is seen with velocity v, the actions are expected at
x0 = x - v t and the noise at x1 = x + v (1 - t). A step of length d leads to s = t - d and draws from a Gaussian:

    flow_ode     mean x0 (1 - s) + x1 s                              std 0      (the Euler step x - v d)
    flow_sde     mean x0 (1 - s) + x1 (s - sigma^2 d / (2 t))        std sqrt(d) sigma
    flow_cps     mean x0 (1 - s) + x1 s cos(pi level / 2)            std s sin(pi level / 2)
    flow_noise   mean as flow_ode                                    std learned

with sigma = level sqrt(t / (1 - t)), where t = 1 counts as the next time (RLinf's pi_RL, arXiv 2510.25889).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stages.policies.pi0.config import Sampler

SHORTEST, LONGEST = 4e-3, 4.0
"""Periods of the time embedding."""
ALPHA, BETA, SCALE, OFFSET = 1.5, 1.0, 0.999, 0.001
"""Training sees the time Beta(ALPHA, BETA) SCALE + OFFSET: more noise than actions, and never no noise at all."""

OF_STANDARD = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of the initial noise, a standard Gaussian."""


class Step(NamedTuple):
    """The Gaussian that a denoising step draws from.

    Attributes:
        mean: [B, H, D].
        std: [B or 1, H or 1, D or 1], 0 where nothing is drawn.
    """

    mean: Tensor
    std: Tensor


def time_embedding(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times, computed in float64.

    Args:
        time: [B].
        width: even.

    Returns:
        [B, width], in the times' type.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    periods = SHORTEST * (LONGEST / SHORTEST) ** fraction
    angles = 2 * math.pi / periods * time.double()[:, None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(time.dtype)


def noisy(actions: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Where the path from noise to actions is at a time, and the velocity there.

    Args:
        actions: [B, H, D].
        noise: likewise.
        time: [B].

    Returns:
        x_t = t noise + (1 - t) actions, and noise - actions, each [B, H, D].
    """
    t = time[:, None, None]
    return t * noise + (1 - t) * actions, noise - actions


def times(sampler: Sampler, steps: int, device: torch.device) -> Tensor:
    """Times before and after each denoising step: 1, 1 - 1/N, ..., 1/N, 0.

    The shortest period of the time embedding makes the last bit of a time count, so they are rounded as in the
    originals: flow_ode is openpi's own sampler, which goes down by -1/N again and again; RLinf's divide the line.

    Args:
        sampler: kind of the steps.
        steps: N.
        device: where to.

    Returns:
        float32 [N + 1].
    """
    if sampler == "flow_ode":
        down = [torch.ones((), device=device)]
        for _ in range(steps):
            down.append(down[-1] + torch.full_like(down[0], -1 / steps))  # cumsum would add in float64
        return torch.stack(down)
    grid = torch.linspace(1, 1 / steps, steps, device=device)
    return torch.cat([grid, grid.new_zeros(1)])


def denoise(
    sampler: Sampler, x: Tensor, velocity: Tensor, index: Tensor, steps: int, level: Tensor, learned: Tensor | None
) -> Step:
    """One denoising step.

    Args:
        sampler: its kind.
        x: [B, H, D], the chain so far.
        velocity: [B, H, D], the network's.
        index: int64 [B], which of the steps.
        steps: N.
        level: [B], how widely to draw: the noise level of flow_sde and flow_cps, a factor of the learned deviation of
            flow_noise; 0 makes the step that of flow_ode.
        learned: [B, H, D], the deviation of flow_noise.

    Returns:
        The Gaussian.
    """
    grid = times(sampler, steps, x.device)
    t, s = (grid[index + later][:, None, None].to(x.dtype) for later in (0, 1))
    delta, level = t - s, level[:, None, None].to(x.dtype)
    actions, noise = x - velocity * t, x + velocity * (1 - t)
    weight, std = s, torch.zeros_like(t)
    if sampler == "flow_sde":
        next_one = grid[1].to(x.dtype)
        sigma = level * torch.sqrt(t / (1 - torch.where(t == 1, next_one, t)))
        weight, std = s - sigma**2 * delta / (2 * t), torch.sqrt(delta) * sigma
    elif sampler == "flow_cps":
        angle = math.pi * level / 2
        weight, std = s * torch.cos(angle), s * torch.sin(angle)
    elif sampler == "flow_noise":
        assert learned is not None, "flow_noise has a head for it"
        std = learned * level
    return Step(actions * (1 - s) + noise * weight, std)


def log_density(x: Tensor, step: Step, squared: bool = False) -> Tensor:
    """Log-density of each number drawn by a step.

    Args:
        x: [B, H, D], what was drawn.
        step: from what.
        squared: give -(x - mean)^2 instead.

    Returns:
        [B, H, D], 0 where nothing is drawn.
    """
    if squared:
        return -((x - step.mean) ** 2)
    drawn = step.std > 0
    std = torch.where(drawn, step.std, 1.0)
    density = -torch.log(std) - 0.5 * math.log(2 * math.pi) - 0.5 * ((x - step.mean) / std) ** 2
    return torch.where(drawn, density, 0.0)


def entropy(step: Step) -> Tensor:
    """Entropy 0.5 log(2 pi e std^2) of what a step draws, of the deviation's shape; 0 where it draws nothing."""
    drawn = step.std > 0
    return torch.where(drawn, OF_STANDARD + torch.log(torch.where(drawn, step.std, 1.0)), 0.0)
