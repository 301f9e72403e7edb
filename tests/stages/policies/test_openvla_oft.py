"""The OpenVLA-OFT policy, through its interface."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.policies.interface import (
    Observation,
    PolicyConfigError,
    PolicyFileError,
    PolicyInputError,
    load,
    make,
)
from stages.policies.openvla_oft.config import PRESETS, OpenVLAOFTConfig
from stages.policies.openvla_oft.prompt import PromptTokenizer
from stages.policies.statistics import Statistics

PLATE, STACK = "put the red cube on the plate", "Stack the red cube on the blue cube"
TOWER = {"width": 16, "depth": 2, "heads": 2, "mlp": 32}
SMALL = {
    "preset": "tiny", "image_size": 32, "dino": TOWER, "siglip": TOWER, "projector_width": 32, "hidden": 32,
    "layers": 2, "mlp": 48, "chunk": 3, "action_dim": 4, "dims_per_position": 4, "proprio_dim": 5,
}  # fmt: skip
ORIGINAL = SMALL | {"dims_per_position": 1, "camera_embedding": False, "action_embedding": False, "proprio_dim": 0}


def statistics() -> Statistics:
    rng = np.random.default_rng(1)
    return Statistics.of(rng.uniform(-0.8, 0.8, (200, 4)), rng.normal(size=(200, 5)), unchanged_actions=[3])


def policy(**options):
    return make("openvla_oft", SMALL | options, statistics(), seed=0)


def observation(*instructions: str, seed: int = 0) -> Observation:
    rng, rows = np.random.default_rng(seed), len(instructions)
    return Observation.from_arrays(
        rng.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8),
        rng.integers(0, 256, (rows, 2, 3, 32, 32), dtype=np.uint8),
        rng.normal(size=(rows, 5)).astype(np.float32),
        list(instructions),
    )


def noise_of(model, seeds, coherent=False) -> torch.Tensor:
    return torch.from_numpy(np.stack([model.draw_noise(np.random.default_rng(s), coherent) for s in seeds]))


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


# --- files


@pytest.mark.parametrize("options", [SMALL, ORIGINAL])
def test_a_policy_comes_back_bitwise(tmp_path, options) -> None:
    model = policy(**options)
    seen = observation(PLATE, STACK)
    (tmp_path / "again").mkdir()
    model.save(tmp_path)
    back = load(tmp_path)
    assert back.config == model.config
    for (name, mine), (other, theirs) in zip(model.state_dict().items(), back.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)
    before, after = (m.act(seen, noise_of(m, [0, 1])) for m in (model, back))
    assert torch.equal(before.taken["tokens"], after.taken["tokens"])
    for part in ("actions", "log_probs", "values"):
        assert torch.equal(getattr(before, part), getattr(after, part))
    back.save(tmp_path / "again")
    for name in os.listdir(tmp_path / "again"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert load(tmp_path, precision="mixed").precision == "mixed"


def test_a_seed_decides_every_weight_and_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    models = [make("openvla_oft", SMALL, statistics(), seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), first)
    states = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("policy")
    policy().save(directory)
    return directory


def damaged(saved, tmp_path, change) -> str:
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    weights = load_file(copy / "model.safetensors")
    change(weights, copy)
    with pytest.raises(PolicyFileError) as refusal:
        load(copy)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def rewrite(weights, copy) -> None:
    save_file(weights, copy / "model.safetensors")


def test_missing_surplus_and_misshapen_tensors_are_named(saved, tmp_path) -> None:
    def change(weights, copy) -> None:
        del weights["projector.fc2.bias"]
        weights["projector.fc4.bias"] = torch.zeros(1)
        weights["projector.fc1.bias"] = torch.zeros(31)
        rewrite(weights, copy)

    message = damaged(saved, tmp_path, change)
    assert "projector.fc2.bias is missing" in message
    assert "projector.fc4.bias is unknown" in message
    assert "projector.fc1.bias has shape (31,), expected (32,)" in message


def test_a_truncated_weight_file_is_refused(saved, tmp_path) -> None:
    def change(weights, copy) -> None:
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])

    assert "model.safetensors is damaged" in damaged(saved, tmp_path, change)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "dataset_statistics.json", "tokenizer.json"])
def test_a_missing_file_is_named(saved, tmp_path, name: str) -> None:
    assert f"{name} is missing" in damaged(saved, tmp_path, lambda weights, copy: (copy / name).unlink())


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(saved, tmp_path, name: str) -> None:
    assert name in damaged(saved, tmp_path, lambda weights, copy: (copy / name).write_text("{"))


def test_a_config_with_an_unknown_field_is_refused(saved, tmp_path) -> None:
    def change(weights, copy) -> None:
        record = json.loads((copy / "config.json").read_text())
        record["baton"]["config"]["layer"] = 2
        (copy / "config.json").write_text(json.dumps(record))

    assert "layer: unknown; did you mean 'layers'?" in damaged(saved, tmp_path, change)


def test_a_saved_policy_is_in_the_originals_layout(saved) -> None:
    """The one archive of torch's is what the originals look for; it holds tensors and is read as nothing else."""
    assert sorted(os.listdir(saved)) == [
        "config.json", "dataset_statistics.json", "model.safetensors", "preprocessor_config.json",
        "proprio_projector--latest_checkpoint.pt", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    torch.load(saved / "proprio_projector--latest_checkpoint.pt", weights_only=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "known: 7b, tiny"),
        ({"imagesize": 32}, "did you mean 'image_size'"),
        ({"hidden": "128"}, "hidden"),
        ({"dino": {"with": 3}}, "dino.with"),
        ({"dims_per_position": 5}, "divisor of chunk"),
        ({"action_dim": 5, "dims_per_position": 5}, "the demonstrations have 4"),
        ({"image_size": 33}, "a multiple of 16"),
        ({"bounds": "q9"}, "q99 or minmax"),
        ({"images": 4}, "1, 2 or 3"),
        ({"top_k": 300}, "0 .all. to 256"),
        ({"value_position": "official"}, "stop_token and prompt_length"),
        ({"action_head": "l1"}, "tokens where dims_per_position"),
        ({"lora": {"rank": -1}}, "lora.rank"),
        ({"lora": {"rang": 1}}, "did you mean 'rank'"),
        ({"siglip": {"registers": 1}}, "SigLIP has none"),
    ],
)
def test_a_wrong_option_is_named_with_a_remedy(options, message: str) -> None:
    with pytest.raises(PolicyConfigError, match=message):
        policy(**options)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(PolicyConfigError, match="no policy is called 'openvla'"):
        make("openvla", {}, statistics(), seed=0)
