"""The repeated blocks of a network: compiled, and recomputed in the backward pass instead of stored."""

from __future__ import annotations

import functools
import types
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

LISTS = frozenset({"blocks", "layers"})
"""Names of the module lists that hold blocks."""

Recompute = Literal["none", "mlp", "block"]


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The blocks of a network, in its order.

    Args:
        module: its lists of blocks are called `blocks` or `layers`.

    Returns:
        The entries of those lists.
    """
    lists = [child for name, child in module.named_modules() if name.rsplit(".", 1)[-1] in LISTS]
    return [block for blocks in lists if isinstance(blocks, nn.ModuleList) for block in blocks]


def prepare_blocks(module: nn.Module, *, recompute: Recompute = "none", compiled: bool = False) -> None:
    """Change how blocks are computed, not what they compute.

    All blocks of one class share their compiled code, so this costs a compilation for each class and kind of shape.

    Args:
        module: a network; each of its blocks has a child `mlp` where that is to be recomputed.
        recompute: what the backward pass computes again instead of storing it: `mlp` the activations inside each
            block's MLP, which are half of all; `block` everything but each block's input.
        compiled: run blocks through torch.compile.
    """
    for block in blocks_of(module):
        # around `forward`, not around the module: ZeRO-3 gathers weights in the module's hooks, which stay outside
        if recompute == "mlp":
            block.mlp.forward = types.MethodType(_recomputed, block.mlp)  # type: ignore[union-attr]
        if compiled:
            block.forward = torch.compile(block.forward)
        if recompute == "block":
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _recomputed(module: nn.Module, *inputs: Any) -> Any:
    """A module's own forward, run again by the backward pass; a method, which compiled blocks can have in common."""
    return checkpoint(type(module).forward, module, *inputs, use_reentrant=False)
