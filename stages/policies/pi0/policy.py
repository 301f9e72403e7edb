"""pi0 and pi0.5 as a policy: decide on chunks by denoising, judge chains, imitate by flow matching."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.policies.fields import check_statistics
from stages.policies.interface import (
    Decision,
    Evaluation,
    Imitation,
    Observation,
    Policy,
    PolicyInputError,
    Taken,
)
from stages.policies.pi0 import denoising, flow
from stages.policies.pi0.config import Pi0Config
from stages.policies.pi0.denoising import Draws, Sampled
from stages.policies.pi0.images import check, pixels_of
from stages.policies.pi0.network import Inputs, Network
from stages.policies.pi0.prompt import DIRECTORY, PromptTokenizer
from stages.policies.pi0.units import Units, deltas
from stages.policies.reach import Reach
from stages.policies.replay import Replayed
from stages.policies.statistics import Statistics


class Pi0(Network, Policy):
    """The policy."""

    name = "pi0"

    def __init__(self, config: Pi0Config, statistics: Statistics, tokenizer: Path = DIRECTORY) -> None:
        """Build the modules; their weights are whatever their classes start with.

        Args:
            config: the dimensions.
            statistics: of the demonstrations.
            tokenizer: directory of `tokenizer.json`.

        Raises:
            PolicyConfigError: the statistics are of other vectors than the config's.
            PolicyFileError: the tokenizer's file is missing or damaged, or has too many tokens.
        """
        super().__init__(config)
        check_statistics(statistics, config.action_dim, config.proprio_dim)
        self.statistics = statistics
        self.chunk, self.action_dim, self.precision = config.chunk, config.action_dim, config.precision
        self.chain_shape = self._elements = (config.stored, config.steps, config.action_width)
        self.prompts = PromptTokenizer(config, tokenizer)
        self.action_units = Units(statistics.action, config.quantiles)
        self.reach = Reach(statistics.action)
        self.state_units = Units(statistics.proprio, config.quantiles) if config.proprio_dim else None
        self.unused: dict[str, Tensor] = {}  # published tensors that nothing reads, carried along

    @property
    def steered(self) -> Tensor:
        """The action numbers that varied in the demonstrations."""
        return ~self.action_units.constant

    def draw_noise(self, rng: np.random.Generator, coherent: bool = False) -> np.ndarray:
        """Draw a uniform that chooses the step, the initial noise, and that of the steps; see `Policy.draw_noise`."""
        return denoising.draw(self.config, rng, coherent)

    def draw_imitation_noise(self, rng: np.random.Generator, decisions: int) -> np.ndarray:
        """Draw the noise and, last, the time of each decision; see `Policy.draw_imitation_noise`."""
        elements = self.config.steps * self.config.action_width
        rows = np.empty((decisions, elements + 1), np.float32)
        for row in rows:
            row[:-1] = rng.standard_normal(elements, dtype=np.float32)
            row[-1] = rng.beta(flow.ALPHA, flow.BETA) * flow.SCALE + flow.OFFSET
        return rows

    @torch.no_grad()
    def act(self, observation: Observation, noise: Tensor | None = None, temperature: float = 1.0) -> Decision:
        """Denoise; see `Policy.act`.

        Without noise it is the ODE from the middle of the initial noise, and values are the mean over its steps. With
        noise and temperature 0 it is the ODE from a drawn start, the originals' evaluation.
        """
        draws = self._draws(noise, len(observation), temperature)
        average = noise is None or self.config.averaged_rollout_values
        sampled = self.sample(self.inputs(observation), draws, average)
        return Decision(
            self.actions_of(sampled.actions, observation.proprio),
            {"chain": sampled.chain, "step": draws.step},
            sampled.log_probs[:, : self.chunk, : self.action_dim],
            sampled.values,
        )

    def sample(self, inputs: Inputs, draws: Draws, average: bool) -> Sampled:
        """The denoising loop; see `denoising.sample`."""
        return denoising.sample(self, inputs, draws, average)

    def evaluate_actions(self, observation: Observation, taken: Taken, temperature: float = 1.0) -> Evaluation:
        """Judge chains made before; see `Policy.evaluate_actions`."""
        chain, step = (taken[name].to(self.device) for name in ("chain", "step"))
        expected = (len(observation), *self._elements)
        if chain.shape != expected or step.shape != expected[:1]:
            raise PolicyInputError(
                f"chain and step have shapes {tuple(chain.shape)} and {tuple(step.shape)}, "
                f"expected {expected} and {expected[:1]}"
            )
        if len(step) and not 0 <= int(step.min()) <= int(step.max()) < self.config.num_steps:
            raise PolicyInputError(f"a step is {int(step.max())}, num_steps is {self.config.num_steps}")
        judged = denoising.judge(self, self.inputs(observation), chain, step, self.level(temperature))
        part = (slice(None), slice(self.chunk), slice(self.action_dim))
        entropy = None if judged.entropy is None else judged.entropy[part]
        return Evaluation(judged.log_probs[part], entropy, judged.values)

    def imitation_loss(
        self,
        observation: Observation,
        actions: Tensor,
        mask: Tensor,
        label_sigma_bins: float = 0.0,
        noise: Tensor | None = None,
    ) -> Imitation:
        """Squared error of the velocity, averaged over what counts; see `Policy.imitation_loss`.

        Steps of the horizon that the demonstrations do not have repeat the last one they have, and do not count.
        """
        config, device = self.config, self.device
        expected = (len(observation), config.steps * config.action_width + 1)
        if noise is None or noise.shape != expected:
            given = None if noise is None else tuple(noise.shape)
            raise PolicyInputError(f"noise has shape {given}, expected {expected}, rows of draw_imitation_noise")
        shown = actions.shape[1]
        if actions.shape != (len(observation), shown, self.action_dim) or not self.chunk <= shown <= config.steps:
            raise PolicyInputError(
                f"actions have shape {tuple(actions.shape)}, expected {(len(observation), self.chunk, self.action_dim)}"
            )
        if mask.shape != actions.shape[:-1]:
            raise PolicyInputError(f"mask has shape {tuple(mask.shape)}, expected {tuple(actions.shape[:-1])}")
        actions, noise, proprio = actions.to(device), noise.to(device), observation.proprio.to(device)
        whole = self.numbers_of(actions, proprio)
        x, velocity = flow.noisy(whole, noise[:, :-1].unflatten(1, whole.shape[1:]), noise[:, -1])
        inputs = self.inputs(observation)
        with self.autocast():
            prefix = self.prefix(inputs)
            states = self.suffix(prefix, inputs.state, x, noise[:, -1])
            found = self.action_out_proj(states)
            # what this loss does not train takes part with weight 0: ZeRO-3 gives an unused parameter a stale gradient
            idle = 0.0 * self.value_of(states, prefix).sum()
            if self.noise_head is not None:
                idle = idle + 0.0 * self.noise_head(states).sum()
        weight = mask.to(device, torch.float32)[..., None]
        count = weight.sum().clamp(min=1.0)
        loss = (((found - velocity) ** 2)[:, :shown] * weight).sum() / (count * config.action_width)
        with torch.no_grad():
            guess = self.actions_of(x - noise[:, -1, None, None] * found, proprio, shown)
            error = ((guess - actions).abs() * weight).sum() / (count * self.action_dim)
        return Imitation(loss + idle, {"action_error": error, "velocity_error": loss.detach()})

    def numbers_of(self, actions: Tensor, proprio: Tensor) -> Tensor:
        """What actions are inside the network.

        Args:
            actions: float32 [B, T, A] in the environment's units.
            proprio: float32 [B, P].

        Returns:
            float32 [B, H, D].
        """
        config = self.config
        numbers = self.action_units(actions - self._origin(proprio)).float()
        numbers = F.pad(numbers, (0, config.action_width - config.action_dim))
        missing = config.steps - numbers.shape[1]
        return torch.cat([numbers, numbers[:, -1:].expand(-1, missing, -1)], dim=1) if missing else numbers

    def actions_of(self, numbers: Tensor, proprio: Tensor, steps: int | None = None) -> Tensor:
        """What the network's numbers do in the environment.

        Args:
            numbers: [B, H, D].
            proprio: float32 [B, P].
            steps: how many of them; None for K.

        Returns:
            float32 [B, steps, A], within their reach.
        """
        mine = numbers[:, : steps or self.chunk, : self.action_dim]
        reached: Tensor = self.reach(self.action_units.inverse(mine) + self._origin(proprio))
        return reached

    def inputs(self, observation: Observation) -> Inputs:
        """What the network sees of an observation.

        Args:
            observation: B decisions.

        Returns:
            Tensors on the policy's device.
        """
        config, device = self.config, self.device
        seen = check(observation, config)
        if self.state_units is None:
            normed = seen.proprio.new_zeros((len(seen), 0), device=device)
        else:
            normed = self.state_units(seen.proprio.to(device)).float()
        spoken = normed.cpu().numpy() if config.discrete_state else None
        prompts = self.prompts.batch(seen.instructions, spoken, config.padding_in_mean, device)
        state = normed.new_zeros((len(seen), config.action_width))
        if config.version == "pi0":
            state[:, : normed.shape[1]] = normed
        return Inputs(pixels_of(seen, config, device), None, prompts, state)

    def accelerate(self) -> None:
        """Compile the blocks; on a GPU small batches are replayed as CUDA graphs; see `Policy.accelerate`."""
        super().accelerate()
        if self.device.type == "cuda":
            self.sample = Replayed(self.sample)  # type: ignore[assignment, method-assign]

    def save(self, directory: Path | str, state: Mapping[str, Tensor] | None = None) -> None:
        """Write model.safetensors and norm_stats.json as openpi, and what it keeps in code; see `Policy.save`."""
        from stages.policies.pi0 import checkpoint

        checkpoint.save(self, Path(directory), state)

    def level(self, temperature: float) -> float:
        """How widely a step draws at a temperature: a factor of flow_noise's deviation, the level of the others."""
        if not temperature >= 0:
            raise PolicyInputError(f"temperature must be 0 or more, not {temperature}")
        return temperature * (1.0 if self.config.sampler == "flow_noise" else self.config.noise_level)

    def _draws(self, noise: Tensor | None, batch: int, temperature: float) -> Draws:
        """The randomness of decisions: rows of `draw_noise`, or none at all."""
        elements = 1 + math.prod(self._elements)
        level = self.level(temperature)
        if noise is None:
            return denoising.draws_of(self.config, torch.zeros((batch, elements), device=self.device), 0.0)
        if noise.shape != (batch, elements):
            raise PolicyInputError(f"noise has shape {tuple(noise.shape)}, expected {(batch, elements)}")
        return denoising.draws_of(self.config, noise.to(self.device), level)

    def _origin(self, proprio: Tensor) -> Tensor | float:
        """What the network's actions are differences to, [B, 1, A]; 0 where they are actions."""
        if not self.config.delta_actions:
            return 0.0
        origin = proprio[:, : self.action_dim].to(self.device)
        return (origin * deltas(self.action_dim, origin.device))[:, None]
