"""The side that OpenVLA-OFT is measured against: straightforward transformers and torch, as the published classes work.

A processor normalises and tokenises example by example on the CPU; each camera goes through both towers by itself, and
through all their blocks; the language model is transformers' own `LlamaForCausalLM` under a full attention mask, keeps
every layer's hidden states, and gives logits over the whole vocabulary at every position. Nothing is compiled.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.policies.openvla_oft.config import OpenVLAOFTConfig, TowerConfig

DINO = (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)
SIGLIP = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
BINS = 256


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Block(nn.Module):
    def __init__(self, tower: TowerConfig, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(tower.width, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(tower.width, tower.heads), Mlp(tower.width, tower.mlp)
        self.ls1, self.ls2 = (LayerScale(tower.width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Tower(nn.Module):
    """A timm vision transformer, asked for the output of its last block but one; the last runs all the same."""

    def __init__(self, config: OpenVLAOFTConfig, tower: TowerConfig, dino: bool) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, tower.width, config.patch_size, stride=config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, tower.width))
        self.prefix = 0
        if dino:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, tower.width))
            self.reg_token = nn.Parameter(torch.zeros(1, tower.registers, tower.width))
            self.prefix = 1 + tower.registers
        self.blocks = nn.ModuleList(Block(tower, scaled=dino) for _ in range(tower.depth))
        self.recompute = False

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed.proj(pixels).flatten(2).transpose(1, 2) + self.pos_embed
        if self.prefix:
            prefix = torch.cat([self.cls_token, self.reg_token], dim=1).expand(len(x), -1, -1)
            x = torch.cat([prefix, x], dim=1)
        features = x
        for index, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
            if index == len(self.blocks) - 2:
                features = x
        return features[:, self.prefix :]


class Backbone(nn.Module):
    def __init__(self, config: OpenVLAOFTConfig) -> None:
        super().__init__()
        self.featurizer = Tower(config, config.dino, dino=True)
        self.fused_featurizer = Tower(config, config.siglip, dino=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, cameras 6, H, W] to [B, cameras patches, width]."""
        cameras = [self._one(camera) for camera in pixels.split(6, dim=1)]
        return torch.cat(cameras, dim=1)

    def _one(self, camera: Tensor) -> Tensor:
        dino, siglip = camera.split(3, dim=1)
        return torch.cat([self.featurizer(dino), self.fused_featurizer(siglip)], dim=2)


class Projector(nn.Module):
    def __init__(self, config: OpenVLAOFTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dino.width + config.siglip.width, config.projector_width)
        self.fc2 = nn.Linear(config.projector_width, config.hidden)
        self.fc3 = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))


class ValueHead(nn.Module):
    def __init__(self, config: OpenVLAOFTConfig) -> None:
        super().__init__()
        first, second = config.value_widths
        layers = (nn.Linear(config.hidden, first), nn.GELU(), nn.Linear(first, second), nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(second, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Reference(nn.Module):
    """OpenVLA-OFT with a value head, under the published names of parameters."""

    def __init__(self, config: OpenVLAOFTConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.vision_backbone = Backbone(config)
        self.projector = Projector(config)
        self.language_model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.padded_vocab_size,
                hidden_size=config.hidden,
                intermediate_size=config.mlp,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                rms_norm_eps=config.rms_norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
                attn_implementation="sdpa",
            )
        )
        self.value_head = ValueHead(config)

    def recompute(self) -> None:
        """Checkpoint every block of all three transformers."""
        self.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.language_model.train()
        for tower in (self.vision_backbone.featurizer, self.vision_backbone.fused_featurizer):
            tower.recompute = True

    def process(self, images: np.ndarray, instructions: list[str]) -> tuple[Tensor, Tensor]:
        """What the input processor does, on the CPU: uint8 [B, cameras, 3, H, W] to pixels and token ids."""
        pixels = torch.stack([torch.cat([self._normalised(camera) for camera in example]) for example in images])
        prompts = [f"In: What action should the robot take to {i.lower()}?\nOut: " for i in instructions]
        return pixels, torch.tensor([[1, *ids] for ids in self.tokenizer(prompts)["input_ids"]])

    @staticmethod
    def _normalised(camera: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(camera).float().div(255)
        both = [(pixels - torch.tensor(m)[:, None, None]) / torch.tensor(s)[:, None, None] for m, s in (DINO, SIGLIP)]
        return torch.cat(both)

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K A, vocabulary], -inf outside the action ids, and values [B]."""
        config, positions = self.config, self.config.chunk * self.config.action_dim
        ids = torch.cat([ids, ids.new_ones(len(ids), positions)], dim=1)
        embeddings = self.language_model.get_input_embeddings()(ids)
        acting = torch.zeros_like(ids, dtype=torch.bool)
        acting[:, -positions:] = True
        embeddings = embeddings * ~acting[..., None]
        patches = self.projector(self.vision_backbone(pixels))
        embeddings = torch.cat([embeddings[:, :1], patches, embeddings[:, 1:]], dim=1)
        length = embeddings.shape[1]
        both_ways = torch.zeros(len(ids), 1, length, length, dtype=embeddings.dtype, device=ids.device)
        outputs = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=both_ways,
            position_ids=torch.arange(length, device=ids.device)[None],
            output_hidden_states=True,
            use_cache=False,
        )
        logits = outputs.logits[:, -positions - 1 : -1].float()
        outside = torch.ones(config.padded_vocab_size, dtype=torch.bool, device=ids.device)
        outside[config.vocab_size - BINS : config.vocab_size] = False
        logits = logits.masked_fill(outside, -torch.inf)
        values = self.value_head(outputs.hidden_states[-1][:, -positions - 1])
        return logits, values[:, 0].float()

    @torch.no_grad()
    def act(self, images: np.ndarray, instructions: list[str]) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        """From what a simulator shows; see `decide`."""
        weight = self.value_head.mlp[0].weight
        pixels, ids = self.process(images, instructions)
        return self.decide(pixels.to(weight.device, weight.dtype), ids.to(weight.device))

    @torch.no_grad()
    def decide(self, pixels: Tensor, ids: Tensor) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        """Normalised actions [B, K, A], ids [B, K A], their log-probs, and values."""
        logits, values = self(pixels, ids)
        log_probs = F.log_softmax(logits, dim=-1)
        taken = torch.multinomial(log_probs.exp().flatten(0, 1), 1).view(log_probs.shape[:2])
        centres = (np.linspace(-1, 1, BINS)[:-1] + np.linspace(-1, 1, BINS)[1:]) / 2
        bins = np.clip(self.config.vocab_size - taken.cpu().numpy() - 1, 0, len(centres) - 1)
        actions = centres[bins].reshape(len(bins), self.config.chunk, self.config.action_dim)
        return actions, taken, log_probs.gather(-1, taken[..., None])[..., 0], values

    def evaluate(self, pixels: Tensor, ids: Tensor, taken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs and entropy [B, K A] and values [B] of ids taken before, with gradients."""
        logits, values = self(pixels, ids)
        log_probs = F.log_softmax(logits, dim=-1)
        entropy = -torch.where(log_probs.isinf(), 0.0, log_probs.exp() * log_probs).sum(dim=-1)
        return log_probs.gather(-1, taken[..., None])[..., 0], entropy, values
