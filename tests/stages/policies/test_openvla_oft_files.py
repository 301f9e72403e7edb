"""OpenVLA-OFT policies on disk: what comes back bitwise, and what is refused."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.policies.interface import (
    PolicyConfigError,
    PolicyFileError,
    load,
    make,
)
from tests.stages.policies.openvla_oft_for_tests import (
    ORIGINAL,
    PLATE,
    SMALL,
    STACK,
    noise_of,
    observation,
    policy,
    statistics,
)


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
