"""A short name for the exact bits of a module's weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(module: nn.Module) -> str:
    """Summarise the parameters and buffers that this rank holds.

    Two modules share it if all their bits are equal. Each tensor gives the sum of its bit patterns and their sum
    weighted by position, in integers that wrap around: exact in any order, so equal on every device, and the weights
    never leave it.

    Args:
        module: plain, or split by ZeRO-3, of which only this rank's parts count.

    Returns:
        16 hexadecimal digits.
    """
    held = {name: getattr(one, "ds_tensor", one).detach() for name, one in module.state_dict(keep_vars=True).items()}
    digest = hashlib.sha256()
    for (name, part), sums in zip(held.items(), _brought([_sums(part) for part in held.values()]), strict=True):
        digest.update(f"{name} {tuple(part.shape)} {part.dtype} {sums}\n".encode())
    return digest.hexdigest()[:16]


def _sums(tensor: Tensor) -> Tensor:
    """Int64 [2], where the tensor is."""
    bits = tensor.contiguous().view(-1).view(INTEGERS[tensor.element_size()]).to(torch.int64)
    positions = torch.arange(1, bits.numel() + 1, device=bits.device)
    return torch.stack([bits.sum(), (bits * positions).sum()])


def _brought(sums: list[Tensor]) -> list[tuple[int, int]]:
    """All of them at once: a GPU that others use too is waited for a single time."""
    if not sums:
        return []
    return [(plain, weighted) for plain, weighted in torch.stack([one.to(sums[0].device) for one in sums]).tolist()]
