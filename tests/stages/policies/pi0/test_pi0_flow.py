"""Denoising steps, for any numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.policies.pi0 import flow

SAMPLERS = ("flow_ode", "flow_sde", "flow_cps", "flow_noise")


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(sampler: str, index: int, steps: int, level: float, seed: int = 0, rows: int = 2) -> tuple:
    x, velocity = numbers(seed, rows, 3, 2), numbers(seed + 1, rows, 3, 2)
    learned = numbers(seed + 2, rows, 3, 2).exp()
    where, how = torch.full((rows,), index), torch.full((rows,), level)
    return x, velocity, learned, flow.denoise(sampler, x, velocity, where, steps, how, learned)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SAMPLERS), st.integers(1, 12), st.data(), st.integers(0, 10**6))
def test_without_noise_every_step_is_eulers(sampler, steps, data, seed) -> None:
    index = data.draw(st.integers(0, steps - 1))
    x, velocity, _, found = step(sampler, index, steps, 0.0, seed)
    torch.testing.assert_close(found.mean, x - velocity / steps, atol=1e-6, rtol=1e-6)
    assert not found.std.any()
    assert not flow.log_density(x, found).any()
    assert not flow.entropy(found).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.data(), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_the_deviations_are_their_formulas(steps, data, level, seed) -> None:
    index = data.draw(st.integers(0, steps - 1))
    t, s = 1 - index / steps, 1 - (index + 1) / steps
    apart = t if index else 1 - 1 / steps
    expected = {
        "flow_sde": math.sqrt(1 / steps) * level * math.sqrt(t / (1 - apart)),
        "flow_cps": s * math.sin(math.pi * level / 2),
    }
    for sampler, std in expected.items():
        found = step(sampler, index, steps, level, seed)[-1].std
        assert found.flatten().tolist() == pytest.approx([std] * 2, rel=1e-5, abs=1e-6)
    _, _, learned, found = step("flow_noise", index, steps, level, seed)
    torch.testing.assert_close(found.std, learned * torch.tensor(level).double())


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SAMPLERS[1:]), st.integers(2, 12), st.data(), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_log_density_and_entropy_are_the_gaussians(sampler, steps, data, level, seed) -> None:
    index = data.draw(st.integers(0, steps - 2))
    x, _, _, found = step(sampler, index, steps, level, seed)
    gaussian = torch.distributions.Normal(found.mean, found.std)
    drawn = found.mean + found.std * numbers(seed + 3, *x.shape)
    torch.testing.assert_close(flow.log_density(drawn, found), gaussian.log_prob(drawn))
    torch.testing.assert_close(flow.entropy(found).expand_as(x), gaussian.entropy())


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SAMPLERS), st.integers(2, 8), st.integers(0, 10**6))
def test_rows_are_independent(sampler, steps, seed) -> None:
    x, velocity, learned = (numbers(seed + i, 4, 3, 2) for i in range(3))
    index = torch.arange(4) % steps
    level = torch.tensor([0.0, 0.3, 0.6, 0.9])
    together = flow.denoise(sampler, x, velocity, index, steps, level, learned.exp())
    for row in range(4):
        cut = slice(row, row + 1)
        alone = flow.denoise(sampler, x[cut], velocity[cut], index[cut], steps, level[cut], learned[cut].exp())
        assert torch.equal(alone.mean[0], together.mean[row])
        assert torch.equal(alone.std.expand(1, 3, 2)[0], together.std.expand(4, 3, 2)[row])


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_the_sde_ends_at_the_data_as_the_ode_does(level) -> None:
    """Data N(0.7, 0.2^2), whose velocity is known: both samplers turn noise into just these."""
    steps, mean, spread = 200, 0.7, 0.2
    x = numbers(1, 20000, 1, 1)
    times = flow.times("flow_sde", steps, x.device)
    for index in range(steps):
        t = float(times[index])
        variance = t**2 + (1 - t) ** 2 * spread**2
        away = x - (1 - t) * mean
        velocity = t / variance * away - (mean + (1 - t) * spread**2 / variance * away)
        rows = torch.full((len(x),), index)
        drawn = flow.denoise("flow_sde", x, velocity, rows, steps, torch.full((len(x),), level), None)
        x = drawn.mean + drawn.std * numbers(index + 2, *x.shape)
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x.std()) == pytest.approx(spread, rel=0.15 if level else 0.05)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 10, 50])
def test_times_go_from_one_to_nothing(sampler, steps) -> None:
    times = flow.times(sampler, steps, torch.device("cpu"))
    torch.testing.assert_close(times, torch.linspace(1, 0, steps + 1), atol=1e-5, rtol=0)
    assert times.diff().max() < 0
