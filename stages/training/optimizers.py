"""Parameter groups, AdamW, Muon with AdamW, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.config import Optimizer as OptimizerConfig
from pipeline.errors import UserError
from stages.blocks import LISTS

VALUE_HEAD = "value_head"

Group = dict[str, Any]


def parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[Group]:
    """Sort a module's trainable parameters into groups of one learning rate and one weight decay.

    Args:
        module: the policy; its value head is a child called `value_head`.
        config: learning rates and weight decay. With `name: muon` the 2-D weights inside lists called `blocks` or
            `layers` form a group of their own.

    Returns:
        Groups in a fixed order, without empty ones. Beside torch's keys each has `role`: "policy", "blocks" or "value".
        Vectors (biases, norms) do not decay.

    Raises:
        UserError: nothing is trainable, or muon finds no block weights.
    """
    sorted_in: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            role = _role(name, parameter, muon=config.name == "muon")
            sorted_in.setdefault((role, parameter.dim() >= 2), []).append(parameter)
    if not sorted_in:
        raise UserError("optimizer: no parameter of the policy is trainable; unfreeze some")
    if config.name == "muon" and ("blocks", True) not in sorted_in:
        raise UserError("optimizer.name=muon: the policy has no 2-D weights in `blocks` or `layers`; use adamw")
    rates = {"policy": config.lr, "value": config.value_lr, "blocks": config.muon_lr}
    return [
        {"params": parameters, "role": role, "lr": rates[role], "weight_decay": config.weight_decay if decays else 0.0}
        for (role, decays), parameters in sorted(sorted_in.items(), key=lambda entry: entry[0])
    ]


def _role(name: str, parameter: nn.Parameter, muon: bool) -> str:
    path = name.split(".")
    if VALUE_HEAD in path:
        return "value"
    if muon and parameter.dim() == 2 and not LISTS.isdisjoint(path):
        return "blocks"
    return "policy"


def build_optimizer(module: nn.Module, config: OptimizerConfig, zero_stage: int) -> torch.optim.Optimizer:
    """Build the optimizer of a training stage.

    Args:
        module: the policy.
        config: the optimizer's block of the config.
        zero_stage: DeepSpeed's ZeRO stage.

    Returns:
        AdamW, or Muon on the block weights and AdamW on the rest.

    Raises:
        UserError: muon with ZeRO, which splits the matrices that muon needs whole.
    """
    groups = parameter_groups(module, config)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True)
    if zero_stage > 0:
        raise UserError(
            f"optimizer.name=muon needs whole matrices, which deepspeed.zero_stage={zero_stage} splits: "
            "set deepspeed.zero_stage=0 or optimizer.name=adamw"
        )
    return MuonAdamW(groups, betas=config.betas, eps=config.eps)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the groups with role "blocks" and AdamW for the others, as one optimizer with one state.

    Both inner optimizers work on this one's groups and state, so saving and loading are torch's own.
    """

    def __init__(self, groups: list[Group], *, betas: tuple[float, float], eps: float) -> None:
        """Build both.

        Args:
            groups: as `parameter_groups` makes them.
            betas: AdamW's decay rates.
            eps: AdamW's epsilon.
        """
        # Muon's own scale for tall matrices (Jordan et al. 2024): lr * sqrt(max(1, rows / columns)).
        self._muon = torch.optim.Muon([g for g in groups if g["role"] == "blocks"], adjust_lr_fn="original")
        self._adamw = torch.optim.AdamW([g for g in groups if g["role"] != "blocks"], betas=betas, eps=eps, fused=True)
        super().__init__(self._muon.param_groups + self._adamw.param_groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once.

        Args:
            closure: not supported.

        Returns:
            None.
        """
        # Loading a state replaces the groups and the state, so the inner optimizers are pointed at them each time.
        self._muon.param_groups = [g for g in self.param_groups if g["role"] == "blocks"]
        self._adamw.param_groups = [g for g in self.param_groups if g["role"] != "blocks"]
        for inner in (self._muon, self._adamw):
            inner.state = self.state
            inner.step(closure)
        return None


def warmup_cosine(step: int, *, warmup: int, total: int, final: float) -> float:
    """Scale of the learning rate: a linear rise, then a cosine to a floor.

    Args:
        step: index of the coming optimizer step, from 0.
        warmup: steps of the rise; the first step has 1 / warmup.
        total: steps in all.
        final: scale that the last step reaches.

    Returns:
        Factor between 0 and 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup + 1) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
