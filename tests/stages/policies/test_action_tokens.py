"""Action tokens and normalisation."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.policies.openvla_oft.actions import HALF_BIN, Normaliser, decode, encode, sample, soft_cross_entropy
from stages.policies.statistics import Moments, PolicyFileError, Statistics


def reference_tokens(normalised: np.ndarray) -> np.ndarray:
    """OpenVLA's ids, less 31744."""
    return 32000 - np.digitize(np.clip(normalised, -1, 1), np.linspace(-1, 1, 256)) - 31744


@given(hnp.arrays(np.float64, 20, elements=st.floats(-1.2, 1.2)))
def test_encode_agrees_with_digitize_and_decodes_within_half_a_bin(normalised: np.ndarray) -> None:
    tokens = encode(torch.from_numpy(normalised))
    np.testing.assert_array_equal(tokens.numpy(), reference_tokens(normalised))
    error = np.abs(decode(tokens).numpy() - np.clip(normalised, -1, 1))
    assert error.max() <= HALF_BIN + 1e-12


def test_the_order_of_tokens_is_reversed_and_two_tokens_share_the_highest_centre() -> None:
    edges = np.linspace(-1, 1, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    expected = centres[np.clip(32000 - (31744 + np.arange(256)) - 1, 0, 254)]
    np.testing.assert_allclose(decode(torch.arange(256)).numpy(), expected, atol=1e-15)
    assert encode(torch.tensor([-1.0, 1.0])).tolist() == [255, 0]
    assert decode(torch.tensor(0)) == decode(torch.tensor(1)) > 0 > decode(torch.tensor(255))


@given(st.integers(1, 255))
def test_every_token_but_the_doubled_one_survives_a_round_trip(token: int) -> None:
    assert encode(decode(torch.tensor([token]))).item() == token


@given(hnp.arrays(np.float64, (30, 5), elements=st.floats(-1, 1)))
def test_actions_come_back_within_half_a_bin_of_their_range(actions: np.ndarray) -> None:
    actions[:, 3] = 0.25  # never varies
    actions[:, 4] = np.sign(actions[:, 4]) + (actions[:, 4] == 0)
    moments = Moments.of(actions, unchanged=[4])
    normaliser = Normaliser(moments, "minmax", "action")
    back = normaliser.inverse(decode(encode(normaliser(torch.from_numpy(actions))))).numpy()
    span = np.ptp(actions, axis=0)
    assert (np.abs(back - actions)[:, :4] <= span[:4] * HALF_BIN + 1e-7).all()
    assert (np.abs(back - actions)[:, 4] <= HALF_BIN + 1e-12).all()


def test_a_constant_number_is_zero_normalised_and_itself_for_every_token() -> None:
    normaliser = Normaliser(Moments.of(np.full((9, 1), -0.375)), "q99", "action")
    assert normaliser(torch.tensor([[-0.375]])).item() == 0.0
    assert (normaliser.inverse(decode(torch.arange(256))[:, None]) == -0.375).all()


def test_quantiles_are_mapped_to_the_ends_with_the_originals_epsilon() -> None:
    moments = Moments.of(np.linspace(-2, 3, 1001)[:, None])
    normaliser = Normaliser(moments, "q99", "action")
    low, high = moments.q01[0], moments.q99[0]
    x = torch.tensor([[-0.7], [0.9]], dtype=torch.float64)
    assert normaliser(torch.tensor([[-5.0], [5.0]])).flatten().tolist() == [-1.0, 1.0]
    np.testing.assert_array_equal(normaliser.inverse(x).numpy(), 0.5 * (x.numpy() + 1) * (high - low + 1e-8) + low)


def test_a_number_that_rarely_varies_is_not_frozen() -> None:
    rows = np.zeros((1000, 1))
    rows[3] = 0.5
    moments = Moments.of(rows)
    assert (moments.q01[0], moments.q99[0]) == (0.0, 0.5)


def test_sampling_inverts_the_cumulative_distribution() -> None:
    log_probs = torch.log_softmax(torch.randn(1, 256, generator=torch.Generator().manual_seed(0)) * 3, dim=-1)
    noise = (torch.arange(40000) + 0.5) / 40000
    counts = torch.bincount(sample(log_probs.expand(40000, -1), noise), minlength=256) / 40000
    assert (counts - log_probs.exp()[0]).abs().max() < 1e-4


@given(st.integers(0, 255), st.floats(0.0, 1.0, width=32))
def test_sampling_never_takes_a_token_without_probability(token: int, noise: float) -> None:
    log_probs = torch.full((1, 256), -float("inf"))
    log_probs[0, token] = 0.0
    assert sample(log_probs, torch.tensor([min(noise, 1 - 2.0**-23)])).item() == token


@pytest.mark.parametrize("x", [-1.0, -0.3, 0.0, 0.77, 1.0])
def test_soft_labels_are_a_gaussian_around_the_number(x: float) -> None:
    logits = torch.zeros(256, requires_grad=True)
    soft_cross_entropy(torch.log_softmax(logits, dim=-1), torch.tensor(x), 1.5).backward()
    labels = 1 / 256 - logits.grad  # the gradient of cross-entropy is probabilities less labels
    assert labels.sum().item() == pytest.approx(1.0, abs=1e-5)
    centres = decode(torch.arange(256))
    middle = (labels * centres).sum().item()
    width = (labels * (centres - middle) ** 2).sum().sqrt().item() / (2 * HALF_BIN)
    if abs(x) < 1:
        assert abs(middle - x) < 0.05 * HALF_BIN
        assert width == pytest.approx(1.5, rel=0.02)
    else:  # half of the Gaussian lies beyond the last bin
        assert abs(middle - x) < 4 * HALF_BIN
        assert width < 1.2


def test_statistics_survive_their_file(tmp_path) -> None:
    rng = np.random.default_rng(0)
    written = Statistics.of(rng.normal(size=(50, 3)), rng.normal(size=(50, 2)), unchanged_actions=[2], dataset="pick")
    written.save(tmp_path)
    read = Statistics.load(tmp_path)
    assert read.dataset == "pick"
    for name in ("q01", "q99", "minimum", "maximum", "mean", "std", "mask"):
        np.testing.assert_array_equal(getattr(read.action, name), getattr(written.action, name))
        np.testing.assert_array_equal(getattr(read.proprio, name), getattr(written.proprio, name))


def test_published_statistics_are_found_without_a_mask_and_under_their_longer_name(tmp_path) -> None:
    record = {"libero_no_noops": {"action": {"q01": [-1.0], "q99": [1.0]}}, "other": {}}
    (tmp_path / "dataset_statistics.json").write_text(json.dumps(record))
    read = Statistics.load(tmp_path, "libero")
    assert read.action.mask.tolist() == [True]
    assert len(read.proprio.mask) == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"a": {"action": {"q01": [1], "q99": [1, 2]}}}'])
def test_damaged_statistics_are_refused_in_one_line(tmp_path, text: str) -> None:
    (tmp_path / "dataset_statistics.json").write_text(text)
    with pytest.raises(PolicyFileError, match="dataset_statistics.json") as refusal:
        Statistics.load(tmp_path, "a")
    assert "\n" not in str(refusal.value)
