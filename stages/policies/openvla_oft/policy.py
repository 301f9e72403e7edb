"""OpenVLA-OFT: two vision towers, Llama attending both ways, a chunk of action tokens in one forward pass.

The sequence is [BOS][patches of head, left wrist, right wrist][proprioception][prompt][zeroed action positions], with
no stop token ("rlinf" layout). Logits are read one position early, so the first action is read at the prompt's last
token, whose hidden state also gives the value, and the last zeroed position is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.policies.interface import (
    Decision,
    Evaluation,
    Imitation,
    Observation,
    Policy,
    PolicyConfigError,
    PolicyInputError,
)
from stages.policies.openvla_oft import actions as tokens_of_actions
from stages.policies.openvla_oft.config import ACTION_BINS, OpenVLAOFTConfig
from stages.policies.openvla_oft.language import LanguageModel, TokenHead, ValueHead
from stages.policies.openvla_oft.prompt import BOS, DIRECTORY, Prompts, PromptTokenizer
from stages.policies.openvla_oft.vision import Projector, ProprioProjector, VisionBackbone
from stages.policies.statistics import Statistics

NOISE_LEVELS = 2**22
"""Noise lies on the middles of this many intervals: exact in float32, and never so near 1 that rounding reaches it."""


class OpenVLAOFT(Policy):
    """The policy."""

    name = "openvla_oft"

    def __init__(self, config: OpenVLAOFTConfig, statistics: Statistics, tokenizer: Path = DIRECTORY) -> None:
        """Build the modules; their weights are whatever their classes start with.

        Args:
            config: the dimensions.
            statistics: of the demonstrations.
            tokenizer: directory of `tokenizer.json`.

        Raises:
            PolicyConfigError: the statistics are of other vectors than the config's.
            PolicyFileError: the tokenizer's file is missing, damaged or of another vocabulary.
        """
        super().__init__()
        self.config = config
        self.statistics = statistics
        self.chunk, self.action_dim, self.precision = config.chunk, config.action_dim, config.precision
        self.prompts = PromptTokenizer(config, tokenizer)
        for place, expected, found in (
            ("action_dim", config.action_dim, len(statistics.action.mask)),
            ("proprio_dim", config.proprio_dim, len(statistics.proprio.mask)),
        ):
            if expected not in (0, found):
                raise PolicyConfigError(f"{place}: {expected} does not fit; the demonstrations have {found}")
        self.action_units = tokens_of_actions.Normaliser(statistics.action, config.bounds, "action")
        self.vision_backbone = VisionBackbone(config, "eager" if config.attention == "auto" else config.attention)
        self.projector = Projector(config)
        self.language_model = LanguageModel(config)
        self.value_head = ValueHead(config)
        if config.proprio_dim:
            self.proprio_units = tokens_of_actions.Normaliser(statistics.proprio, config.bounds, "proprio")
            self.proprio_projector = ProprioProjector(config)
        if config.dims_per_position > 1:
            self.action_head_tokens = TokenHead(config)
        if config.camera_embedding:
            self.camera_embedding = nn.Parameter(torch.zeros(config.images, 1, config.hidden))
        if config.action_embedding:
            self.action_embedding = nn.Parameter(torch.zeros(config.positions, config.hidden))

    @property
    def steered(self) -> Tensor:
        """The action numbers that varied in the demonstrations."""
        return ~self.action_units.constant

    def draw_noise(self, rng: np.random.Generator, coherent: bool = False) -> np.ndarray:
        """Draw one uniform a token, or with `coherent` one a dimension; see `Policy.draw_noise`."""
        rows = 1 if coherent else self.chunk
        levels = rng.integers(0, NOISE_LEVELS, size=(rows, self.action_dim))
        noise = ((levels + 0.5) / NOISE_LEVELS).astype(np.float32)
        return np.repeat(noise, self.chunk, axis=0) if coherent else noise

    @torch.no_grad()
    def act(self, observation: Observation, noise: Tensor | None = None, temperature: float = 1.0) -> Decision:
        """Sample each token by inverting its cumulative distribution, or take the most likely; see `Policy.act`."""
        log_probs, values = self._distribution(observation, temperature)
        if noise is None:
            taken = log_probs.argmax(dim=-1)
        elif noise.shape != log_probs.shape[:-1]:
            raise PolicyInputError(f"noise has shape {tuple(noise.shape)}, expected {tuple(log_probs.shape[:-1])}")
        else:
            taken = tokens_of_actions.sample(log_probs, noise.to(log_probs.device))
        return Decision(self.actions_of(taken), taken, _pick(log_probs, taken), values)

    def evaluate_actions(self, observation: Observation, taken: Tensor, temperature: float = 1.0) -> Evaluation:
        """Judge tokens taken before; see `Policy.evaluate_actions`."""
        log_probs, values = self._distribution(observation, temperature)
        if taken.shape != log_probs.shape[:-1]:
            raise PolicyInputError(f"taken has shape {tuple(taken.shape)}, expected {tuple(log_probs.shape[:-1])}")
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        return Evaluation(_pick(log_probs, taken.to(log_probs.device)), entropy, values)

    def imitation_loss(
        self, observation: Observation, actions: Tensor, mask: Tensor, label_sigma_bins: float = 0.0
    ) -> Imitation:
        """Cross-entropy with the demonstrated tokens, averaged over what counts; see `Policy.imitation_loss`."""
        log_probs, values = self._distribution(observation, 1.0)
        if actions.shape != log_probs.shape[:-1] or mask.shape != actions.shape[:-1]:
            expected = tuple(log_probs.shape[:-1])
            raise PolicyInputError(
                f"actions and mask have shapes {tuple(actions.shape)} and {tuple(mask.shape)}, "
                f"expected {expected} and {expected[:-1]}"
            )
        demonstrated = self.action_units(actions.to(log_probs.device))
        tokens = tokens_of_actions.encode(demonstrated)
        if label_sigma_bins > 0:
            misses = tokens_of_actions.soft_cross_entropy(log_probs, demonstrated, label_sigma_bins)
        else:
            misses = -_pick(log_probs, tokens)
        weight = mask.to(log_probs.device, torch.float32)[..., None]
        count = weight.sum().clamp(min=1.0) * self.action_dim
        # the value head takes part with weight 0: under ZeRO-3 a parameter a step did not use gets a stale gradient
        loss = (misses * weight).sum() / count + 0.0 * values.sum()
        with torch.no_grad():
            greedy = log_probs.argmax(dim=-1)
            hits = ((greedy == tokens) * weight).sum() / count
            error = ((self.actions_of(greedy) - actions.to(log_probs.device)).abs() * weight).sum() / count
        return Imitation(loss, hits, error)

    def actions_of(self, taken: Tensor) -> Tensor:
        """What tokens do in the environment.

        Args:
            taken: integers [..., A] in [0, 256).

        Returns:
            float32 [..., A], within [-1, 1].
        """
        return self.action_units.inverse(tokens_of_actions.decode(taken)).clamp_(-1.0, 1.0).float()

    def save(self, directory: Path | str, state: Mapping[str, Tensor] | None = None) -> None:
        """Write config.json, model.safetensors, dataset_statistics.json and the tokenizer; see `Policy.save`."""
        from stages.policies.openvla_oft import checkpoint

        checkpoint.save(self, Path(directory), state)

    def _distribution(self, observation: Observation, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities of every token, and values: the one path behind acting, judging and imitating.

        Args:
            observation: B decisions.
            temperature: above 0.

        Returns:
            float32 [B, K, A, 256] and float32 [B].
        """
        if not temperature > 0:
            raise PolicyInputError(f"temperature must be above 0, not {temperature}; greedy actions need no noise")
        logits, values = self._read(self._checked(observation).to(self.device))
        if temperature != 1.0:
            logits = logits / temperature
        return torch.log_softmax(logits, dim=-1), values

    def _read(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Logits [B, K, A, 256] and values [B], both float32."""
        config = self.config
        prompts = self.prompts.batch(observation.instructions, self.device)
        with self._autocast():
            embeddings, valid = self._sequence(observation, prompts)
            # one position early: from the prompt's last token to the last zeroed position but one
            read = slice(embeddings.shape[1] - config.positions - 1, embeddings.shape[1] - 1)
            fused = config.attention == "sdpa" or (config.attention == "auto" and embeddings.is_cuda)
            hidden = self.language_model.model(embeddings, valid, read, fused)
        head = self.action_head_tokens if config.dims_per_position > 1 else self.language_model.lm_head
        logits = head(hidden)
        return logits.view(-1, config.chunk, config.action_dim, ACTION_BINS), self.value_head(hidden[:, 0])

    def _sequence(self, observation: Observation, prompts: Prompts) -> tuple[Tensor, Tensor | None]:
        """Embeddings [B, S, hidden] and, where prompts are padded, which positions are valid, bool [B, S]."""
        config, batch = self.config, len(observation)
        images = torch.cat([observation.head[:, None], observation.wrist], dim=1)
        # the residual stream is float32: exact, and faster on a CPU than bfloat16 wherever nothing is multiplied
        patches = self.projector(self.vision_backbone(images.flatten(0, 1))).float()
        patches = patches.unflatten(0, (batch, config.images))
        if config.camera_embedding:
            patches = patches + self.camera_embedding.float()
        bos = prompts.ids.new_full((batch, 1), BOS)
        words = self.language_model.model.embed_tokens(torch.cat([bos, prompts.ids], dim=1)).float()
        parts = [words[:, :1], patches.flatten(1, 2)]
        if config.proprio_dim:
            proprio = self.proprio_units(observation.proprio).to(torch.float32)
            parts.append(self.proprio_projector(proprio).float()[:, None])
        parts.append(words[:, 1:])
        if config.action_embedding:
            parts.append(self.action_embedding.float().expand(batch, -1, -1))
        else:
            parts.append(patches.new_zeros(batch, config.positions, config.hidden))
        embeddings = torch.cat(parts, dim=1)
        if prompts.valid is None:
            return embeddings, None
        before = embeddings.shape[1] - prompts.ids.shape[1] - config.positions
        sides = [prompts.valid.new_ones(batch, width) for width in (before, config.positions)]
        return embeddings, torch.cat([sides[0], prompts.valid, sides[1]], dim=1)

    def _autocast(self) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _checked(self, observation: Observation) -> Observation:
        """Refuse images or proprioception of another shape than the config's."""
        side = self.config.image_size
        for place, found, expected in (
            ("head", observation.head.shape[1:], (3, side, side)),
            ("wrist", observation.wrist.shape[1:], (2, 3, side, side)),
            ("proprio", observation.proprio.shape[1:], (self.config.proprio_dim or observation.proprio.shape[1],)),
        ):
            if tuple(found) != expected:
                raise PolicyInputError(
                    f"{place} has shape {tuple(found)}, this policy takes {expected}: "
                    "set the simulator and the policy to one image_size and proprio_dim"
                )
        return observation


def _pick(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Of [..., 256] the entries of the tokens [...]."""
    return log_probs.gather(-1, tokens.long()[..., None]).squeeze(-1)
