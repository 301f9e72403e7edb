"""What ZeRO-3, which splits weights over ranks and gathers them module by module, must be told of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stages.blocks import blocks_of
from stages.training.backend import load_deepspeed


def keep_whole(module: nn.Module) -> None:
    """Have the weights of each block gathered at once, and those of each matrix with its LoRA; before `initialize`.

    So nothing of DeepSpeed's happens inside a block, which may be compiled or recomputed, and a matrix and its addition
    may be used as one.

    Args:
        module: the network.
    """
    blocks = blocks_of(module)
    inside = {part for block in blocks for part in block.modules()}
    matrices = (part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d) and part not in inside)
    for part in [*blocks, *(matrix for matrix in matrices if any(matrix.children()))]:
        load_deepspeed().utils.set_z3_leaf_module(part, True)
        part.register_forward_pre_hook(_with_gradient)


def _with_gradient(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Have the first input need a gradient: DeepSpeed takes the weights' gradients when the inputs' are there."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    if not torch.is_grad_enabled() or any(tensor.requires_grad for tensor in tensors):
        return inputs
    return (inputs[0].detach().requires_grad_(), *inputs[1:])
