"""The language model: Llama's layers, attending both ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.embedding import Embedding
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.heads import VocabularyHead
from stages.policies.openvla_oft.lora import Linear
from stages.policies.openvla_oft.norms import RMSNorm
from stages.policies.rotary import rotary_table, rotate


class Attention(nn.Module):
    """The four projections of an attention layer."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the projections.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            Linear(config.hidden, config.hidden, False) for _ in "qkvo"
        )


class Mlp(nn.Module):
    """The gated MLP of a layer."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the projections.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.gate_proj, self.up_proj = (Linear(config.hidden, config.mlp, False) for _ in range(2))
        self.down_proj = Linear(config.mlp, config.hidden, False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        projected: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return projected


class BidirectionalLayer(nn.Module):
    """A Llama layer in which every position attends to every position that is not padding.

    Left to itself Llama is causal. The last layer computes only the positions that are read.
    """

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layer.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.head_width = config.hidden // config.heads
        self.input_layernorm = RMSNorm(config.hidden, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self, hidden: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor | None, read: slice, fused: bool
    ) -> Tensor:
        """One layer.

        Args:
            hidden: [B, S, D].
            rotary: cosines and sines of the positions, each [B or 1, S, head width].
            bias: [B, 1, 1 or S, S], added to the attention scores: 0, or hugely negative where a position is not to be
                seen; None where all are.
            read: the positions to compute; the others only serve as keys and values.
            fused: use torch's fused attention instead of an explicit softmax.

        Returns:
            [B, positions read, D].
        """
        attention = self.self_attn
        normed = self.input_layernorm(hidden)
        cos, sin = rotary
        q, k, v = (
            projection(states).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for projection, states in (
                (attention.q_proj, normed[:, read]),
                (attention.k_proj, normed),
                (attention.v_proj, normed),
            )
        )
        q = rotate(q, cos[:, read], sin[:, read])
        k = rotate(k, cos, sin)
        if fused:
            mixed = F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))
        else:
            scores = (q * self.head_width**-0.5) @ k.transpose(-1, -2)
            mixed = torch.softmax(scores if bias is None else scores + bias.to(scores.dtype), dim=-1).to(v.dtype) @ v
        hidden = hidden[:, read] + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class LlamaBody(nn.Module):
    """Token embeddings, layers and the final norm."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the layers.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.head_width = config.hidden // config.heads
        self.rope_theta = config.rope_theta
        self.embed_tokens = Embedding(config.padded_vocab_size, config.hidden)
        self.layers = nn.ModuleList(BidirectionalLayer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.rms_norm_eps)

    def forward(
        self,
        embeddings: Tensor,
        valid: Tensor | None,
        read: slice,
        fused: bool,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            embeddings: [B, S, hidden].
            valid: bool [B, S], False at padding; None when there is none.
            read: the positions wanted.
            fused: use torch's fused attention instead of an explicit softmax.

        Returns:
            [B, positions read, hidden].
        """
        if valid is None:
            bias = None
            positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        else:
            # a float mask of four dimensions: finite, so that no row of scores can become nan
            bias = torch.zeros(valid.shape, device=valid.device).masked_fill_(~valid, -1e9)[:, None, None]
            positions = (valid.long().cumsum(dim=1) - 1).masked_fill_(~valid, 1)
        rotary = rotary_table(positions, self.head_width, self.rope_theta)
        hidden = embeddings
        for layer in self.layers[:-1]:
            hidden = layer(hidden, rotary, bias, slice(None), fused)
        return self.norm(self.layers[-1](hidden, rotary, bias, read, fused))


class LanguageModel(nn.Module):
    """Llama under the published names; without its own head where actions are read by another."""

    def __init__(self, config: OpenVLAOFTConfig) -> None:
        """Build the model.

        Args:
            config: the policy's.
        """
        super().__init__()
        self.model = LlamaBody(config)
        if config.dims_per_position == 1:
            self.lm_head = VocabularyHead(config)
