"""The pi0 policy, through its interface."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from stages.policies.interface import PolicyConfigError, PolicyInputError, make
from stages.policies.pi0.config import PRESETS
from stages.policies.pi0.gemma import Stream
from tests.stages.policies.pi0.policies_for_pi0 import (
    DRAWER,
    PLATE,
    SMALL,
    imitation_noise,
    noise_of,
    observation,
    policy,
    statistics,
)

SAMPLERS = ("flow_sde", "flow_cps", "flow_noise")
FORMS = [
    {
        "version": version,
        "sampler": sampler,
        "joint_log_prob": joint,
        "ignore_last": sampler == "flow_cps" and not joint,
    }
    for version in ("pi0", "pi05")
    for sampler in SAMPLERS
    for joint in (False, True)
]


def close(actual: torch.Tensor, expected: torch.Tensor, bound: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=bound, rtol=bound)


# --- acting and judging


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_judging_a_chain_gives_what_acting_gave(options) -> None:
    model, seen = policy(**options), observation(PLATE, DRAWER, PLATE)
    for temperature in (1.0, 0.6):
        decision = model.act(seen, noise_of(model, [3, 4, 5]), temperature)
        evaluation = model.evaluate_actions(seen, decision.taken, temperature)
        assert (evaluation.log_probs - decision.log_probs).abs().max() < 1e-5
        assert (evaluation.values - decision.values).abs().max() < 1e-5
        assert decision.log_probs.any()
    assert decision.actions.shape == decision.log_probs.shape == (3, 3, 4)
    assert decision.actions.abs().max() <= 1.0
    assert {name: tuple(t.shape) for name, t in decision.taken.items()} == {
        "chain": (3, *model.chain_shape),
        "step": (3,),
    }
    assert decision.taken["chain"].dtype == torch.float32
    assert (evaluation.entropy is not None) == (model.config.sampler == "flow_noise")


@pytest.mark.parametrize("options", [FORMS[0], FORMS[7], {"value_position": "vlm"}, {"version": "pi05"}], ids=str)
def test_a_decision_does_not_depend_on_its_batch(options) -> None:
    model = policy(**options)
    seen, noise = observation(PLATE, DRAWER, PLATE, DRAWER), noise_of(model, [3, 4, 5, 6])
    together = model.act(seen, noise)
    for row in range(4):
        alone = model.act(seen[[row]], noise[[row]])
        assert torch.equal(alone.taken["step"][0], together.taken["step"][row])
        close(alone.taken["chain"][0], together.taken["chain"][row])
        close(alone.actions[0], together.actions[row])
        close(alone.log_probs[0], together.log_probs[row], 1e-4)
        close(alone.values[0], together.values[row], 1e-4)
        judged = model.evaluate_actions(seen[[row]], {name: part[[row]] for name, part in together.taken.items()})
        close(judged.log_probs[0], together.log_probs[row], 1e-4)


def test_each_decision_draws_a_step_of_its_own() -> None:
    for last, expected in ((False, {0, 1, 2}), (True, {0, 1})):
        model = policy(ignore_last=last)
        steps = model.act(observation(*[PLATE] * 32), noise_of(model, range(32))).taken["step"]
        assert set(steps.tolist()) == expected


def test_only_the_drawn_step_draws() -> None:
    model, seen = policy(), observation(PLATE)
    noise = noise_of(model, [1])
    step = int(model.act(seen, noise).taken["step"])
    other = noise.clone()
    other[:, -model.config.steps * model.config.action_width :] += 1.0
    before, after = model.act(seen, noise).taken["chain"], model.act(seen, other).taken["chain"]
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])
    shift = (after[:, 1] - before[:, 1]).flatten()
    t = 1 - step / 3
    sigma = 0.5 * (t / (1 - (t if step else 2 / 3))) ** 0.5
    close(shift, torch.full_like(shift, sigma * (1 / 3) ** 0.5), 1e-4)


def test_without_noise_it_is_the_ode_and_repeats_itself() -> None:
    model, seen = policy(), observation(PLATE, DRAWER)
    decision, again = model.act(seen), model.act(seen, None, 0.3)
    assert torch.equal(decision.actions, again.actions)
    assert not decision.log_probs.any()
    assert decision.taken["step"].tolist() == [0, 0]


def test_temperature_zero_is_the_ode_from_a_drawn_start() -> None:
    ode, seen = policy(sampler="flow_ode"), observation(PLATE)
    noise = noise_of(ode, [1])
    decision = policy().act(seen, noise, temperature=0.0)
    close(decision.actions, ode.act(seen, noise).actions, 1e-4)
    assert not decision.log_probs.any()


def test_the_prefix_runs_once(monkeypatch) -> None:
    calls = []
    original = Stream.keys_of
    monkeypatch.setattr(Stream, "keys_of", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    for options in ({}, {"joint_log_prob": True}):
        model, seen = policy(**options), observation(PLATE)
        decision = model.act(seen, noise_of(model, [1]))
        model.evaluate_actions(seen, decision.taken)
    assert len(calls) == 4


def test_noise_is_the_streams_own_and_coherent_noise_is_shared_by_the_horizon() -> None:
    model = policy(joint_log_prob=True)
    rows = noise_of(model, [1, 1, 2])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    start, *steps = noise_of(model, [1], coherent=True)[0, 1:].view(model.chain_shape)
    assert all(torch.equal(step, step[:1].expand_as(step)) for step in steps)
    assert not torch.equal(start, start[:1].expand_as(start))
    assert torch.equal(start, rows[0, 1:].view(model.chain_shape)[0])


def test_images_of_another_size_are_made_to_fit() -> None:
    model = policy()
    assert model.act(observation(PLATE, side=48)).actions.shape == (1, 3, 4)


# --- values


def test_values_are_of_the_step_that_is_trained_unless_averaged() -> None:
    model, averaged = policy(), policy(averaged_rollout_values=True)
    seen = observation(*[PLATE] * 4)
    noise = noise_of(model, range(4))
    decision, other = model.act(seen, noise), averaged.act(seen, noise)
    assert torch.equal(decision.taken["chain"], other.taken["chain"])
    trained = averaged.evaluate_actions(seen, other.taken).values
    close(trained, decision.values)
    assert (trained - other.values).abs().max() > 1e-3


def test_values_of_the_chunk_and_detached_values() -> None:
    seen = observation(PLATE)
    of_all, of_chunk = policy(), policy(value_of_chunk=True)
    taken = of_all.act(seen, noise_of(of_all, [1])).taken
    assert of_all.evaluate_actions(seen, taken).values != of_chunk.evaluate_actions(seen, taken).values
    for detach in (False, True):
        model = policy(detach_value=detach)
        model.evaluate_actions(seen, taken).values.sum().backward()
        assert (model.action_in_proj.weight.grad is None) == detach
        assert model.value_head.mlp[0].weight.grad is not None


@pytest.mark.parametrize("mode", ["mean_token", "last_token", "first_token"])
def test_values_of_the_vlm_ignore_padding_unless_told(mode) -> None:
    seen = observation(PLATE, DRAWER)
    model = policy(value_position="vlm", value_vlm_mode=mode)
    both, alone = model.act(seen), model.act(seen[[0]])
    close(both.values[0], alone.values[0])
    padded = policy(value_position="vlm", value_vlm_mode=mode, padding_in_mean=True).act(seen)
    assert torch.equal(padded.values, both.values) == (mode == "first_token")
    close(padded.actions, both.actions)


# --- what is trained


@pytest.mark.parametrize(
    "options",
    [*FORMS, {"value_position": "vlm"}, {"train_expert_only": True}, {"discrete_state": False, "version": "pi05"}],
    ids=str,
)
def test_every_trainable_weight_is_used_by_both_losses(options) -> None:
    model, seen = policy(**options), observation(PLATE, DRAWER)
    actions, mask = torch.rand(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    taken = model.act(seen, noise_of(model, [1, 2])).taken
    evaluation = model("evaluate_actions", seen, taken)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    unread = {name for name, _ in model.named_parameters()} - trained
    for loss in (
        evaluation.log_probs.mean() + evaluation.values.mean(),
        model("imitation_loss", seen, actions, mask, noise=imitation_noise(model, 2)).loss,
    ):
        model.zero_grad()
        loss.backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
    expert_only = options.get("train_expert_only")
    last = "paligemma.model.language_model.layers.1."
    for name in unread:
        assert ".paligemma." in name if expert_only else last in name or "language_model.norm." in name
    assert bool(unread) == (options.get("value_position") != "vlm")


def test_imitation_counts_what_the_mask_says_and_repeats_the_last_step() -> None:
    model, seen = policy(), observation(PLATE, DRAWER)
    actions, mask, noise = torch.rand(2, 3, 4) - 0.5, torch.tensor([[True, True, False]] * 2), imitation_noise(model, 2)
    whole = torch.cat([actions, actions[:, -1:]], dim=1)
    counted = torch.cat([mask, torch.zeros(2, 1, dtype=torch.bool)], dim=1)
    short, long = (model.imitation_loss(seen, a, m, noise=noise) for a, m in ((actions, mask), (whole, counted)))
    close(short.loss, long.loss)
    close(short.metrics["action_error"], long.metrics["action_error"])
    everything = model.imitation_loss(seen, actions, torch.ones_like(mask), noise=noise)
    assert everything.loss != short.loss
    assert model.imitation_loss(seen, actions, torch.zeros_like(mask), noise=noise).loss == 0.0


def test_imitation_is_the_squared_error_of_the_velocity() -> None:
    model, seen = policy(horizon=3), observation(PLATE)
    noise = imitation_noise(model, 1)
    actions, drawn, time = torch.rand(1, 3, 4) - 0.5, noise[:, :-1].view(1, 3, 6), noise[:, -1]
    numbers = torch.nn.functional.pad(model.action_units(actions).float(), (0, 2))
    inputs = model.inputs(seen)
    states = model.suffix(model.prefix(inputs), inputs.state, time * drawn + (1 - time) * numbers, time)
    expected = (model.action_out_proj(states) - (drawn - numbers)).square().mean()
    close(model.imitation_loss(seen, actions, torch.ones(1, 3, dtype=torch.bool), noise=noise).loss, expected)


def test_times_of_imitation_favour_noise() -> None:
    times = policy().draw_imitation_noise(np.random.default_rng(0), 2000)[:, -1]
    assert 0.001 <= times.min() < times.max() <= 1.0
    assert times.mean() == pytest.approx(0.6 * 0.999 + 0.001, abs=0.02)


@pytest.mark.parametrize("version", ["pi0", "pi05"])
def test_it_learns_two_demonstrations_by_heart(version) -> None:
    options = {"version": version, "horizon": 3, "num_steps": 8, "images": 1, "layers": 1}
    model = make("pi0", SMALL | options, statistics(), 0)
    seen = observation(PLATE, DRAWER)
    actions = torch.tensor([[[0.5, -0.5, 0.2, 1.0]] * 3, [[-0.5, 0.4, -0.3, -1.0]] * 3])
    rows, rng = [0, 1] * 16, np.random.default_rng(0)
    mask = torch.ones(len(rows), 3, dtype=torch.bool)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(120):
        noise = torch.from_numpy(model.draw_imitation_noise(rng, len(rows)))
        optimizer.zero_grad()
        model.imitation_loss(seen[rows], actions[rows], mask, noise=noise).loss.backward()
        optimizer.step()
    for noise in (None, noise_of(model, [1, 2])):
        assert (model.act(seen, noise, 0.0).actions - actions).abs().mean() < 0.1


# --- numbers


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_other_precisions_stay_near(precision) -> None:
    exact, model = policy(), policy(precision=precision)
    model.load_state_dict(exact.state_dict())
    seen, noise = observation(PLATE, DRAWER), noise_of(exact, [1, 2])
    expected, found = exact.act(seen, noise), model.act(seen, noise)
    assert found.actions.dtype == found.log_probs.dtype == found.values.dtype == torch.float32
    assert (found.actions - expected.actions).abs().max() < 0.05
    judged = model.evaluate_actions(seen, found.taken)
    assert (judged.log_probs - found.log_probs).abs().max() < 1e-5
    narrow = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert bool(narrow) == (precision == "bf16")
    assert all(name.startswith("paligemma_with_expert.") for name in narrow)
    assert not any(
        part in name for name in narrow for part in ("norm.", "layernorm.", "embeddings.") if "post_l" not in name
    )


def test_a_number_that_never_changed_is_not_steered() -> None:
    constant = dataclasses.replace(statistics().action, std=np.array([0.1, 0.0, 0.1, 0.1]))
    model = make("pi0", SMALL, dataclasses.replace(statistics(), action=constant), 0)
    assert model.steered.tolist() == [True, False, True, True]


def test_actions_may_be_differences_to_the_proprioception() -> None:
    model, seen = policy(delta_actions=True), observation(PLATE, DRAWER)
    actions = torch.rand(2, 3, 4) - 0.5
    numbers = model.numbers_of(actions, seen.proprio)
    close(model.actions_of(numbers, seen.proprio), actions)
    close(numbers[:, :3, :4], model.action_units(actions - seen.proprio[:, None, :4]).float())


# --- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 2}, "horizon: 2 does not fit; it must be 0, or chunk=3 or more"),
        ({"action_width": 3}, "action_dim: 4 does not fit; it must be action_width=3 at most"),
        ({"action_width": 4}, "proprio_dim: 5 does not fit; it must be action_width=4 at most, or 0"),
        ({"action_dim": 5}, "action_dim: 5 does not fit; the demonstrations have 4"),
        ({"proprio_dim": 4}, "proprio_dim: 4 does not fit; the demonstrations have 5"),
        ({"discrete_state": True}, "discrete_state: True does not fit; it must be false unless version is pi05"),
        ({"sampler": "sde"}, "sampler: 'sde' does not fit; it must be flow_ode, flow_sde, flow_cps or flow_noise"),
        (
            {"ignore_last": True, "joint_log_prob": True},
            "ignore_last: True does not fit; it must be false where num_steps is 1 or joint_log_prob is set",
        ),
        (
            {"noise_range": [0.2, 0.1]},
            "noise_range: (0.2, 0.1) does not fit; it must be two deviations above 0, the lesser first",
        ),
        ({"num_step": 3}, "num_step: unknown; did you mean 'num_steps'?"),
        ({"preset": "7b"}, "preset: no preset is called '7b'; known: base, small, tiny"),
        ({"lora": {"rank": 2}}, "lora: pi0 has none; leave it out, or set policy.flow.train_expert_only=true"),
    ],
)  # fmt: skip
def test_wrong_options(options, message) -> None:
    with pytest.raises(PolicyConfigError, match=f"^{re.escape(message)}$"):
        make("pi0", SMALL | options, statistics(), 0)


def test_wrong_inputs() -> None:
    model, seen = policy(), observation(PLATE)
    taken = model.act(seen, noise_of(model, [1])).taken
    for call, message in (
        (lambda: model.act(seen, torch.zeros(1, 3)), "noise has shape (1, 3), expected (1, 49)"),
        (lambda: model.act(seen, None, -1.0), "temperature must be 0 or more, not -1.0"),
        (
            lambda: model.evaluate_actions(seen, taken | {"chain": taken["chain"][:, :1]}),
            "chain and step have shapes (1, 1, 4, 6) and (1,), expected (1, 2, 4, 6) and (1,)",
        ),
        (lambda: model.evaluate_actions(seen, taken | {"step": torch.tensor([3])}), "a step is 3, num_steps is 3"),
        (
            lambda: model.imitation_loss(seen, torch.zeros(1, 3, 4), torch.ones(1, 3)),
            "noise has shape None, expected (1, 25), rows of draw_imitation_noise",
        ),
        (
            lambda: model.imitation_loss(seen, torch.zeros(1, 2, 4), torch.ones(1, 2), noise=torch.zeros(1, 25)),
            "actions have shape (1, 2, 4), expected (1, 3, 4)",
        ),
        (
            lambda: model.act(observation(" ".join([PLATE] * 9))),
            f"the prompt of {' '.join([PLATE] * 9)!r} has 65 tokens, prompt_length is 48: set it to 65 or more",
        ),
    ):
        with pytest.raises(PolicyInputError, match=f"^{re.escape(message)}$"):
            call()


def test_presets() -> None:
    sizes = {}
    for name in PRESETS:
        with torch.device("meta"):
            from stages.policies.pi0.network import Network

            sizes[name] = sum(p.numel() for p in Network(PRESETS[name]).parameters())
    assert sizes["tiny"] < 2e6
    assert 20e6 < sizes["small"] < 60e6
    assert 3.2e9 < sizes["base"] < 3.4e9
