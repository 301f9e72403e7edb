"""The two Gemma streams, under the names of their published tensors.

No token of the prefix sees the suffix, so the prefix runs first, in training too, and gives the keys and values of each
of its layers; the layer of the suffix beside it attends to those and to its own. That is the originals' shared
attention, in which each stream keeps its own norms, projections and MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.exact import exactly
from stages.policies.pi0.config import Pi0Config, StreamConfig
from stages.policies.pi0.norms import AdaptiveRMSNorm, RMSNorm
from stages.policies.rotary import rotate

UNSEEN = -2.3819763e38
"""Added to the score of what is not to be seen: the originals' figure."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a layer, each [B, kv heads, S, head width]; keys are rotated."""


class Sight(NamedTuple):
    """Where tokens stand, and what they see.

    Attributes:
        cos: [B or 1, S, head width].
        sin: likewise.
        bias: [B or 1, 1, S or 1, keys], added to scores: 0, or `UNSEEN`; None where everything is seen.
        fused: use torch's fused attention instead of an explicit softmax.
    """

    cos: Tensor
    sin: Tensor
    bias: Tensor | None
    fused: bool


class Attention(nn.Module):
    """The four projections of a layer's attention."""

    def __init__(self, config: Pi0Config, stream: StreamConfig) -> None:
        """Build the projections.

        Args:
            config: the policy's.
            stream: which of its streams.
        """
        super().__init__()
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q_proj = nn.Linear(stream.width, queries, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(stream.width, keys, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(queries, stream.width, bias=False)


class Mlp(nn.Module):
    """A layer's gated MLP."""

    def __init__(self, stream: StreamConfig) -> None:
        """Build the projections.

        Args:
            stream: the dimensions.
        """
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(stream.width, stream.mlp, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(stream.mlp, stream.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        gate = F.gelu(self.gate_proj(hidden), approximate="tanh")
        projected: Tensor = self.down_proj(gate * self.up_proj(hidden))
        return projected


class Layer(nn.Module):
    """A Gemma layer; what its tokens see beside themselves is given."""

    def __init__(self, config: Pi0Config, stream: StreamConfig, adaptive: bool) -> None:
        """Build the layer.

        Args:
            config: the policy's.
            stream: which of its streams.
            adaptive: whether a condition modulates the norms.
        """
        super().__init__()
        norm = AdaptiveRMSNorm if adaptive else RMSNorm
        self.head_width = config.head_width
        self.input_layernorm = norm(stream.width)
        self.self_attn = Attention(config, stream)
        self.post_attention_layernorm = norm(stream.width)
        self.mlp = Mlp(stream)

    def forward(
        self,
        hidden: Tensor,
        sight: Sight,
        before: KeysValues | None,
        condition: Tensor | None,
        keys_only: bool,
    ) -> tuple[Tensor, KeysValues]:
        """One layer.

        Args:
            hidden: [B, S, width].
            sight: of the tokens.
            before: keys and values of tokens before them, seen first.
            condition: [B, width] of pi0.5's expert.
            keys_only: leave the hidden states as they are: nothing reads them.

        Returns:
            [B, S, width], and the keys and values of these tokens.
        """
        attention = self.self_attn
        normed, gate = self.input_layernorm(hidden, condition)
        k = rotate(self._heads(attention.k_proj(normed)), sight.cos, sight.sin)
        v = self._heads(attention.v_proj(normed))
        own = (k, v)
        if keys_only:
            return hidden, own
        q = rotate(self._heads(attention.q_proj(normed)), sight.cos, sight.sin)
        if before is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(before, own, strict=True))
        mixed = attend(q, k, v, sight.bias, sight.fused).transpose(1, 2).flatten(2)
        hidden = gated(hidden, attention.o_proj(mixed), gate)
        normed, gate = self.post_attention_layernorm(hidden, condition)
        return gated(hidden, self.mlp(normed), gate), own

    def _heads(self, states: Tensor) -> Tensor:
        """[B, S, heads head width] to [B, heads, S, head width]."""
        return states.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


def gated(hidden: Tensor, addition: Tensor, gate: Tensor | None) -> Tensor:
    """The residual stream [B, S, width] with an addition, in the stream's type."""
    return (hidden + (addition if gate is None else addition * gate)).to(hidden.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, fused: bool) -> Tensor:
    """Attention with several heads of queries to a head of keys.

    Args:
        q: [B, heads, S, head width].
        k: [B, kv heads, keys, head width].
        v: likewise.
        bias: [B or 1, 1, S or 1, keys], or None.
        fused: use torch's fused kernels.

    Returns:
        [B, heads, S, head width].
    """
    batch, heads, _, width = q.shape
    shape = (batch, k.shape[1], heads // k.shape[1], k.shape[2], width)
    k, v = (part[:, :, None].expand(shape).flatten(1, 2) for part in (k, v))
    if fused:
        seen = None if bias is None else bias.expand(batch, heads, q.shape[2], k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, seen)
    scores = (q @ k.transpose(-1, -2)) * width**-0.5
    exact = exactly(scores)
    return torch.softmax(exact if bias is None else exact + bias, dim=-1).to(v.dtype) @ v


def visible(valid: Tensor, blocks: Tensor) -> Tensor:
    """Which tokens see which: those of their own block and of blocks before it, never padding, which sees nothing.

    Args:
        valid: bool [B, S], False at padding.
        blocks: int [S], ids that never fall.

    Returns:
        bool [B, S, S]; entry i, j says whether i sees j.
    """
    earlier = blocks[None, :] <= blocks[:, None]
    return earlier & valid[:, None, :] & valid[:, :, None]


def bias_of(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where `seen`, elsewhere `UNSEEN`."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, UNSEEN)


class Stream(nn.Module):
    """Layers and the final norm of one stream."""

    def __init__(self, config: Pi0Config, stream: StreamConfig, adaptive: bool) -> None:
        """Build the layers.

        Args:
            config: the policy's.
            stream: which of its streams.
            adaptive: whether a condition modulates the norms.
        """
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, stream, adaptive) for _ in range(config.layers))
        self.norm = (AdaptiveRMSNorm if adaptive else RMSNorm)(stream.width)

    def keys_of(self, hidden: Tensor, sight: Sight, read: bool) -> tuple[Tensor | None, list[KeysValues]]:
        """Run the prefix.

        Args:
            hidden: [B, S, width].
            sight: of its tokens.
            read: whether the hidden states are wanted too; else the last layer computes keys and values alone.

        Returns:
            [B, S, width] after the final norm or None, and the keys and values of each layer.
        """
        cache: list[KeysValues] = []
        for layer in self.layers:
            hidden, own = layer(hidden, sight, None, None, not read and layer is self.layers[-1])
            cache.append(own)
        return (self.norm(hidden, None)[0] if read else None), cache

    def forward(self, hidden: Tensor, sight: Sight, cache: Sequence[KeysValues], condition: Tensor | None) -> Tensor:
        """Run the suffix.

        Args:
            hidden: [B, S, width].
            sight: of its tokens, over the keys of prefix and suffix.
            cache: keys and values of the prefix in each layer.
            condition: [B, width] of pi0.5, else None.

        Returns:
            [B, S, width] after the final norm.
        """
        for layer, before in zip(self.layers, cache, strict=True):
            hidden, _ = layer(hidden, sight, before, condition, False)
        normed: Tensor = self.norm(hidden, condition)[0]
        return normed
