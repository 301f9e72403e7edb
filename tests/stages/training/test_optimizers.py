import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.config import Optimizer
from pipeline.errors import UserError
from stages.training.fingerprint import fingerprint
from stages.training.optimizers import build_optimizer, parameter_groups, warmup_cosine


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8)])
        self.value_head = nn.Linear(8, 1)

    def forward(self, x):
        return self.value_head(self.layers[0](self.embed(x)))


def shapes(groups):
    return {(g["role"], g["lr"], g["weight_decay"]): [tuple(p.shape) for p in g["params"]] for g in groups}


def test_groups_by_rate_and_decay():
    adamw = shapes(parameter_groups(Policy(), Optimizer(lr=1.0, value_lr=2.0, weight_decay=0.5)))
    assert adamw == {
        ("policy", 1.0, 0.5): [(8, 3), (8, 8)],
        ("policy", 1.0, 0.0): [(8,), (8,)],
        ("value", 2.0, 0.5): [(1, 8)],
        ("value", 2.0, 0.0): [(1,)],
    }
    muon = shapes(
        parameter_groups(Policy(), Optimizer(name="muon", lr=1.0, value_lr=2.0, muon_lr=3.0, weight_decay=0.5))
    )
    assert muon[("blocks", 3.0, 0.5)] == [(8, 8)]
    assert muon[("policy", 1.0, 0.5)] == [(8, 3)]


def test_frozen_parameters_are_left_out():
    policy = Policy()
    policy.value_head.requires_grad_(False)
    assert {g["role"] for g in parameter_groups(policy, Optimizer())} == {"policy"}
    policy.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter of the policy is trainable"):
        parameter_groups(policy, Optimizer())


def test_muon_and_zero_exclude_each_other():
    with pytest.raises(UserError, match="set deepspeed.zero_stage=0 or optimizer.name=adamw"):
        build_optimizer(Policy(), Optimizer(name="muon"), zero_stage=1)
    with pytest.raises(UserError, match="no 2-D weights in `blocks` or `layers`"):
        build_optimizer(nn.Linear(2, 2), Optimizer(name="muon"), zero_stage=0)


def train(policy: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        policy(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()


def test_muon_gives_blocks_torchs_muon_and_the_rest_torchs_adamw():
    torch.manual_seed(0)
    ours, theirs = (policy := Policy()), copy.deepcopy(policy)
    config = Optimizer(name="muon", lr=1e-2, value_lr=1e-2, muon_lr=0.03, weight_decay=0.1)
    train(ours, build_optimizer(ours, config, 0), range(3))
    block = theirs.layers[0].weight
    rest = [p for p in theirs.parameters() if p is not block]
    muon = torch.optim.Muon([block], lr=0.03, weight_decay=0.1, momentum=0.95)
    adamw = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 * (p.dim() > 1)} for p in rest],
        lr=1e-2,
        betas=config.betas,
        eps=config.eps,
    )
    for step in range(3):
        theirs.zero_grad()
        theirs(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        muon.step()
        adamw.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_survives_saving_bitwise(name):
    torch.manual_seed(0)
    policy, config = Policy(), Optimizer(name=name, lr=1e-2)
    optimizer = build_optimizer(policy, config, 0)
    train(policy, optimizer, range(3))
    twin = copy.deepcopy(policy)
    twins = build_optimizer(twin, config, 0)
    twins.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(policy, optimizer, range(3, 6))
    train(twin, twins, range(3, 6))
    assert fingerprint(policy) == fingerprint(twin)


def test_a_fingerprint_sees_one_bit_and_a_swap():
    policy = Policy()
    before = fingerprint(policy)
    with torch.no_grad():
        bits = policy.embed.bias.view(torch.int32)
        bits[3] ^= 1
        assert fingerprint(policy) != before
        bits[3] ^= 1
        assert fingerprint(policy) == before
        policy.embed.bias.copy_(policy.embed.bias.flip(0).clone())
        assert fingerprint(policy) != before


@given(st.integers(0, 50), st.integers(1, 500), st.floats(0, 1), st.integers(0, 600))
def test_the_schedule_rises_then_falls_to_its_floor(warmup, more, final, step):
    total = warmup + more
    scale = warmup_cosine(step, warmup=warmup, total=total, final=final)
    following = warmup_cosine(step + 1, warmup=warmup, total=total, final=final)
    assert 0 <= scale <= 1
    assert scale < following if step + 1 < warmup else scale >= following or step < warmup
    assert warmup_cosine(total - 1, warmup=warmup, total=total, final=final) == pytest.approx(final)
    if warmup:
        assert warmup_cosine(warmup - 1, warmup=warmup, total=total, final=final) == 1
