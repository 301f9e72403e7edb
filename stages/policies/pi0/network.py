"""The network: a prefix of images and prompt through PaliGemma, a suffix of state and noisy actions through the expert.

Modules lie under the names of the published checkpoints, so that the state dict is their layout.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.exact import ExactLinear, autocast, computed_in, exactly
from stages.policies.pi0.config import Pi0Config
from stages.policies.pi0.flow import time_embedding
from stages.policies.pi0.gemma import KeysValues, Sight, bias_of, visible
from stages.policies.pi0.heads import NoiseHead, ValueHead
from stages.policies.pi0.paligemma import PaliGemmaWithExpert
from stages.policies.pi0.prompt import Prompts
from stages.policies.rotary import rotary_table


class Inputs(NamedTuple):
    """What the network sees of a batch of decisions.

    Attributes:
        pixels: float32 [B, images, 3, side, side] in [-1, 1].
        present: bool [B, images], False where a camera is missing; None when none is.
        prompts: the instructions.
        state: float32 [B, D], normalised proprioception and zeros.
    """

    pixels: Tensor
    present: Tensor | None
    prompts: Prompts
    state: Tensor


class Prefix(NamedTuple):
    """What the suffix sees of the prefix.

    Attributes:
        cache: keys and values of each layer.
        valid: bool [B, S], False at padding; None when nothing is padded.
        length: int64 [B, 1] or [1, 1], tokens that are not padding.
        hidden: [B, S, width] after the final norm, where values are read from it.
    """

    cache: list[KeysValues]
    valid: Tensor | None
    length: Tensor
    hidden: Tensor | None

    def repeated(self, times: int) -> Prefix:
        """Each decision's prefix so many times in a row, without the hidden states."""
        if times == 1:
            return self
        cache = [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.cache]
        valid = None if self.valid is None else self.valid.repeat_interleave(times, 0)
        length = self.length if self.valid is None else self.length.repeat_interleave(times, 0)
        return Prefix(cache, valid, length, None)


class Network(nn.Module):
    """From what a decision sees to velocities, values and deviations."""

    def __init__(self, config: Pi0Config) -> None:
        """Build the modules; their weights are whatever their classes start with.

        Args:
            config: the dimensions.
        """
        super().__init__()
        self.config = config
        width, numbers = config.expert.width, config.action_width
        self.paligemma_with_expert = PaliGemmaWithExpert(config)
        self.action_in_proj = ExactLinear(numbers, width)
        self.action_out_proj = ExactLinear(width, numbers)
        if config.version == "pi0":
            self.state_proj = ExactLinear(numbers, width)
            self.action_time_mlp_in = ExactLinear(2 * width, width)
            self.action_time_mlp_out = ExactLinear(width, width)
        else:
            self.time_mlp_in, self.time_mlp_out = ExactLinear(width, width), ExactLinear(width, width)
        self.value_head = ValueHead(config)
        self.noise_head = NoiseHead(config) if config.sampler == "flow_noise" else None
        self.freeze()

    def freeze(self) -> None:
        """Leave alone what nothing reads, and all of PaliGemma where only the expert is trained."""
        config, paligemma = self.config, self.paligemma_with_expert.paligemma
        if config.train_expert_only:
            paligemma.requires_grad_(False)
        if config.value_position != "vlm":
            stream = paligemma.model.language_model
            last = stream.layers[-1]
            unread = ("self_attn.q_proj.", "self_attn.o_proj.", "post_attention_layernorm.", "mlp.")
            stream.norm.requires_grad_(False)
            for name, parameter in last.named_parameters():
                if name.startswith(unread):
                    parameter.requires_grad_(False)

    # ------------------------------------------------------------------------------------------------------------------
    # The prefix

    def prefix(self, inputs: Inputs) -> Prefix:
        """Run images and prompts through PaliGemma, once for all denoising steps.

        Args:
            inputs: B decisions.

        Returns:
            What the suffix sees of it.
        """
        config = self.config
        frozen = config.train_expert_only
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            hidden, valid = self.embed_prefix(inputs)
            if valid is None:
                positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
                length, bias = positions[:, -1:] + 1, None
            else:
                positions, length = valid.long().cumsum(dim=1) - 1, valid.long().sum(dim=1, keepdim=True)
                # what padding sees matters only where the mean over it is wanted: then as in the originals, nothing
                seen = visible(valid, torch.zeros_like(positions[0])) if config.padding_in_mean else valid[:, None]
                bias = bias_of(seen[:, None], self._bias_type(hidden))
            sight = self._sight(hidden, positions, bias)
            stream = self.paligemma_with_expert.paligemma.model.language_model
            states, cache = stream.keys_of(hidden, sight, read=config.value_position == "vlm")
        return Prefix(cache, valid, length, states)

    def embed_prefix(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """The prefix as the language model takes it.

        Args:
            inputs: B decisions.

        Returns:
            [B, images patches + L, width], and which of it is not padding, bool [B, ...]; None when all of it.
        """
        paligemma, (pixels, present, prompts, _) = self.paligemma_with_expert.paligemma, inputs
        words: Tensor = paligemma.lm_head(prompts.ids)
        words = words * math.sqrt(words.shape[-1])
        features = paligemma.model.vision_tower.vision_model(pixels.flatten(0, 1), self._fused(pixels))
        patches = paligemma.model.multi_modal_projector(features).to(words.dtype)
        patches = patches.unflatten(0, pixels.shape[:2]).flatten(1, 2)
        embedded = torch.cat([patches, words], dim=1)
        if present is None and prompts.valid is None:
            return embedded, None
        images = pixels.new_ones(pixels.shape[:2], dtype=torch.bool) if present is None else present
        language = torch.ones_like(prompts.ids, dtype=torch.bool) if prompts.valid is None else prompts.valid
        seen = images.repeat_interleave(patches.shape[1] // images.shape[1], dim=1)
        return embedded, torch.cat([seen, language], dim=1)

    # ------------------------------------------------------------------------------------------------------------------
    # The suffix

    def suffix(self, prefix: Prefix, state: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """The expert's states of noisy actions.

        Args:
            prefix: of the B decisions.
            state: [B, D].
            noisy: [B, H, D].
            time: float32 [B].

        Returns:
            float32 [B, H, width].
        """
        hidden, condition = self.embed_suffix(state, noisy, time)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        seen = visible(torch.ones_like(places, dtype=torch.bool)[None], self.blocks(places))
        before = prefix.cache[0][0].shape[2]
        bias = None
        if prefix.valid is not None or self.config.version == "pi0":
            rows = 1 if prefix.valid is None else len(prefix.valid)
            earlier = seen.new_ones((rows, 1, before)) if prefix.valid is None else prefix.valid[:, None]
            shape = (rows, len(places))
            whole = torch.cat([earlier.expand(*shape, -1), seen.expand(*shape, -1)], dim=2)
            bias = bias_of(whole[:, None], self._bias_type(hidden))
        sight = self._sight(hidden, prefix.length + places, bias)
        stream = self.paligemma_with_expert.gemma_expert.model
        states: Tensor = stream(hidden, sight, prefix.cache, condition)
        return exactly(states[:, -noisy.shape[1] :])

    def embed_suffix(self, state: Tensor, noisy: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """The suffix as the expert takes it.

        Args:
            state: [B, D].
            noisy: [B, H, D].
            time: [B].

        Returns:
            [B, 1 + H, width] and nothing, or of pi0.5 [B, H, width] and the condition [B, width].
        """
        actions = self.action_in_proj(noisy)
        moment = time_embedding(time.to(actions.dtype), actions.shape[-1])
        if self.config.version == "pi05":
            condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(moment))))
            return self._stream_type(actions), condition
        both = torch.cat([actions, moment[:, None].expand_as(actions)], dim=-1)
        mixed = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))
        return self._stream_type(torch.cat([self.state_proj(state)[:, None], mixed], dim=1)), None

    def blocks(self, places: Tensor) -> Tensor:
        """Block ids of the suffix's tokens: pi0's state sees no action; all actions see one another."""
        return (places > 0).long() if self.config.version == "pi0" else torch.zeros_like(places)

    def value_of(self, states: Tensor, prefix: Prefix) -> Tensor:
        """Values.

        Args:
            states: the expert's, [B, H, width].
            prefix: of the same decisions.

        Returns:
            float32 [B].
        """
        config = self.config
        if config.value_position == "vlm":
            assert prefix.hidden is not None
            pooled = pool(prefix.hidden, prefix.valid, config.value_vlm_mode, padding=config.padding_in_mean)
        else:
            pooled = states[:, : config.chunk if config.value_of_chunk else None].mean(dim=1)
        values: Tensor = self.value_head(pooled.detach() if config.detach_value else pooled)
        return values

    # ------------------------------------------------------------------------------------------------------------------
    # Types and kernels

    def _fused(self, like: Tensor) -> bool:
        return self.config.attention == "sdpa" or (self.config.attention == "auto" and like.is_cuda)

    def _bias_type(self, hidden: Tensor) -> torch.dtype:
        return computed_in(hidden) if self._fused(hidden) else exactly(hidden).dtype

    def _stream_type(self, hidden: Tensor) -> Tensor:
        return hidden.bfloat16() if self.config.precision == "bf16" else hidden

    def _sight(self, hidden: Tensor, positions: Tensor, bias: Tensor | None) -> Sight:
        cos, sin = rotary_table(positions, self.config.head_width, self.config.rope_theta)
        return Sight(cos, sin, bias, self._fused(hidden))

    def autocast(self) -> AbstractContextManager[Any]:
        """What the network is to be run under."""
        return autocast(self.config.precision, self.action_in_proj.weight.device)


def pool(hidden: Tensor, valid: Tensor | None, mode: str, padding: bool) -> Tensor:
    """What the value head reads of the prefix.

    Args:
        hidden: [B, S, width].
        valid: bool [B, S], False at padding; None when nothing is padded.
        mode: `mean_token`, `last_token` or `first_token`.
        padding: take padding for tokens, as RLinf does.

    Returns:
        float32 [B, width].
    """
    exact = exactly(hidden)
    if mode == "first_token":
        return exact[:, 0]
    if valid is None or padding:
        return exact[:, -1] if mode == "last_token" else exact.mean(dim=1)
    if mode == "last_token":
        places = torch.arange(valid.shape[1], device=valid.device)
        last = (places * valid).argmax(dim=1)
        return exact[torch.arange(len(exact), device=exact.device), last]
    weight = valid.to(exact.dtype)[..., None]
    return (exact * weight).sum(dim=1) / weight.sum(dim=1)
