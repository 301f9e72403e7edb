"""Blocks that are compiled or recomputed compute what they computed before."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from stages.blocks import blocks_of, prepare_blocks


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Block(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.mlp, self.dropout = Mlp(), nn.Dropout(dropout)

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return x + scale * self.dropout(self.mlp(x))


class Network(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.tower = nn.Module()
        self.tower.blocks = nn.ModuleList(Block(dropout) for _ in range(4))
        self.layers = nn.ModuleList(Block(dropout) for _ in range(12))

    def forward(self, x: Tensor) -> Tensor:
        for block in [*self.tower.blocks, *self.layers]:
            x = block(x, 0.5)
        return x


def gradients(network: Network) -> list[Tensor]:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    network(x).square().sum().backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def network(dropout: float = 0.0) -> Network:
    torch.manual_seed(0)
    return Network(dropout)


def test_blocks_are_found_in_their_order():
    one = network()
    assert blocks_of(one) == [*one.tower.blocks, *one.layers]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("recompute", ["mlp", "block"])
def test_recomputing_changes_no_gradient_whatever_is_dropped(recompute, dropout):
    changed = network(dropout)
    prepare_blocks(changed, recompute=recompute)
    for mine, other in zip(gradients(changed), gradients(network(dropout)), strict=True):
        assert mine.equal(other)


@pytest.mark.parametrize("recompute", ["none", "mlp", "block"])
def test_all_blocks_share_what_is_compiled(recompute, monkeypatch):
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    torch.compiler.reset()
    changed = network()
    prepare_blocks(changed, recompute=recompute, compiled=True)
    for mine, other in zip(gradients(changed), gradients(network()), strict=True):
        torch.testing.assert_close(mine, other)
    assert 1 <= counter.frame_count <= 2  # one more where the first block's input needs no gradient
