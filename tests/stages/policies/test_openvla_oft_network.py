"""What stands in the sequence of the OpenVLA-OFT policy, and what reaches what in its network."""

import dataclasses

import pytest
import torch

from stages.policies.interface import (
    PolicyInputError,
)
from stages.policies.openvla_oft.config import PRESETS, OpenVLAOFTConfig
from stages.policies.openvla_oft.prompt import PromptTokenizer
from tests.stages.policies.openvla_oft_for_tests import (
    ORIGINAL,
    PLATE,
    SMALL,
    STACK,
    noise_of,
    observation,
    policy,
)

# --- prompts


def test_a_prompt_starts_with_bos_ends_with_a_lone_space_and_is_short() -> None:
    tokenizer = PromptTokenizer(PRESETS["tiny"])
    ids = tokenizer.encode(PLATE)
    assert (ids[0], ids[-1]) == (1, PRESETS["tiny"].prompt_end_id)
    assert len(ids) <= 14
    assert ids == tokenizer.encode(PLATE.upper())
    assert ids != tokenizer.encode(STACK)


def test_any_instruction_keeps_the_lone_space_and_stays_clear_of_action_tokens() -> None:
    tokenizer, config = PromptTokenizer(PRESETS["tiny"]), PRESETS["tiny"]
    for instruction in ("", " ", "open?\n ", "put it at 3.5 cm, now!", "mets la tête à gauche", "Out: "):
        ids = tokenizer.encode(instruction)
        assert ids[-1] == config.prompt_end_id
        assert max(ids) < config.vocab_size - 256


def test_the_vocabulary_follows_llamas_conventions() -> None:
    from transformers import PreTrainedTokenizerFast

    from stages.policies.openvla_oft.prompt import DIRECTORY

    tokenizer = PreTrainedTokenizerFast.from_pretrained(DIRECTORY)
    config = PRESETS["tiny"]
    assert tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<PAD>"]) == [1, 2, config.vocab_size]
    assert tokenizer.convert_tokens_to_ids("<action_255>") == config.vocab_size - 1
    assert tokenizer.decode([config.prompt_end_id]) == " "
    assert config.padded_vocab_size % 64 == 0
    assert OpenVLAOFTConfig().padded_vocab_size == 32064


def test_the_committed_tokenizer_is_what_its_script_makes(tmp_path) -> None:
    from stages.policies import tokenizer_files, tokenizer_training
    from stages.policies.openvla_oft.prompt import DIRECTORY
    from stages.policies.openvla_oft.train_tokenizer import ABOUT, train

    tokenizer_training.write(train(), tmp_path, ABOUT)
    for name in tokenizer_files.FILES:
        assert (tmp_path / name).read_bytes() == (DIRECTORY / name).read_bytes()


# --- the sequence


@pytest.mark.parametrize("options", [SMALL, ORIGINAL])
def test_padding_changes_nothing(options) -> None:
    model = policy(**options)
    both = observation(PLATE, STACK + " and then on the green cube")
    taken = model.act(both, noise_of(model, [5, 6])).taken
    together = model.evaluate_actions(both, taken)
    for row in range(2):
        alone = model.evaluate_actions(both[[row]], {"tokens": taken["tokens"][[row]]})
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.values[0], together.values[row], atol=1e-5, rtol=1e-5)


def test_attention_goes_both_ways() -> None:
    model = policy()
    body = model.language_model.model
    embeddings = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(0))
    later = embeddings.clone()
    later[0, 7] += 1.0
    everywhere = slice(None)
    before, after = (body(e, None, everywhere, False) for e in (embeddings, later))
    assert ((before - after).abs().amax(dim=-1) > 1e-4).all()
    valid = torch.ones(1, 9, dtype=torch.bool)
    valid[0, 7] = False
    before, after = (body(e, valid, everywhere, False) for e in (embeddings, later))
    others = [0, 1, 2, 3, 4, 5, 6, 8]
    torch.testing.assert_close(before[:, others], after[:, others], atol=0, rtol=0)


def test_reading_few_positions_equals_reading_all() -> None:
    body = policy().language_model.model
    embeddings = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    every = body(embeddings, None, slice(None), False)
    torch.testing.assert_close(body(embeddings, None, slice(5, 8), False), every[:, 5:8])
    torch.testing.assert_close(body(embeddings, None, slice(None), True), every, atol=1e-5, rtol=1e-5)


def test_every_input_reaches_the_first_action_and_the_value() -> None:
    model = policy()
    torch.nn.init.normal_(model.value_head.mlp[4].weight)
    seen = observation(PLATE)
    changes = {
        "head": seen.head ^ 255,
        "wrist": torch.cat([seen.wrist[:, :1], seen.wrist[:, 1:] ^ 255], dim=1),
        "proprio": -seen.proprio,
        "instructions": [STACK],
    }
    taken = model.act(seen).taken
    base = model.evaluate_actions(seen, taken)
    for name, value in changes.items():
        other = model.evaluate_actions(dataclasses.replace(seen, **{name: value}), taken)
        assert (other.log_probs - base.log_probs)[0, 0].abs().max() > 1e-4, name
        assert (other.values - base.values).abs().max() > 1e-4, name
    swapped = dataclasses.replace(seen, wrist=seen.wrist.flip(1))
    assert (model.evaluate_actions(swapped, taken).log_probs - base.log_probs).abs().max() > 1e-4


def test_action_positions_are_zeroed_whatever_the_action_tokens_embed_to() -> None:
    model = policy(**ORIGINAL)
    seen = observation(PLATE)
    taken = model.act(seen).taken
    before = model.evaluate_actions(seen, taken).log_probs
    with torch.no_grad():
        placeholder_and_actions = [0, *range(model.config.vocab_size - 256, model.config.padded_vocab_size)]
        model.language_model.model.embed_tokens.weight[placeholder_and_actions] += 7.0
    torch.testing.assert_close(model.evaluate_actions(seen, taken).log_probs, before, atol=0, rtol=0)


def test_the_norms_written_out_gradient_is_the_norms() -> None:
    from stages.policies.openvla_oft.norms import RMSNorm

    torch.manual_seed(0)
    mine, torchs = RMSNorm(16, 1e-6), torch.nn.RMSNorm(16, eps=1e-6)
    x = torch.randn(2, 3, 16)
    weight, upstream = torch.randn(16), torch.randn(2, 3, 16)
    found = []
    for norm in (mine, torchs):
        norm.weight.data.copy_(weight)
        into = x.clone().requires_grad_()
        out = norm(into)
        out.backward(upstream)
        found.append((out, into.grad, norm.weight.grad))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_towers_normalise_pixels_as_published() -> None:
    from stages.policies.openvla_oft.vision import cut

    model = policy()
    images = observation(PLATE).head
    for tower, config in (("featurizer", model.config.dino), ("fused_featurizer", model.config.siglip)):
        embedding = getattr(model.vision_backbone, tower).patch_embed.proj
        mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
        pixels = (images / 255 - mean) / std
        expected = torch.nn.functional.conv2d(pixels, embedding.weight, embedding.bias, stride=16).flatten(2).mT
        torch.testing.assert_close(embedding(cut(images, 16)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_policy_sees_as_many_cameras_as_it_has(images: int) -> None:
    model = policy(**ORIGINAL, images=images)
    seen = observation(PLATE)
    taken = model.act(seen).taken
    base = model.evaluate_actions(seen, taken).log_probs
    for camera in range(2):
        wrist = seen.wrist.clone()
        wrist[:, camera] ^= 255
        moved = model.evaluate_actions(dataclasses.replace(seen, wrist=wrist), taken).log_probs
        assert torch.equal(moved, base) == (camera + 2 > images)


def test_the_stop_token_is_seen_by_every_action() -> None:
    with_, without = policy(**ORIGINAL, stop_token=True), policy(**ORIGINAL)
    seen = observation(PLATE, STACK)
    taken = without.act(seen).taken
    assert (
        with_.evaluate_actions(seen, taken).log_probs - without.evaluate_actions(seen, taken).log_probs
    ).abs().min() > 0
    alone = with_.evaluate_actions(seen[[1]], {"tokens": taken["tokens"][[1]]})
    torch.testing.assert_close(
        alone.log_probs[0], with_.evaluate_actions(seen, taken).log_probs[1], atol=1e-5, rtol=1e-5
    )


def test_a_fixed_prompt_length_changes_no_number_and_refuses_what_is_longer() -> None:
    seen = observation(PLATE, STACK)
    free = policy(**ORIGINAL)
    taken = free.act(seen).taken
    fixed = policy(**ORIGINAL, prompt_length=30).evaluate_actions(seen, taken)
    torch.testing.assert_close(fixed.log_probs, free.evaluate_actions(seen, taken).log_probs, atol=1e-5, rtol=1e-5)
    with pytest.raises(PolicyInputError, match="prompt_length is 5: set it to"):
        policy(**ORIGINAL, prompt_length=5).act(seen)


def test_the_official_value_moves_by_one_place_for_each_padding_and_past_the_actions_stays() -> None:
    from stages.policies.openvla_oft.sequence import Sequence

    valid = torch.ones(4, 12, dtype=torch.bool)
    for row, padding in enumerate((0, 1, 3, 4)):
        valid[row, 2 : 2 + padding] = False
    places = Sequence(torch.zeros(4, 12, 1), valid, slice(-5, -2)).value_places(3)
    assert places.tolist() == [8, 9, 11, 2]  # of 3 actions at 8, 9, 10 and the stop token at 11; then padding at 2
    assert Sequence(torch.zeros(1, 12, 1), None, slice(-5, -2)).value_places(3).tolist() == [8]


def test_each_action_of_a_chunk_can_have_a_value() -> None:
    model = policy(**ORIGINAL, value_level="action", value_init="normal")
    decision = model.act(observation(PLATE, STACK))
    assert decision.values.shape == (2, 3)
    assert (decision.values.std(dim=1) > 0).all()
