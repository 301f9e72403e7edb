"""The OpenVLA-OFT policy, through its interface."""

import dataclasses

import numpy as np
import pytest
import torch

from stages.policies.interface import (
    Observation,
    PolicyInputError,
)
from tests.stages.policies.openvla_oft_for_tests import (
    ORIGINAL,
    PLATE,
    SMALL,
    STACK,
    noise_of,
    observation,
    policy,
)

# --- acting and judging


@pytest.mark.parametrize("options", [SMALL, ORIGINAL])
def test_acting_and_judging_agree_for_any_batch(options) -> None:
    model = policy(**options)
    seen = observation(*[PLATE] * 5)
    decision = model.act(seen, noise_of(model, range(5)), temperature=0.7)
    judged = model.evaluate_actions(seen[[1, 3]], {"tokens": decision.taken["tokens"][[1, 3]]}, temperature=0.7)
    torch.testing.assert_close(judged.log_probs, decision.log_probs[[1, 3]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(judged.values, decision.values[[1, 3]], atol=1e-5, rtol=1e-5)
    alone = model.act(seen[3:4], noise_of(model, [3]), temperature=0.7)
    assert torch.equal(alone.taken["tokens"][0], decision.taken["tokens"][3])
    assert decision.actions.shape == (5, 3, 4)
    assert decision.actions.abs().max() <= 1.0
    assert (judged.entropy > 0).all()


def test_bf16_keeps_float32_log_probs_and_agrees_with_itself() -> None:
    model = policy(precision="mixed")
    seen = observation(PLATE, STACK)
    decision = model.act(seen, noise_of(model, [0, 1]))
    judged = model.evaluate_actions(seen, decision.taken)
    assert decision.log_probs.dtype == decision.values.dtype == decision.actions.dtype == torch.float32
    torch.testing.assert_close(judged.log_probs, decision.log_probs, atol=0, rtol=0)
    exact = policy().evaluate_actions(seen, decision.taken)
    torch.testing.assert_close(judged.log_probs, exact.log_probs, atol=0.1, rtol=0.02)


def test_greedy_takes_the_most_likely_and_low_temperature_approaches_it() -> None:
    model = policy()
    seen = observation(PLATE)
    greedy = model.act(seen)
    assert torch.equal(model.act(seen, noise_of(model, [0]), temperature=1e-4).taken["tokens"], greedy.taken["tokens"])
    assert (greedy.log_probs >= model.act(seen, noise_of(model, [0])).log_probs).all()
    torch.testing.assert_close(greedy.actions, model.actions_of(greedy.taken["tokens"]))


def test_top_k_samples_the_likeliest_and_keeps_the_whole_distributions_log_probs() -> None:
    few, all_ = policy(top_k=3), policy()
    rows = observation(PLATE)[[0] * 40]
    noise = noise_of(few, range(40))
    decision = few.act(rows, noise, temperature=3.0)
    judged = all_.evaluate_actions(rows, decision.taken, temperature=3.0)
    torch.testing.assert_close(decision.log_probs, judged.log_probs, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(decision.log_probs).all()
    kept = [len(decision.taken["tokens"][:, k, a].unique()) for k in range(3) for a in range(4)]
    assert 1 < max(kept) <= 3
    assert len(all_.act(rows, noise, temperature=3.0).taken["tokens"][:, 0, 0].unique()) > 3
    assert torch.equal(policy(top_k=1).act(rows, noise).taken["tokens"], all_.act(rows).taken["tokens"])


def test_noise_belongs_to_its_generator() -> None:
    model = policy()
    first, again = (model.draw_noise(np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.shape, first.dtype) == ((3, 4), np.float32)
    assert ((first > 0) & (first < 1)).all()
    assert len(np.unique(first)) == 12
    coherent = model.draw_noise(np.random.default_rng(7), coherent=True)
    np.testing.assert_array_equal(coherent, np.broadcast_to(coherent[:1], (3, 4)))
    assert len(np.unique(coherent)) == 4


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(PolicyInputError, match="temperature"):
        policy().act(observation(PLATE), temperature=temperature)


def test_inputs_of_another_size_are_refused() -> None:
    seen = observation(PLATE)
    with pytest.raises(PolicyInputError, match=r"head has shape \(3, 16, 16\)"):
        policy().act(dataclasses.replace(seen, head=seen.head[..., :16, :16]))
    with pytest.raises(PolicyInputError, match="noise has shape"):
        policy().act(seen, torch.full((1, 2, 4), 0.5))
    with pytest.raises(PolicyInputError, match="one length"):
        Observation(seen.head, seen.wrist, seen.proprio, [PLATE, PLATE])


# --- imitating


def test_a_few_demonstrations_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = policy()
    seen = observation(PLATE, STACK, PLATE, STACK)
    actions = torch.rand(4, 3, 4) * 1.2 - 0.6
    mask = torch.ones(4, 3, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model.imitation_loss(seen, actions, mask, label_sigma_bins=1.5)
    for _ in range(100):
        optimizer.zero_grad()
        result = model("imitation_loss", seen, actions, mask, label_sigma_bins=1.5)
        result.loss.backward()
        optimizer.step()
    assert result.loss.item() < 2.1 < 5 < first.loss.item()  # the labels' own entropy is 1.8
    errors = [one.metrics["action_error"].item() for one in (first, result)]
    assert errors[1] < 0.02 < errors[0]
    torch.testing.assert_close(model.act(seen).actions, actions, atol=0.05, rtol=0)


def test_steps_that_do_not_count_have_no_influence() -> None:
    model = policy()
    seen = observation(PLATE)
    mask = torch.tensor([[True, True, False]])
    actions = torch.zeros(1, 3, 4)
    other = actions.clone()
    other[0, 2] = 0.7
    for sigma in (0.0, 1.5):
        losses = [model.imitation_loss(seen, a, mask, sigma).loss.item() for a in (actions, other)]
        assert losses[0] == losses[1] > 0
    assert model.imitation_loss(seen, actions, torch.zeros_like(mask)).loss.item() == 0.0


def test_imitation_and_judging_reach_every_parameter() -> None:
    for options in (SMALL, ORIGINAL):
        model = policy(**options)
        seen = observation(PLATE)
        actions, mask = torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
        model.imitation_loss(seen, actions, mask).loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
