"""Properties of the losses: what is masked has no say, what is clipped has no gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.objectives.losses import (
    actor_loss,
    categorical,
    critic_loss,
    decoupled_actor_loss,
    explained_variance,
    interpolated_proximal,
    kl_penalty,
)
from stages.objectives.reductions import aggregate, masked_mean, to_level

seeds = st.integers(0, 2**31)
levels = st.sampled_from(["token", "action", "chunk"])
B, K, A = 5, 3, 2


def batch(seed: int, spread: float = 0.3):
    draw = torch.Generator().manual_seed(seed)
    old = torch.randn(B, K, A, generator=draw, dtype=torch.float64) - 2
    new = old + spread * torch.randn(B, K, A, generator=draw, dtype=torch.float64)
    advantages = torch.randn(B, generator=draw, dtype=torch.float64)
    executed = torch.arange(K) < torch.randint(0, K + 1, (B, 1), generator=draw)
    executed[0] = True
    return new.requires_grad_(), old, advantages, executed


@settings(max_examples=60, deadline=None)
@given(seeds, levels)
def test_masked_entries_have_no_gradient_and_no_say(seed, level):
    new, old, advantages, executed = batch(seed)
    loss, _ = actor_loss(new, old, advantages, executed, level=level)
    loss.backward()
    assert not new.grad[~executed].any()
    spoiled = torch.where(executed[..., None], new.detach(), torch.full_like(old, 1e6)).requires_grad_()
    again, metrics = actor_loss(spoiled, old, advantages, executed, level=level)
    again.backward()
    torch.testing.assert_close(again, loss)
    assert spoiled.grad.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())


@settings(max_examples=60, deadline=None)
@given(seeds, levels)
def test_masked_tokens_have_no_gradient(seed, level):
    new, old, advantages, executed = batch(seed)
    tokens = executed[..., None] & (torch.rand(B, K, A, generator=torch.Generator().manual_seed(seed)) < 0.5)
    actor_loss(new, old, advantages, tokens, level=level, clip_low=9, clip_high=9)[0].backward()
    assert (new.grad != 0).equal(tokens)


@settings(max_examples=60, deadline=None)
@given(seeds, levels)
def test_at_the_first_step_the_gradient_is_the_policy_gradient(seed, level):
    new, _, advantages, executed = batch(seed)
    loss, metrics = actor_loss(new, new.detach().clone(), advantages, executed, level=level)
    loss.backward()
    weight = {"token": executed.sum() * A, "action": executed.sum(), "chunk": executed.any(-1).sum()}[level]
    expected = -(advantages[:, None, None] * executed[..., None] / weight).expand(B, K, A)
    torch.testing.assert_close(new.grad, expected)
    assert metrics["ratio_mean"] == 1
    assert metrics["clip_fraction"] == 0
    assert metrics["approx_kl"] == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 1.0, -1.1),
        (1.5, 1.0, -1.28),
        (0.5, 1.0, -0.5),
        (0.5, -1.0, 0.8),
        (1.5, -1.0, 1.5),
        (9.0, -1.0, 3.0),
        (9.0, 1.0, -1.28),
    ],
)
def test_clipping_by_hand(ratio, advantage, expected):
    new = torch.full((1, 1, 1), math.log(ratio), requires_grad=True)
    loss, _ = actor_loss(
        new, torch.zeros(1, 1, 1), torch.tensor([advantage]), clip_low=0.2, clip_high=0.28, dual_clip=3.0
    )
    loss.backward()
    torch.testing.assert_close(loss.item(), expected, rtol=1e-6, atol=1e-6)
    assert (new.grad.item() == 0) == (expected in (-1.28, 0.8, 3.0))


def test_metrics_by_hand():
    new = torch.tensor([1.0, 1.5, 0.5, 77.0]).log().reshape(4, 1, 1)
    mask = torch.tensor([True, True, True, False])
    _, metrics = actor_loss(new, torch.zeros(4, 1, 1), torch.ones(4), mask, clip_low=0.2, clip_high=0.2)
    assert metrics["clip_fraction"].item() == pytest.approx(1 / 3)
    assert metrics["ratio_mean"].item() == pytest.approx(1.0)
    assert metrics["ratio_max"].item() == pytest.approx(1.5)
    assert metrics["approx_kl"].item() == pytest.approx(-(math.log(1.5) + math.log(0.5)) / 3)


def test_nothing_valid_is_a_loss_of_zero_with_no_gradient():
    new, old, advantages, _ = batch(1)
    loss, _ = actor_loss(new, old, advantages, torch.zeros(B, K, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not new.grad.any()


@settings(max_examples=60, deadline=None)
@given(seeds, levels)
def test_decoupled_with_the_acting_policy_as_proximal_is_plain_ppo(seed, level):
    new, old, advantages, executed = batch(seed)
    plain, _ = actor_loss(new, old, advantages, executed, level=level, dual_clip=3.0)
    decoupled, _ = decoupled_actor_loss(new, old, old, advantages, executed, level=level, behave_weight_threshold=2.0)
    torch.testing.assert_close(decoupled, plain)


def test_decoupled_leaves_out_what_the_threshold_forbids():
    old = torch.zeros(2, 1, 1)
    proximal = torch.tensor([1.5, 2.5]).log().reshape(2, 1, 1)
    loss, metrics = decoupled_actor_loss(
        proximal.clone(), old, proximal, torch.tensor([1.0, 1.0]), behave_weight_threshold=2.0
    )
    assert loss.item() == pytest.approx(-1.5)
    assert metrics["behave_dropped_fraction"].item() == 0.5


@pytest.mark.parametrize(("age", "alpha"), [(0, 0.0), (1, 0.5), (3, 0.75)])
def test_interpolated_proximal_moves_with_age(age, alpha):
    new, old, _, _ = batch(2)
    proximal = interpolated_proximal(new, old, torch.full((B,), 7 - age), current_version=7)
    torch.testing.assert_close(proximal, (old + alpha * (new - old)).detach())
    assert not proximal.requires_grad


def test_interpolated_proximal_of_unknown_versions_is_the_acting_policy():
    new, old, _, _ = batch(2)
    assert torch.equal(interpolated_proximal(new, old, torch.full((B,), -1), current_version=7), old)


def test_aggregations_differ_as_documented():
    x = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    mask = torch.tensor([[True, False]])
    assert aggregate(x, mask).item() == 2
    assert aggregate(x, mask, "per_mask_entry").item() == 4
    assert aggregate(x, mask, "episode_share", torch.tensor([0.5])).item() == 2
    with pytest.raises(ValueError, match="needs episode_share"):
        aggregate(x, mask, "episode_share")


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_value_clip_never_lowers_the_loss(seed):
    draw = torch.Generator().manual_seed(seed)
    values, old, returns = torch.randn(3, 8, generator=draw)
    clipped, _ = critic_loss(values, old, returns, value_clip=0.2, huber_delta=1.0)
    free, metrics = critic_loss(values, old, returns, value_clip=None, huber_delta=1.0)
    assert clipped >= free
    assert metrics["value_clip_fraction"] == 0


def test_a_value_beyond_the_clip_on_the_right_side_has_no_gradient():
    values = torch.tensor([1.0], requires_grad=True)
    critic_loss(values, torch.tensor([0.0]), torch.tensor([2.0]), value_clip=0.2)[0].backward()
    assert values.grad.item() == 0


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 3.0, 99.0])
    mask = torch.tensor([True, True, True, False])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.zeros(4), returns, mask) == 0
    assert explained_variance(returns, torch.ones(4)) == 0


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_k3_is_never_negative_and_zero_for_equal_policies(seed):
    draw = torch.Generator().manual_seed(seed)
    log_probs, reference = torch.randn(2, 20, generator=draw, dtype=torch.float64)
    assert (kl_penalty(log_probs, reference, "k3") >= 0).all()
    for kind in ("k1", "abs", "k2", "k3"):
        assert not kl_penalty(log_probs, log_probs, kind).any()


def test_forbidden_tokens_leave_entropy_and_gradient_finite():
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    log_probs, entropy = categorical(logits, torch.tensor([1]))
    (entropy.sum() + log_probs.sum()).backward()
    assert entropy.item() == pytest.approx(math.log(2))
    assert log_probs.item() == pytest.approx(-math.log(2))
    assert logits.grad.isfinite().all()


def test_levels_sum_what_they_span():
    x = torch.arange(8.0).reshape(1, 2, 4)
    assert to_level(x, "action").tolist() == [[6, 22]]
    assert to_level(x, "chunk").tolist() == [28]
    assert to_level(x, "chunk", torch.tensor([[True, False]])).tolist() == [6]
    assert masked_mean(x, torch.tensor([[False, True]])).item() == 5.5


@pytest.mark.parametrize("call", [
    lambda x: to_level(x, "step"),
    lambda x: aggregate(x, torch.ones(B, dtype=torch.bool), "sum"),
    lambda x: kl_penalty(x, x, "k9"),
])  # fmt: skip
def test_an_unknown_name_is_refused_with_the_known_ones(call):
    with pytest.raises(ValueError, match="is unknown; use "):
        call(torch.zeros(B, K, A))
