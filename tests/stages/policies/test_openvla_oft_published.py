"""Policies in the originals' layout: read, refused, written again, fine-tuned with LoRA and merged."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.policies import weights
from stages.policies.interface import Observation, PolicyFileError, load
from stages.policies.openvla_oft import initial, merge, published
from stages.policies.openvla_oft.policy import OpenVLAOFT
from tests.stages.policies.layout_for_tests import (
    DIMENSIONS,
    OPTIONS,
    SIDE,
    TEXT,
    WORDS,
    entry,
    publish,
    random_policy,
    tensors_of,
)

LORA = {"rank": 2, "alpha": 6.0}


def start(directory: Path, **options) -> OpenVLAOFT:
    return load(directory, precision="fp32", options=OPTIONS | options, seed=3)


def observation(rows: int = 2, proprio: int = 4) -> Observation:
    rng = np.random.default_rng(1)
    return Observation.from_arrays(
        rng.integers(0, 256, (rows, 3, SIDE, SIDE), dtype=np.uint8),
        rng.integers(0, 256, (rows, 2, 3, SIDE, SIDE), dtype=np.uint8),
        rng.normal(size=(rows, proprio)).astype(np.float32),
        ["word3 word5", "word7"][:rows],
    )


def log_probs(policy: OpenVLAOFT) -> torch.Tensor:
    taken = {"tokens": torch.arange(12).view(2, 2, 3)}
    return policy.evaluate_actions(observation(), taken).log_probs


# --- reading and writing


def test_a_published_policy_is_read_as_it_is(original) -> None:
    mine, theirs = random_policy(), start(original)
    state = theirs.state_dict()
    for name, tensor in mine.state_dict().items():
        assert name.startswith("value_head.") or torch.equal(state[name], tensor), name
    assert theirs.unused.keys() == mine.unused.keys()
    assert all(torch.equal(tensor, mine.unused[name]) for name, tensor in theirs.unused.items())
    changed = {name for name in DIMENSIONS if getattr(mine.config, name) != getattr(theirs.config, name)}
    assert changed == set()
    assert theirs.config.resize == "resize-naive"


def test_what_baton_writes_is_the_published_layout_with_every_tensor_bitwise(original, tmp_path) -> None:
    policy = start(original)
    policy.save(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    before: dict[str, torch.Tensor] = {}
    for shard in sorted(original.glob("*.safetensors")):
        before |= load_file(shard)
    assert {name for name in found if not name.startswith("value_head.")} == before.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in before.items())
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (original, tmp_path))
    for key in theirs.keys() - {"text_config", "torch_dtype", "norm_stats"}:
        assert ours[key] == theirs[key], key
    assert theirs["text_config"].items() <= ours["text_config"].items()
    assert ours["norm_stats"]["mine"] == json.loads((tmp_path / "dataset_statistics.json").read_text())["mine"]
    assert ours["torch_dtype"] == "float32"
    again = load(tmp_path)
    assert again.config == policy.config
    assert torch.equal(log_probs(again), log_probs(policy))


def test_bf16_weights_are_written_as_bf16(original, tmp_path) -> None:
    policy = load(original, precision="bf16", options=OPTIONS, seed=3)
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}
    assert policy.action_units.low.dtype == torch.float64
    decision = policy.act(observation())
    assert decision.log_probs.dtype == decision.values.dtype == torch.float32
    policy.save(tmp_path)
    dtypes = {name: tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert {dtypes[name] for name in dtypes if name not in policy.unused} == {torch.bfloat16}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_many_tensors_are_written_in_shards_that_come_back(tmp_path) -> None:
    tensors = {f"t{index}": [torch.full((10,), float(index)), torch.ones(2)] for index in range(7)}
    weights.write(tmp_path, tensors, limit=100)
    stored = weights.find(tmp_path)
    assert len({one.file for one in stored.values()}) == 4
    back = dict(weights.read(stored, stored, "cpu"))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], torch.cat(parts)) for name, parts in tensors.items())


def test_side_files_are_the_originals_and_come_back(original, tmp_path) -> None:
    policy = start(original, proprio_dim=4, film=False)
    policy.save(tmp_path)
    side = torch.load(tmp_path / "proprio_projector--latest_checkpoint.pt", weights_only=True)
    assert side.keys() == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert not any("proprio" in name for name in load_file(tmp_path / "model.safetensors"))
    assert torch.equal(log_probs(load(tmp_path)), log_probs(policy))
    torch.save({f"module.{name}": tensor for name, tensor in side.items()}, tmp_path / "ddp.pt")
    (tmp_path / "ddp.pt").rename(tmp_path / "proprio_projector--latest_checkpoint.pt")
    assert torch.equal(log_probs(load(tmp_path)), log_probs(policy))
    os.remove(tmp_path / "proprio_projector--latest_checkpoint.pt")
    save_file(side, tmp_path / "proprio_projector--7_checkpoint.safetensors")
    assert torch.equal(log_probs(load(tmp_path)), log_probs(policy))


def test_the_towers_of_film_carry_the_originals_lora(tmp_path) -> None:
    policy = random_policy(film=True, images=2)
    whole = tensors_of(policy)
    towers = {published.to_film(name): tensor for name, tensor in whole.items() if name.startswith("vision_backbone.")}
    stem = "vision_backbone.featurizer.blocks.1.block.attn.qkv"
    down, up = torch.randn(32, 32), torch.randn(96, 32)
    adapted = {f"{stem}.base_layer.weight": towers[f"{stem}.weight"] - 0.5 * up @ down}
    adapted |= {f"{stem}.lora_A.default.weight": down, f"{stem}.lora_B.default.weight": up}
    sides = {"vision_backbone": {name: t for name, t in towers.items() if name != f"{stem}.weight"} | adapted}
    plain = {name: tensor for name, tensor in whole.items() if not published.is_film(name)}
    folder = publish(tmp_path / "film", plain, {"mine": entry()}, text=TEXT, image_size=SIDE, sides=sides)
    loaded = start(folder)
    expected = policy.vision_backbone.state_dict()
    for name, tensor in loaded.vision_backbone.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-5)
    (tmp_path / "again").mkdir()
    loaded.save(tmp_path / "again")
    assert torch.equal(log_probs(load(tmp_path / "again")), log_probs(loaded))
    words = [
        log_probs(loaded)[1],
        loaded.evaluate_actions(observation(), {"tokens": torch.arange(12).view(2, 2, 3)}).log_probs[1],
    ]
    assert torch.equal(*words)


def test_an_l1_policy_acts_and_does_nothing_else(original, tmp_path) -> None:
    regressing = random_policy(action_head="l1")
    folder = tmp_path / "l1"
    head = {
        name.removeprefix("action_head."): t for name, t in regressing.state_dict().items() if "action_head." in name
    }
    publish(
        folder, tensors_of(random_policy()), {"mine": entry()}, text=TEXT, image_size=SIDE, sides={"action_head": head}
    )
    policy = start(folder)
    decision = policy.act(observation())
    assert decision.actions.shape == (2, 2, 3)
    with pytest.raises(Exception, match="L1 head has no probabilities"):
        policy.evaluate_actions(observation(), decision.taken)


# --- refusals


def refused(directory: Path, **arguments) -> str:
    with pytest.raises(PolicyFileError) as refusal:
        load(directory, precision="fp32", **{"options": OPTIONS, "seed": 3} | arguments)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def rewrite(directory: Path, shard: str, change) -> None:
    tensors = load_file(directory / shard)
    change(tensors)
    save_file(tensors, directory / shard)


def test_missing_surplus_and_misshapen_published_tensors_are_named(original, copy) -> None:
    places = json.loads((copy / "model.safetensors.index.json").read_text())["weight_map"]
    unused, qkv = "vision_backbone.featurizer.norm.bias", "vision_backbone.featurizer.blocks.0.attn.qkv.weight"
    for name, change in (
        (unused, lambda tensors: tensors.pop(unused)),
        (qkv, lambda tensors: tensors.update({qkv: torch.zeros(95, 32)})),
        ("projector.fc1.bias", lambda tensors: tensors.update({"projector.fc9.bias": torch.zeros(1)})),
    ):
        rewrite(copy, places[name], change)
    index = {name: places[name] for name in places if name != unused} | {
        "projector.fc9.bias": places["projector.fc1.bias"]
    }
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    message = refused(copy)
    assert f"{unused} is missing" in message
    assert "projector.fc9.bias is unknown" in message
    assert f"{qkv} has shape (95, 32), expected (96, 32)" in message


def test_without_a_seed_a_policy_that_lacks_a_value_head_is_refused(original) -> None:
    assert "value_head.mlp.0.bias is missing" in refused(original, seed=None)


def test_every_shard_is_checked_before_any_tensor_is_read(copy, monkeypatch) -> None:
    monkeypatch.setattr(weights, "read", lambda *arguments: pytest.fail("a tensor was read"))
    last = sorted(copy.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-10])
    assert f"{last.name} is damaged" in refused(copy)
    last.unlink()
    assert f"{last.name} is missing" in refused(copy)


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0{", b"\xff" * 64, b"PK\x03\x04 no archive"])
def test_files_that_are_no_safetensors_are_refused(copy, content: bytes) -> None:
    first = sorted(copy.glob("*.safetensors"))[0]
    first.write_bytes(content)
    assert f"{first.name} is damaged" in refused(copy)


class Surprise:
    """Would run when unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("content", [{"fc1.weight": Surprise()}, [torch.zeros(1)], {"fc1.weight": "text"}])
def test_a_side_file_with_more_than_tensors_runs_nothing(copy, content, capsys) -> None:
    torch.save(content, copy / "proprio_projector--1_checkpoint.pt")
    assert "proprio_projector--1_checkpoint.pt" in refused(copy)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("noisy_action_projector--1_checkpoint.pt", "no diffusion head"),
        ("proprio_projector--1_checkpoint.pt", "is damaged"),
    ],
)
def test_side_files_that_cannot_be_used_are_refused(copy, file: str, message: str) -> None:
    (copy / file).write_bytes(b"nothing")
    assert message in refused(copy)


def test_two_side_files_of_one_component_are_refused(copy) -> None:
    for step in (1, 2):
        torch.save({}, copy / f"action_head--{step}_checkpoint.pt")
    assert "2 files of action_head" in refused(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timm_model_ids": ["vit_huge", "vit_huge"]}, "timm_model_ids has 'vit_huge'"),
        ({"text_config": {}}, "vocab_size"),
        ({"image_resize_strategy": "stretch"}, "resize-naive"),
        ({"norm_stats": {}}, "lacks statistics of any data set"),
        ({"norm_stats": {"a": {}, "b": {}}}, "name one of a, b"),
    ],
)
def test_a_config_that_baton_does_not_know_is_refused(copy, change, message: str) -> None:
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | change))
    assert message in refused(copy)


# --- LoRA


def trained(policy: OpenVLAOFT) -> OpenVLAOFT:
    """The policy after what training changes: additions and heads."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    return policy


def test_lora_starts_as_the_policy_itself_and_trains_only_what_it_adds(original) -> None:
    plain, adapted = start(original), start(original, lora=LORA)
    assert torch.equal(log_probs(adapted), log_probs(plain))
    names = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name or name.startswith("value_head.") for name in names)
    stems = {name.split(".lora_")[0] for name in names if ".lora_" in name}
    for stem in ("vision_backbone.featurizer.patch_embed.proj", "vision_backbone.fused_featurizer.blocks.1.attn.qkv",
                 "projector.fc3", "language_model.model.layers.0.mlp.up_proj", "language_model.lm_head"):  # fmt: skip
        assert stem in stems
    log_probs(adapted).sum().backward()
    assert {n for n, p in adapted.named_parameters() if p.grad is not None} == {n for n in names if ".lora_" in n}
    assert adapted.language_model.lm_head.lora_B.weight.grad[: WORDS - 256].abs().sum() == 0
    again = start(original, lora=LORA)
    assert torch.equal(*(p.projector.fc1.lora_A.weight for p in (adapted, again)))


def test_a_policy_of_lora_comes_back_bitwise_and_its_base_is_written_once(original, tmp_path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    policy = trained(start(original, lora=LORA))
    for folder in folders:
        folder.mkdir()
        policy.save(folder)
        back = load(folder)
        assert back.config == policy.config
        assert torch.equal(log_probs(back), log_probs(policy))
        assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in policy.parameters()]
        policy = trained(back)
    first, second = (folder / "base" / "model.safetensors" for folder in folders)
    assert first.stat().st_ino == second.stat().st_ino
    shutil.rmtree(folders[0])
    load(folders[1])


def test_an_engine_may_leave_out_what_lora_has_frozen(original, tmp_path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    start(original, lora=LORA).save(tmp_path / "first")
    policy = trained(load(tmp_path / "first"))
    policy.save(tmp_path / "second", {n: p.detach() for n, p in policy.named_parameters() if p.requires_grad})
    assert torch.equal(log_probs(load(tmp_path / "second")), log_probs(policy))


@pytest.mark.parametrize("targets", [["all-linear"], ["qkv", "proj", "lm_head"]])
def test_merging_changes_no_number_and_gives_the_published_layout(original, tmp_path, targets) -> None:
    policy = trained(start(original, lora=LORA | {"targets": targets}))
    (tmp_path / "lora").mkdir()
    policy.save(tmp_path / "lora")
    assert merge.main([str(tmp_path / "lora"), str(tmp_path / "merged")]) == 0
    merged = load(tmp_path / "merged")
    torch.testing.assert_close(log_probs(merged), log_probs(policy), atol=1e-4, rtol=1e-4)
    assert (log_probs(merged) - log_probs(start(original))).abs().max() > 1e-3
    before = set().union(*(load_file(shard) for shard in original.glob("*.safetensors")))
    after = load_file(tmp_path / "merged" / "model.safetensors")
    assert {name for name in after if not name.startswith("value_head.")} == before
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


def test_an_adapter_of_peft_is_taken_over(original, tmp_path) -> None:
    policy = trained(start(original, lora=LORA))
    (tmp_path / "mine").mkdir()
    policy.save(tmp_path / "mine")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    record = json.loads((tmp_path / "mine" / "adapter_config.json").read_text())
    (theirs / "adapter_config.json").write_text(json.dumps(record | {"base_model_name_or_path": "openvla/openvla-7b"}))
    additions = load_file(tmp_path / "mine" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.") and name.endswith(".weight") for name in additions)
    idle = "base_model.model.vision_backbone.fused_featurizer.attn_pool.q.lora_"
    additions |= {f"{idle}A.weight": torch.ones(2, 48), f"{idle}B.weight": torch.zeros(48, 2)}
    save_file(additions, theirs / "adapter_model.safetensors")
    loaded = start(original, adapter=str(theirs))
    assert (loaded.config.lora.rank, loaded.config.lora.alpha) == (2, 6.0)
    assert torch.equal(log_probs(loaded), log_probs(policy))
    for change, message in (
        ({"use_dora": True}, "use_dora"),
        ({"r": "two"}, "r"),
        ({"rank_pattern": {"q": 1}}, "rank"),
    ):
        (theirs / "adapter_config.json").write_text(json.dumps(record | change))
        assert message in refused(original, options=OPTIONS | {"adapter": str(theirs)})


def test_dropout_drops_in_training_alone(original) -> None:
    policy = trained(start(original, lora=LORA | {"dropout": 0.5}))
    with torch.no_grad():
        assert not torch.equal(log_probs(policy.train()), log_probs(policy.train()))
        assert torch.equal(log_probs(policy.eval()), log_probs(policy.eval()))


def test_a_target_that_names_no_module_is_refused(original) -> None:
    with pytest.raises(Exception, match=r"no module is called 'kqv'.*qkv"):
        start(original, lora=LORA | {"targets": ["kqv"]})


def test_value_heads_start_as_configured(original) -> None:
    for init, deviation in (("zero", 0.0), ("normal", 0.02)):
        policy = start(original, value_init=init)
        drawn = initial.draw(policy, 0, {"value_head.mlp.4.weight", "value_head.mlp.0.bias"})
        assert drawn["value_head.mlp.4.weight"].std().item() == pytest.approx(deviation, rel=0.3)
        assert drawn["value_head.mlp.0.bias"].abs().max() == 0
        values = policy.act(observation()).values
        assert (values.abs().max() > 0) == (init == "normal")
