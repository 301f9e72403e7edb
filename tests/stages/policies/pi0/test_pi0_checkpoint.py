"""Saving and loading, openpi's files, and what is refused of them."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.policies.interface import PolicyFileError, load
from stages.policies.pi0 import published
from stages.policies.statistics import Statistics
from tests.stages.policies.pi0.layout_for_pi0 import ALIAS, EXPERT_HEAD, publish
from tests.stages.policies.pi0.policies_for_pi0 import DRAWER, PLATE, noise_of, observation, policy, statistics

OPTIONS = {"vision": {"heads": 2}, "chunk": 3, "images": 2}
NORMS = {
    "state": {"mean": [0.1] * 5, "std": [0.5] * 5, "q01": [-1.0] * 5, "q99": [1.5] * 5},
    "actions": {"mean": [0.0, 0.1, 0.2, 0.3], "std": [0.4] * 4, "q01": [-0.9] * 4, "q99": [0.8] * 4},
}


def same_decisions(one, other) -> bool:
    seen = observation(PLATE, DRAWER)
    noise = noise_of(one, [1, 2])
    first, second = one.act(seen, noise), other.act(seen, noise)
    return torch.equal(first.actions, second.actions) and torch.equal(first.log_probs, second.log_probs)


def openpi(folder, version="pi0", **settings):
    """A published directory, and the weights in it; SigLIP, both streams, and no value head."""
    model = policy(version=version, rope_theta=10000.0)
    tensors = {name: t for name, t in model.state_dict().items() if not name.startswith("value_head.")}
    tensors[EXPERT_HEAD] = torch.randn(960, 16)
    return publish(folder, tensors, NORMS, words=960, **settings), tensors


# --- Baton's own


@pytest.mark.parametrize("options", [{}, {"version": "pi05", "sampler": "flow_noise", "precision": "bf16"}], ids=str)
def test_saving_and_loading_is_bitwise(tmp_path, options) -> None:
    model = policy(**options)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    model.save(tmp_path / "a")
    again = load(tmp_path / "a")
    again.save(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "config.json", "dataset_statistics.json", "model.safetensors", "norm_stats.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    assert again.config == model.config
    assert [p.dtype for p in again.parameters()] == [p.dtype for p in model.parameters()]
    assert same_decisions(model, again)


def test_the_state_of_an_engine_is_written_instead(tmp_path) -> None:
    model, other = policy(0), policy(1)
    model.save(tmp_path, other.state_dict())
    assert same_decisions(load(tmp_path), other)
    part = {name: t for name, t in other.state_dict().items() if name != "action_in_proj.bias"}
    with pytest.raises(
        PolicyFileError, match=r"^the state to save does not fit its config: action_in_proj.bias is missing"
    ):
        model.save(tmp_path, part)


def test_a_warm_start_can_change_how_it_draws(tmp_path) -> None:
    policy().save(tmp_path)
    noisy = load(tmp_path, options={"sampler": "flow_noise", "num_steps": 2, "joint_log_prob": True}, seed=0)
    assert noisy.chain_shape == (3, 4, 6)
    again = load(tmp_path, options={"sampler": "flow_noise"}, seed=0)
    assert all(torch.equal(p, again.state_dict()[name]) for name, p in noisy.state_dict().items())
    (tmp_path / "noisy").mkdir()
    noisy.save(tmp_path / "noisy")
    back = load(tmp_path / "noisy", options={"sampler": "flow_sde"})
    assert set(back.unused) == {EXPERT_HEAD, *(n for n in noisy.state_dict() if n.startswith("noise_head."))}


@pytest.mark.parametrize("version", ["pi0", "pi05"])
def test_a_fresh_policy_has_every_tensor_that_openpi_loads(tmp_path, version) -> None:
    model = policy(version=version)
    model.save(tmp_path)
    own = {name for name in model.state_dict() if not name.startswith("value_head.")}
    written = load_file(tmp_path / "model.safetensors")
    assert {name for name in written if not name.startswith("value_head.")} == {*own, EXPERT_HEAD}
    assert written[EXPERT_HEAD].shape == (model.config.vocab_size, model.config.expert.width)


def test_statistics_are_written_for_openpi_too(tmp_path) -> None:
    policy().save(tmp_path)
    norms = json.loads((tmp_path / "norm_stats.json").read_text())["norm_stats"]
    measured = statistics()
    assert norms["state"]["mean"] == pytest.approx(measured.proprio.mean)
    assert norms["actions"]["std"][:3] == pytest.approx(measured.action.std[:3])
    assert [norms["actions"][name][3] for name in ("mean", "std", "q01", "q99")] == [0.0, 1.0, -1.0, 1.0]


# --- openpi's


@pytest.mark.parametrize("version", ["pi0", "pi05"])
def test_a_checkpoint_of_openpis(tmp_path, version) -> None:
    folder, tensors = openpi(tmp_path / "published", version, horizon=4)
    model = load(folder, precision="fp32", options=OPTIONS, seed=0, name="pi0")
    config = model.config
    assert (config.version, config.horizon, config.action_width, config.chunk) == (version, 4, 6, 3)
    assert (config.proprio_dim, config.action_dim, config.vocab_size, config.image_size) == (5, 4, 960, 32)
    assert config.prompt_length == {"pi0": 48, "pi05": 200}[version]
    assert config.quantiles == (version == "pi05")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items() if name != EXPERT_HEAD)
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    with safe_open(tmp_path / "saved" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == ALIAS
        assert set(file.keys()) - set(tensors) == {n for n in state if n.startswith("value_head.")}
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    again = load(tmp_path / "saved")
    assert again.config == config
    assert same_decisions(model, again)
    units = model.action_units
    expected = (
        (torch.tensor([-0.05 + 5e-7]), 0.85 + 5e-7)
        if version == "pi05"
        else (torch.tensor([0.0, 0.1, 0.2, 0.3]), 0.4 + 1e-6)
    )
    torch.testing.assert_close(units.centre, expected[0].double().expand(4), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(units.spread, torch.full((4,), expected[1], dtype=torch.float64))


def test_weights_are_held_as_openpi_holds_them(tmp_path) -> None:
    folder, _ = openpi(tmp_path / "published", horizon=4)
    model = load(folder, options=OPTIONS, seed=0, name="pi0")
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    expected = re.compile(r"patch_embedding|position_embedding|input_layernorm|post_attention_layernorm|model\.norm\.")
    of_streams = {name for name in kept if name.startswith("paligemma_with_expert.")}
    assert of_streams == {
        n for n, _ in model.named_parameters() if n.startswith("paligemma_w") and expected.search(n)
    } | {"paligemma_with_expert.paligemma.model.language_model.norm.weight"}
    assert kept - of_streams == {n for n, _ in model.named_parameters() if not n.startswith("paligemma_with_expert.")}


@pytest.mark.parametrize("place", [".", "robot", "assets/robot", "assets/team/robot"])
def test_norm_stats_lie_where_openpi_puts_them(tmp_path, place) -> None:
    folder, _ = openpi(tmp_path / "published", place=place, horizon=4)
    model = load(folder, options=OPTIONS, seed=0, name="pi0")
    assert model.statistics.action.mean.tolist() == NORMS["actions"]["mean"]


def test_statistics_of_demonstrations_replace_a_checkpoints(tmp_path) -> None:
    folder, _ = openpi(tmp_path / "published", horizon=4)
    shutil.rmtree(folder / "assets")
    model = load(folder, options=OPTIONS, statistics=statistics(), seed=0, name="pi0")
    assert model.statistics.action.mean == pytest.approx(statistics().action.mean)


def test_the_base_has_the_published_size() -> None:
    from stages.policies.pi0.config import Pi0Config
    from stages.policies.pi0.network import Network

    for version, small in (("pi0", 1024 * 32 + 1024 + 2048 * 1024 + 1024), ("pi05", 1024 * 1024 + 1024)):
        with torch.device("meta"):
            network = Network(Pi0Config(version=version))
        shapes = {name: tuple(p.shape) for name, p in network.state_dict().items()}
        block = 4 * (1152 * 1152 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
        tower = 27 * block + 1152 * 588 + 1152 + 256 * 1152 + 2 * 1152
        vlm = 18 * (2048 * 2048 * 2 + 2048 * 256 * 2 + 3 * 2048 * 16384 + 2 * 2048) + 2048
        norm = 3 * 1024 * 1024 + 3 * 1024 if version == "pi05" else 1024
        expert = 18 * (2 * 1024 * 2048 + 2 * 1024 * 256 + 3 * 1024 * 4096 + 2 * norm) + norm
        ends = 2 * 1024 * 32 + 1024 + 32 + small + 1024 * 1024 + 1024
        total = tower + 1152 * 2048 + 2048 + vlm + 257152 * 2048 + expert + ends
        own = sum(np.prod(shape) for name, shape in shapes.items() if not name.startswith("value_head."))
        assert own == total
        assert published.version_of(shapes, "here") == version
        config = published.config_of(shapes, {"action_horizon": 10}, {"chunk": 10}, "here")
        assert config == Pi0Config(version=version, horizon=10, chunk=10, prompt_length=config.prompt_length)


# --- refusals


def change(folder, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", ALIAS)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda t: t.pop("action_out_proj.bias"), "action_out_proj.bias is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is unknown"),
        (
            lambda t: t.update({"action_out_proj.bias": torch.zeros(7)}),
            "action_out_proj.bias has shape (7,), expected (6,)",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(tmp_path, edit, fault) -> None:
    folder, _ = openpi(tmp_path / "published", horizon=4)
    change(folder, edit)
    expected = f"{folder} does not fit its config: {fault}: take the policy from its artifact again"
    with pytest.raises(PolicyFileError, match=f"^{re.escape(expected)}$"):
        load(folder, options=OPTIONS, seed=0, name="pi0")


def refusal(folder, **arguments) -> str:
    arguments = {"options": OPTIONS, "seed": 0} | arguments
    with pytest.raises(PolicyFileError) as caught:
        load(folder, name="pi0", **arguments)
    return str(caught.value)


def test_what_is_missing_is_named(tmp_path) -> None:
    folder, _ = openpi(tmp_path / "published", horizon=4)
    norms = folder / "assets" / "robot" / "norm_stats.json"
    whole = norms.read_text()
    assert refusal(folder, seed=None).startswith(
        f"{folder} does not fit its config: value_head.mlp.0.bias is missing; "
    )
    assert refusal(folder, options=OPTIONS | {"version": "pi05"}) == (
        f"{folder}: version: 'pi05' does not fit; the checkpoint is of pi0"
    )
    assert refusal(folder, options=OPTIONS | {"chunk": 8}) == (
        f"{folder}: horizon: 4 does not fit; it must be 0, or chunk=8 or more"
    )
    assert refusal(folder, options=OPTIONS | {"action_dim": 14}) == (
        f"{norms}: actions has 4 numbers, action_dim is 14: take the statistics of this robot"
    )
    assert refusal(folder, statistics="other") == f"{folder} has no norm_stats.json of other: name one of robot"
    norms.write_text("{")
    assert refusal(folder).startswith(f"{norms} is damaged (JSONDecodeError(")
    norms.write_text(json.dumps({"norm_stats": {"state": NORMS["state"]}}))
    assert refusal(folder) == f"{norms} is damaged (KeyError('actions')): take the policy from its artifact again"
    norms.unlink()
    assert refusal(folder) == (
        f"{folder} has no norm_stats.json, neither there nor under an asset's folder or assets/: copy it from the "
        "checkpoint's assets, or set policy.statistics=demonstrations"
    )
    for asset in ("a", "b"):
        (folder / "assets" / asset).mkdir()
        (folder / "assets" / asset / "norm_stats.json").write_text(whole)
    assert refusal(folder) == f"{folder} has norm_stats.json of several data sets: name one of a, b"
    assert load(folder, options=OPTIONS, statistics="b", seed=0, name="pi0").statistics.dataset == "b"
    (folder / "tokenizer.json").unlink()
    assert refusal(folder, statistics="b") == (
        f"{folder / 'tokenizer.json'} is missing: copy PaliGemma's there (of google/paligemma-3b-pt-224), or the "
        "policy's own"
    )
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == f"{folder / 'model.safetensors'} is missing: take the policy from its artifact again"


def test_quantiles_that_are_not_there(tmp_path) -> None:
    folder, tensors = openpi(tmp_path / "published", "pi05", horizon=4)
    norms = {name: {key: entry[key] for key in ("mean", "std")} for name, entry in NORMS.items()}
    (folder / "assets" / "robot" / "norm_stats.json").write_text(json.dumps({"norm_stats": norms}))
    assert refusal(folder) == (
        "the statistics lack q01 and q99: set policy.statistics=demonstrations, or options.normalise"
    )
    model = load(folder, options=OPTIONS | {"normalise": "zscore"}, seed=0, name="pi0")
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    assert Statistics.load(tmp_path / "saved").action.std.tolist() == [0.4] * 4


def test_a_policy_of_another_family(tmp_path) -> None:
    folder, _ = openpi(tmp_path / "published", horizon=4)
    change(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("action_")])
    assert refusal(folder) == (
        f"{folder} holds neither pi0 nor pi0.5: take a PyTorch checkpoint of openpi's (its "
        "convert_jax_model_to_pytorch.py makes one), or set policy.name to what it is"
    )
