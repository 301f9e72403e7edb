"""OpenVLA-OFT: two vision towers, Llama attending both ways, a chunk of action tokens in one forward pass.

Logits are read one position early, so the first action is read at the prompt's last token, whose hidden state also
gives the value, and the last zeroed position is not read. What stands in the sequence is in `sequence.py`. RLinf's two
forms of the model are `stop_token: false` ("rlinf") and `stop_token: true, value_position: official` ("official").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.policies.exact import autocast, computed_in
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
from stages.policies.openvla_oft import actions as tokens_of_actions
from stages.policies.openvla_oft.config import ACTION_BINS, OpenVLAOFTConfig
from stages.policies.openvla_oft.heads import RegressionHead, TokenHead, ValueHead
from stages.policies.openvla_oft.images import Images, check
from stages.policies.openvla_oft.language import LanguageModel
from stages.policies.openvla_oft.lora import attach
from stages.policies.openvla_oft.projectors import Projector, ProprioProjector
from stages.policies.openvla_oft.prompt import DIRECTORY, PromptTokenizer
from stages.policies.openvla_oft.sequence import BOS, STOP, Inputs, Sequence, lay, mean_word
from stages.policies.openvla_oft.vision import VisionBackbone, cut
from stages.policies.reach import Reach
from stages.policies.replay import Replayed
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
        check_statistics(statistics, config.action_dim, config.proprio_dim)
        self.source: dict[str, Any] = {}  # the originals' config.json that this policy came with
        self.unused: dict[str, Tensor] = {}  # published tensors that are carried along
        self.base: Path | None = None  # directory of the frozen weights beside LoRA
        self.action_units = tokens_of_actions.Normaliser(statistics.action, config.bounds, "action")
        self.reach = Reach(statistics.action)
        self.images = Images(config)
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(config)
        self.language_model = LanguageModel(config)
        self.value_head = ValueHead(config)
        if config.proprio_dim:
            self.proprio_units = tokens_of_actions.Normaliser(statistics.proprio, config.bounds, "proprio")
            self.proprio_projector = ProprioProjector(config)
        if config.action_head == "l1":
            self.action_head = RegressionHead(config)
        if config.dims_per_position > 1:
            self.action_head_tokens = TokenHead(config)
        if config.camera_embedding:
            self.camera_embedding = nn.Parameter(torch.zeros(config.images, 1, config.hidden))
        if config.action_embedding:
            self.action_embedding = nn.Parameter(torch.zeros(config.positions, config.hidden))
        if config.lora.rank:
            attach(self, config.lora)

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
        if self.config.action_head == "l1" and noise is None:
            return self._regress(observation)
        log_probs, values = self._distribution(observation, temperature)
        if noise is None:
            taken = log_probs.argmax(dim=-1)
        elif noise.shape != log_probs.shape[:-1]:
            raise PolicyInputError(f"noise has shape {tuple(noise.shape)}, expected {tuple(log_probs.shape[:-1])}")
        else:
            taken = tokens_of_actions.sample(log_probs, noise.to(log_probs.device), self.config.top_k)
        return Decision(self.actions_of(taken), {"tokens": taken}, _pick(log_probs, taken), values)

    def evaluate_actions(self, observation: Observation, taken: Taken, temperature: float = 1.0) -> Evaluation:
        """Judge tokens taken before; see `Policy.evaluate_actions`."""
        log_probs, values = self._distribution(observation, temperature)
        if (tokens := taken["tokens"]).shape != log_probs.shape[:-1]:
            raise PolicyInputError(f"tokens have shape {tuple(tokens.shape)}, expected {tuple(log_probs.shape[:-1])}")
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        return Evaluation(_pick(log_probs, tokens.to(log_probs.device)), entropy, values)

    def imitation_loss(
        self,
        observation: Observation,
        actions: Tensor,
        mask: Tensor,
        label_sigma_bins: float = 0.0,
        noise: Tensor | None = None,
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
        return Imitation(loss, {"token_accuracy": hits, "action_error": error})

    def actions_of(self, taken: Tensor) -> Tensor:
        """What tokens do in the environment.

        Args:
            taken: integers [..., A] in [0, 256).

        Returns:
            float32 [..., A], within their reach.
        """
        reached: Tensor = self.reach(self.action_units.inverse(tokens_of_actions.decode(taken)))
        return reached

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
            float32 [B, K, A, 256], and float32 [B], or [B, K] where each action has a value.
        """
        if not temperature > 0:
            raise PolicyInputError(f"temperature must be above 0, not {temperature}; greedy actions need no noise")
        if self.config.action_head == "l1":
            raise PolicyInputError("this policy's L1 head has no probabilities: it can act without noise, and no more")
        hidden, value_hidden = self.hidden_states(self.inputs(observation))
        logits = self.logits(hidden)
        if temperature != 1.0:
            logits = logits / temperature
        return torch.log_softmax(logits, dim=-1), self.values(value_hidden)

    def _regress(self, observation: Observation) -> Decision:
        """The L1 head's actions; tokens are the nearest ones, and certain."""
        hidden, value_hidden = self.hidden_states(self.inputs(observation))
        normalised = self.action_head(hidden)
        actions: Tensor = self.reach(self.action_units.inverse(normalised))
        certain = torch.zeros_like(actions)
        nearest = {"tokens": tokens_of_actions.encode(normalised)}
        return Decision(actions, nearest, certain, self.values(value_hidden))

    # ------------------------------------------------------------------------------------------------------------------
    # The network

    def inputs(self, observation: Observation) -> Inputs:
        """What the network sees of an observation.

        Args:
            observation: B decisions.

        Returns:
            Tensors on the policy's device.
        """
        seen = check(observation, self.config)
        cameras = seen.cameras(self.config.images)
        fitting = [self.images(camera.flatten(0, 1)).unflatten(0, camera.shape[:2]) for camera in cameras]
        patches = cut(torch.cat(fitting, dim=1).flatten(0, 1), self.config.patch_size)
        prompts = self.prompts.batch(seen.instructions, self.device)
        proprio = self.proprio_units(seen.proprio.to(self.device)).float() if self.config.proprio_dim else None
        return Inputs(patches, patches, prompts, proprio)

    def hidden_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Run the network up to its heads.

        Args:
            inputs: B decisions.

        Returns:
            Hidden states where actions are read, [B, positions, hidden], and where values are, [B, hidden].
        """
        config = self.config
        with autocast(self.precision, self.device):
            fused = config.attention == "sdpa" or (config.attention == "auto" and inputs.dino.is_cuda)
            sequence = self.sequence(inputs, fused)
            body = self.language_model.model
            if config.value_position == "prompt":
                hidden: Tensor = body(sequence.embeddings, sequence.valid, sequence.read, fused)
                return hidden, hidden[:, 0]
            everywhere: Tensor = body(sequence.embeddings, sequence.valid, slice(None), fused)
            rows = torch.arange(len(everywhere), device=everywhere.device)
            return everywhere[:, sequence.read], everywhere[rows, sequence.value_places(config.positions)]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the action tokens.

        Args:
            hidden: [B, positions, hidden].

        Returns:
            float32 [B, K, A, 256].
        """
        head = self.action_head_tokens if self.config.dims_per_position > 1 else self.language_model.lm_head
        logits: Tensor = head(hidden)
        return logits.view(-1, self.chunk, self.action_dim, ACTION_BINS)

    def values(self, hidden: Tensor) -> Tensor:
        """Values from hidden states [B, hidden]: float32 [B], or [B, K] where each action has one."""
        values: Tensor = self.value_head(hidden)
        return values if self.config.value_level == "action" else values.squeeze(-1)

    def accelerate(self) -> None:
        """Compile the blocks; on a GPU small batches are replayed as CUDA graphs; see `Policy.accelerate`."""
        super().accelerate()
        if self.device.type == "cuda":
            self.hidden_states = Replayed(self.hidden_states)  # type: ignore[assignment, method-assign]

    def sequence(self, inputs: Inputs, fused: bool) -> Sequence:
        """The language model's input.

        Args:
            inputs: B decisions.
            fused: use torch's fused attention in the towers instead of an explicit softmax.

        Returns:
            The sequences.
        """
        config, batch = self.config, len(inputs.prompts.ids)
        ends = [inputs.prompts.ids.new_full((batch, 1), token) for token in (BOS, STOP)[: 1 + config.stop_token]]
        ids = torch.cat([ends[0], inputs.prompts.ids, *ends[1:]], dim=1)
        # under autocast the residual stream stays float32: exact, and on a CPU faster wherever nothing is multiplied
        words: Tensor = self.language_model.model.embed_tokens(ids)
        language = mean_word(words, inputs.prompts).repeat_interleave(config.images, 0) if config.film else None
        dino = inputs.dino.to(computed_in(words))
        siglip = dino if inputs.siglip is inputs.dino else inputs.siglip.to(dino.dtype)  # cast once for both towers
        features = self.vision_backbone(dino, siglip, fused, language)
        patches = self.projector(features).to(words.dtype).unflatten(0, (batch, config.images))
        if config.camera_embedding:
            patches = patches + self.camera_embedding
        proprio = None
        if inputs.proprio is not None:
            proprio = self.proprio_projector(inputs.proprio.to(words.dtype)).to(words.dtype)[:, None]
        if config.action_embedding:
            actions = self.action_embedding.expand(batch, -1, -1)
        else:
            actions = patches.new_zeros(batch, config.positions, config.hidden)
        return lay(config, words, inputs.prompts, patches.flatten(1, 2), proprio, actions)


def _pick(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Of [..., 256] the entries of the tokens [...]."""
    return log_probs.gather(-1, tokens.long()[..., None]).squeeze(-1)
