"""Prompts, images and units."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.policies import tokenizer_files, tokenizer_training
from stages.policies.interface import PolicyFileError
from stages.policies.pi0 import train_tokenizer
from stages.policies.pi0.config import PRESETS, Pi0Config
from stages.policies.pi0.images import resize_with_pad, scaled
from stages.policies.pi0.prompt import DIRECTORY, PromptTokenizer, discrete, text_of
from stages.policies.pi0.units import Units
from stages.policies.statistics import Moments
from tests.stages.policies.pi0.policies_for_pi0 import PLATE, observation, policy

TINY = PRESETS["tiny"]


def test_prompts_have_openpis_forms() -> None:
    assert text_of(" put_the cube\non it ", None) == ("put the cube on it", "\n")
    assert text_of(" put_the cube\non it ", np.array([-1.0, 0.0, 0.999])) == (
        "Task: put the cube on it, State: 0 128 255;\nAction: ",
    )


def test_bins_are_openpis() -> None:
    numbers = np.array([-1.5, -1.0, -0.9921875, -1 / 256, 0.0, 0.5, 0.9999, 1.0, 7.0])
    assert discrete(numbers) == [-1, 0, 1, 127, 128, 192, 255, 255, 255]


def test_a_prompt_begins_with_bos_and_is_padded_on_the_right() -> None:
    tokenizer = PromptTokenizer(TINY)
    ids = tokenizer.encode(PLATE)
    assert ids[0] == 2
    assert len(ids) == 9
    assert tokenizer.encode("  put the_red cube on the plate ") == ids
    short = tokenizer.encode("open")
    batch = tokenizer.batch([PLATE, "open"], None, False, torch.device("cpu"))
    assert batch.ids.tolist() == [list(ids), [*short, *[0] * (9 - len(short))]]
    assert batch.valid.tolist() == [[True] * 9, [True] * len(short) + [False] * (9 - len(short))]
    assert tokenizer.batch([PLATE], None, False, torch.device("cpu")).valid is None
    assert tokenizer.batch([PLATE], None, True, torch.device("cpu")).ids.shape == (1, 48)


def test_every_bin_is_a_token_of_its_own() -> None:
    tokenizer = PromptTokenizer(Pi0Config(vocab_size=960, prompt_length=400))
    state = (np.arange(256) + 0.5) / 256 * 2 - 1
    assert len(tokenizer.encode(PLATE, state)) - len(tokenizer.encode(PLATE, state[:1])) == 255


def test_the_committed_tokenizer_is_what_its_script_makes(tmp_path) -> None:
    tokenizer_training.write(train_tokenizer.train(), tmp_path, train_tokenizer.ABOUT)
    for name in tokenizer_files.FILES:
        assert (tmp_path / name).read_bytes() == (DIRECTORY / name).read_bytes()


def test_a_tokenizer_with_too_many_tokens() -> None:
    with pytest.raises(
        PolicyFileError, match=r"tokenizer.json has 960 tokens, the network has 900: take both from one policy$"
    ):
        PromptTokenizer(Pi0Config(vocab_size=900))


def test_discrete_states_are_in_the_prompt_and_nowhere_else() -> None:
    spoken, silent = policy(version="pi05"), policy(version="pi05", discrete_state=False)
    assert spoken.config.discrete_state
    seen = observation(PLATE)
    other = observation(PLATE)
    other.proprio.add_(0.5)
    assert spoken.inputs(seen).prompts.ids.tolist() != spoken.inputs(other).prompts.ids.tolist()
    assert torch.equal(silent.act(seen).actions, silent.act(other).actions)
    assert not torch.equal(spoken.act(seen).actions, spoken.act(other).actions)
    assert not spoken.inputs(seen).state.any()
    assert policy().inputs(seen).state.any()


def test_the_state_is_padded() -> None:
    model, seen = policy(), observation(PLATE)
    state = model.inputs(seen).state
    assert state.shape == (1, 6)
    moments = model.statistics.proprio
    expected = (seen.proprio.numpy() - moments.mean) / (moments.std + 1e-6)
    np.testing.assert_allclose(state[:, :5], expected, rtol=1e-5)
    assert state[0, 5] == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 60), st.integers(4, 60), st.integers(8, 40))
def test_images_keep_their_proportions(height, width, side) -> None:
    white = scaled(torch.full((2, 3, height, width), 255, dtype=torch.uint8))
    fitted = resize_with_pad(white, side)
    assert fitted.shape == (2, 3, side, side)
    ratio = max(height, width) / side
    shape = [max(1, int(height / ratio)), max(1, int(width / ratio))]
    seen = fitted[0, 0] > 0
    assert [int(seen.any(dim=axis).sum()) for axis in (1, 0)] == shape
    assert seen.sum() == shape[0] * shape[1]
    rows = seen.any(dim=1).nonzero().flatten()
    if len(rows):
        assert abs(int(rows[0]) - (side - 1 - int(rows[-1]))) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_units_go_and_come_back(seed, quantiles) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(rng.normal(size=4), rng.uniform(0.01, 3, size=4), size=(50, 4))
    vectors[:, 2] = 0.3
    vectors[:, 3] = np.sign(vectors[:, 3])
    units = Units(Moments.of(vectors, unchanged=[3]), quantiles)
    numbers = torch.from_numpy(vectors)
    torch.testing.assert_close(units.inverse(units(numbers)), numbers, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(units(numbers)[:, 3], numbers[:, 3], atol=1e-5, rtol=1e-5)
    assert units.constant.tolist() == [False, False, True, False]
    if quantiles:
        low, high = np.quantile(vectors[:, :2], [0.01, 0.99], axis=0)
        expected = (vectors[:, :2] - low) / (high - low + 1e-6) * 2 - 1
    else:
        expected = (vectors[:, :2] - vectors[:, :2].mean(0)) / (vectors[:, :2].std(0) + 1e-6)
    np.testing.assert_allclose(units(numbers)[:, :2], expected, atol=1e-9)
