"""Low-rank additions to matrices (LoRA), under the names of peft's files.

The layers are these and not peft's, because three of them are no plain `nn.Linear`: q, k and v of a tower share one
addition, the patch embedding is a convolution computed as a matrix product, and of the vocabulary's head only the
action rows are computed. Files are peft's own: `<module>.lora_A.weight` and `<module>.lora_B.weight`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.policies.interface import PolicyConfigError
from stages.policies.openvla_oft.config import LoRAConfig

BASE = ("vision_backbone", "projector", "language_model")
"""What LoRA freezes and adds to; heads and the projector of proprioception are trained whole."""


Factor = nn.Linear | nn.Conv2d


class Adapted(nn.Module):
    """A module with a weight that LoRA can add to."""

    lora_A: Factor
    lora_B: Factor
    lora_dropout: nn.Dropout
    lora_scale = 0.0

    @property
    def adapted(self) -> bool:
        """Whether an addition is there."""
        return self.lora_scale != 0.0

    def adapt(self, config: LoRAConfig) -> None:
        """Put an addition beside the weight: B A, scaled by alpha / rank."""
        self.lora_A, self.lora_B = self._factors(config.rank)
        self.lora_dropout = nn.Dropout(config.dropout)
        self.lora_scale = (config.alpha or config.rank) / config.rank

    def merge(self) -> None:
        """Add the addition to the weight and take it away."""
        with torch.no_grad():
            self._add(self._delta())
        del self.lora_A, self.lora_B, self.lora_dropout
        self.lora_scale = 0.0

    def _addition(self, input: Tensor) -> Tensor:
        """What the addition contributes to the output."""
        added: Tensor = self.lora_B(self.lora_A(self.lora_dropout(input)))
        return added * self.lora_scale

    def _delta(self) -> Tensor:
        """The addition as a matrix, [out, in]."""
        product: Tensor = self.lora_B.weight.float().flatten(1) @ self.lora_A.weight.float().flatten(1)
        return product * self.lora_scale

    def _factors(self, rank: int) -> tuple[Factor, Factor]:
        """Fresh modules for A and B."""
        raise NotImplementedError

    def _add(self, delta: Tensor) -> None:
        """Add [out, in] to the weight."""
        raise NotImplementedError


class Linear(nn.Linear, Adapted):
    """A matrix product."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        output = F.linear(input, self.weight, self.bias)
        return output + self._addition(input) if self.adapted else output

    def _factors(self, rank: int) -> tuple[Factor, Factor]:
        return nn.Linear(self.in_features, rank, bias=False), nn.Linear(rank, self.out_features, bias=False)

    def _add(self, delta: Tensor) -> None:
        self.weight += delta


class Qkv(Adapted):
    """Queries, keys and values of one input: three matrices, so that Muon sees each; one tensor in a checkpoint."""

    def __init__(self, width: int) -> None:
        """Build the three.

        Args:
            width: of input and of each output.
        """
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.width = width

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """[..., width] to three of [..., width]."""
        outputs = (self.q(input), self.k(input), self.v(input))
        if not self.adapted:
            return outputs
        return tuple(a + b for a, b in zip(outputs, self._addition(input).chunk(3, dim=-1), strict=True))

    def _factors(self, rank: int) -> tuple[Factor, Factor]:
        return nn.Linear(self.width, rank, bias=False), nn.Linear(rank, 3 * self.width, bias=False)

    def _add(self, delta: Tensor) -> None:
        for part, piece in zip((self.q, self.k, self.v), delta.chunk(3), strict=True):
            part.weight += piece


def attach(module: nn.Module, config: LoRAConfig) -> None:
    """Put additions beside the targeted weights of a policy and freeze what they add to.

    Args:
        module: the policy, with children named as in `BASE`.
        config: rank above 0, and which modules.

    Raises:
        PolicyConfigError: a target names no module.
    """
    chosen = dict(_targeted(module, config.targets))
    for layer in chosen.values():
        layer.adapt(config)
    freeze(module)


def freeze(module: nn.Module) -> None:
    """Leave trainable the additions and whatever is not of the base."""
    for name, parameter in module.named_parameters():
        if name.split(".", 1)[0] in BASE and not is_lora(name):
            parameter.requires_grad_(False)


def merge(module: nn.Module) -> None:
    """Add every addition to its weight; the module is then as if trained without LoRA, all of it trainable."""
    for layer in module.modules():
        if isinstance(layer, Adapted) and layer.adapted:
            layer.merge()
    module.requires_grad_(True)


def is_lora(name: str) -> bool:
    """Whether a parameter is part of an addition."""
    return ".lora_A." in name or ".lora_B." in name


def _targeted(module: nn.Module, targets: Sequence[str]) -> Iterator[tuple[str, Adapted]]:
    """Modules whose path ends with one of the names, as peft matches them; `all-linear` is all but the output head."""
    known = {name: layer for name, layer in module.named_modules() if isinstance(layer, Adapted)}
    for target in targets:
        if target != "all-linear" and target not in UNUSED and not any(_ends(name, target) for name in known):
            last = sorted({name.rsplit(".", 1)[-1] for name in known})
            raise PolicyConfigError(
                f"lora.targets: no module is called {target!r}; known: all-linear, {', '.join(last)}"
            )
    for name, layer in known.items():
        everywhere = "all-linear" in targets and isinstance(layer, Linear | Qkv) and not name.endswith("lm_head")
        if everywhere or any(_ends(name, target) for target in targets):
            yield name, layer


UNUSED = ("q", "kv", "out_proj")
"""Names in the originals' list of targets that match only modules no forward pass uses, or none at all."""


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
