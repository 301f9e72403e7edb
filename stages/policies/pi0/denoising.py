"""The denoising loop that acts, and what judges a chain it made.

The loop runs the prefix once and the expert at every step. Which numbers are drawn is in `Draws`: nothing here is
random. A chain is kept as far as log-probs need it: all of it in the joint form, else the pair around the step that
drew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.policies.pi0 import flow
from stages.policies.pi0.config import Pi0Config
from stages.policies.pi0.network import Inputs, Network

LEVELS = 2**22
"""The step that draws is chosen by a number on the middles of so many intervals, exact in float32 and never 1."""


class Draws(NamedTuple):
    """The randomness of B decisions.

    Attributes:
        start: [B, H, D], the initial noise.
        normals: [B, N, H, D] in the joint form, else [B, 1, H, D].
        step: int64 [B], the step that draws; 0 in the joint form, in which all do.
        level: [B], how widely; 0 not at all.
    """

    start: Tensor
    normals: Tensor
    step: Tensor
    level: Tensor


class Sampled(NamedTuple):
    """What the loop made of B decisions.

    Attributes:
        actions: [B, H, D], the end of the chain.
        chain: [B, N + 1 or 2, H, D], what is kept of it.
        log_probs: [B, H, D].
        values: [B].
    """

    actions: Tensor
    chain: Tensor
    log_probs: Tensor
    values: Tensor


class Judged(NamedTuple):
    """What the network thinks of chains made before.

    Attributes:
        log_probs: [B, H, D].
        entropy: of the same shape, of flow_noise; else None.
        values: [B].
    """

    log_probs: Tensor
    entropy: Tensor | None
    values: Tensor


def draw(config: Pi0Config, rng: np.random.Generator, coherent: bool) -> np.ndarray:
    """Draw the randomness of one decision.

    Args:
        config: the policy's.
        rng: the episode's generator.
        coherent: the steps' noise is shared by the horizon. The initial noise never is: the network knows no other.

    Returns:
        float32 [1 + elements of the initial noise and the steps']: first a uniform that chooses the step.
    """
    which = (rng.integers(LEVELS) + 0.5) / LEVELS
    start = rng.standard_normal((1, config.steps, config.action_width), dtype=np.float32)
    rows = 1 if coherent else config.steps
    normals = rng.standard_normal((config.stored - 1, rows, config.action_width), dtype=np.float32)
    whole = np.concatenate([start, np.broadcast_to(normals, (config.stored - 1, *start.shape[1:]))])
    return np.concatenate([np.array([which], np.float32), whole.ravel()])


def draws_of(config: Pi0Config, noise: Tensor, level: float) -> Draws:
    """The randomness of decisions, from rows of `draw`.

    Args:
        config: the policy's.
        noise: float32 [B, 1 + ...].
        level: how widely to draw.

    Returns:
        The draws.
    """
    shape = (config.stored, config.steps, config.action_width)
    normals = noise[:, 1:].unflatten(1, shape)
    step = torch.zeros(len(noise), dtype=torch.int64, device=noise.device)
    if not config.joint_log_prob:
        step = (noise[:, 0].double() * (config.num_steps - config.ignore_last)).long()
    return Draws(normals[:, 0], normals[:, 1:], step, torch.full_like(noise[:, 0], level))


def sample(network: Network, inputs: Inputs, draws: Draws, average: bool) -> Sampled:
    """Denoise.

    Args:
        network: the policy.
        inputs: B decisions.
        draws: their randomness.
        average: values are the mean over all steps, not those of the steps that draw.

    Returns:
        Chains, log-probs and values.
    """
    config, steps = network.config, network.config.num_steps
    with network.autocast():
        prefix = network.prefix(inputs)
        moments = flow.times(config.sampler, steps, draws.start.device)
        chain, densities, values = [draws.start], [], []
        for number in range(steps):
            index = torch.full_like(draws.step, number)
            level = draws.level if config.joint_log_prob else draws.level * (draws.step == number)
            states = network.suffix(prefix, inputs.state, chain[-1], moments[number].expand(len(index)))
            step = _step(network, states, chain[-1], index, level)
            drawn = step.mean + step.std * draws.normals[:, number if config.joint_log_prob else 0]
            densities.append(flow.log_density(drawn, step, config.squared_log_prob))
            values.append(network.value_of(states, prefix))
            chain.append(drawn)
    elements, of_steps, over_steps = (torch.stack(parts, dim=1) for parts in (chain, densities, values))
    if config.joint_log_prob:
        log_probs = (_of_start(config, chain[0]) + of_steps.sum(dim=1)) / (steps + 1)
        return Sampled(chain[-1], elements, log_probs, over_steps.mean(dim=1))
    rows = torch.arange(len(draws.step), device=draws.step.device)
    pair = draws.step[:, None] + torch.arange(2, device=draws.step.device)
    chosen = over_steps.mean(dim=1) if average else over_steps[rows, draws.step]
    return Sampled(chain[-1], elements[rows[:, None], pair], of_steps[rows, draws.step], chosen)


def judge(network: Network, inputs: Inputs, chain: Tensor, step: Tensor, level: float) -> Judged:
    """Judge chains made before, with gradients: all denoising steps of a chain at once.

    Args:
        network: the policy.
        inputs: B decisions, as they were seen.
        chain: [B, N + 1 or 2, H, D].
        step: int64 [B], the step that drew; of no account in the joint form.
        level: how widely it drew.

    Returns:
        Log-probs, entropy and values.
    """
    config, batch = network.config, len(chain)
    judged = config.num_steps if config.joint_log_prob else 1
    if config.joint_log_prob:
        step = torch.arange(judged, device=chain.device).repeat(batch)
    before, after = chain[:, :-1].flatten(0, 1), chain[:, 1:].flatten(0, 1)
    with network.autocast():
        prefix = network.prefix(inputs)
        time = flow.times(config.sampler, config.num_steps, chain.device)[step]
        states = network.suffix(prefix.repeated(judged), inputs.state.repeat_interleave(judged, 0), before, time)
        drawn = _step(network, states, before, step, torch.full_like(time, level))
        if config.value_position == "vlm":
            values = network.value_of(states, prefix)
        else:
            values = network.value_of(states, prefix).unflatten(0, (batch, judged)).mean(dim=1)
    shape = (batch, judged)
    log_probs = flow.log_density(after, drawn, config.squared_log_prob).unflatten(0, shape).sum(dim=1)
    spread = flow.entropy(drawn).unflatten(0, shape).sum(dim=1) if config.sampler == "flow_noise" else None
    if config.joint_log_prob:
        log_probs = (_of_start(config, chain[:, 0]) + log_probs) / (judged + 1)
        if spread is not None:
            spread = (flow.OF_STANDARD + spread) / (judged + 1)
    return Judged(log_probs, spread, values)


def _step(network: Network, states: Tensor, x: Tensor, index: Tensor, level: Tensor) -> flow.Step:
    """The Gaussian that a denoising step draws from, given the expert's states."""
    learned = None if network.noise_head is None else network.noise_head(states)
    velocity = network.action_out_proj(states)
    config = network.config
    return flow.denoise(config.sampler, x, velocity, index, config.num_steps, level, learned)


def _of_start(config: Pi0Config, start: Tensor) -> Tensor:
    """Log-density of the initial noise."""
    return flow.log_density(start, flow.Step(torch.zeros_like(start), torch.ones_like(start)), config.squared_log_prob)
