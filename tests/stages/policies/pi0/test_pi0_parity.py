"""Every case of the originals' own numbers, computed by Baton's policy from openpi's own files."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.flow_config import Flow
from stages.policies.pi0 import checkpoint, denoising, flow
from stages.policies.pi0.config import Pi0Config, StreamConfig
from stages.policies.pi0.denoising import Draws, Sampled
from stages.policies.pi0.gemma import visible
from stages.policies.pi0.heads import ValueHead
from stages.policies.pi0.images import resize_with_pad, scaled
from stages.policies.pi0.network import Inputs, pool
from stages.policies.pi0.policy import Pi0
from stages.policies.pi0.prompt import Prompts
from tests.stages.policies.pi0.layout_for_pi0 import ALIAS, EXPERT_HEAD, publish

pytestmark = pytest.mark.parity

FOLDER = Path(os.environ.get("BATON_FIXTURES", Path(__file__).parents[4].parent / "shared" / "fixtures"))
FOUND = (FOLDER / "pi0_tiny.json").exists()
if not FOUND:
    pytestmark = [pytest.mark.parity, pytest.mark.skip(reason=f"no pi0_tiny.json in {FOLDER}")]

VERSIONS, RTOL, K, A = ("pi0", "pi05"), 1e-4, 3, 4
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
ABOUT = json.loads((FOLDER / "pi0_tiny.json").read_text()) if FOUND else {"rl": {}}
JOINT = [case for case, about in ABOUT["rl"].items() if about.get("joint_logprob")]
SINGLE = [case for case in ABOUT["rl"] if case not in JOINT]
STATISTICS = {
    name: {"mean": [0.0] * 6, "std": [1.0] * 6, "q01": [-1.0] * 6, "q99": [1.0] * 6} for name in ("state", "actions")
}
NAMES = {
    "chunk_critic_input": "value_of_chunk",
    "safe_get_logprob": "squared_log_prob",
    "joint_logprob": "joint_log_prob",
}


class Fixture:
    """The arrays, and policies made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(FOLDER / "pi0_tiny.npz") as arrays:
            self.arrays = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.used: set[str] = set()

    def __call__(self, name: str) -> Tensor:
        self.used.add(name)
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self(name) for name in self.arrays if name.startswith(prefix)}

    def policy(self, version: str, **options) -> Pi0:
        """The originals' weights, published and loaded."""
        fixed = {"vision": {"heads": 3}, "chunk": K, "action_dim": A, "attention": "eager", "horizon": 5}
        return checkpoint.load(self._publish(version), precision="fp32", options=fixed | options, seed=0)

    def case(self, name: str, **options) -> Pi0:
        """The policy of one of RLinf's cases."""
        about = dict(ABOUT["rl"][name])
        about = {NAMES.get(key, key): value for key, value in about.items() if key != "config_name"}
        about["sampler"] = about.pop("noise_method")
        return self.policy(VERSIONS[about.pop("pi05")], **about | options)

    @functools.cache  # noqa: B019  # lives as long as the module's tests
    def _publish(self, version: str) -> Path:
        tensors = self.under(f"{version}.w.") | self.under("rl.w.")
        return publish(self.folder / version, tensors, STATISTICS)

    def inputs(self) -> Inputs:
        pixels = torch.stack([self(f"obs.image.{camera}") for camera in CAMERAS], dim=1)
        present = torch.stack([self(f"obs.mask.{camera}") for camera in CAMERAS], dim=1)
        return Inputs(pixels, present, Prompts(self("obs.tokens"), self("obs.token_mask")), self("obs.state"))


@pytest.fixture(scope="module")
def fixture(tmp_path_factory):
    return Fixture(tmp_path_factory.mktemp("published"))


def close(actual: Tensor, expected: Tensor, rtol: float = RTOL, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, check_dtype=False)


# --- the network


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_what_both_streams_are_given(fixture, version: str) -> None:
    policy = fixture.policy(version)
    embedded, valid = policy.embed_prefix(fixture.inputs())
    close(embedded, fixture(f"{version}.prefix_embs"))
    assert torch.equal(valid, fixture(f"{version}.prefix_pad"))
    suffix, condition = policy.embed_suffix(fixture("obs.state"), fixture("noise"), fixture("time"))
    close(suffix, fixture(f"{version}.suffix_embs"))
    if version == "pi05":
        close(condition, fixture("pi05.adarms_cond"))
    starts = fixture(f"{version}.suffix_att").long()
    assert torch.equal(policy.blocks(torch.arange(suffix.shape[1])).expand_as(starts), starts.cumsum(dim=1) - 1)
    blocks = torch.cat([torch.zeros(embedded.shape[1], dtype=torch.int64), starts[0].cumsum(dim=0)])
    everything = torch.cat([valid, torch.ones_like(starts, dtype=torch.bool)], dim=1)
    assert torch.equal(visible(everything, blocks), fixture(f"{version}.att2d"))


def test_time_embedding(fixture) -> None:
    close(flow.time_embedding(fixture("sincos.time"), 16), fixture("sincos.emb16"))


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_loss(fixture, version: str) -> None:
    policy, inputs = fixture.policy(version), fixture.inputs()
    noisy, velocity = flow.noisy(fixture("actions"), fixture("noise"), fixture("time"))
    states = policy.suffix(policy.prefix(inputs), inputs.state, noisy, fixture("time"))
    close((policy.action_out_proj(states) - velocity) ** 2, fixture(f"{version}.loss"))


@pytest.mark.parametrize("steps", [4, 10])
@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_sampling(fixture, version: str, steps: int) -> None:
    policy = fixture.policy(version, num_steps=steps, sampler="flow_ode")
    start = fixture("noise")
    draws = Draws(start, torch.zeros_like(start)[:, None], torch.zeros(3, dtype=torch.int64), torch.zeros(3))
    close(policy.sample(fixture.inputs(), draws, True).actions, fixture(f"{version}.sample{steps}"))


def test_the_files_are_openpis(fixture, tmp_path) -> None:
    from safetensors import safe_open

    assert set(ABOUT["keys_pi0"]) == set(fixture.under("pi0.w."))
    assert set(ABOUT["keys_pi05_only"]) == set(fixture.under("pi05.w.")) - set(fixture.under("pi0.w."))
    for version in VERSIONS:
        published = fixture.under(f"{version}.w.")
        policy = fixture.policy(version)
        assert set(policy.unused) == {name for name in fixture.under("rl.w.") if "noise" in name} | {EXPERT_HEAD}
        (tmp_path / version).mkdir()
        policy.save(tmp_path / version)
        with safe_open(tmp_path / version / "model.safetensors", framework="pt") as file:
            assert file.metadata() == ALIAS == ABOUT["safetensors_save_model"]["metadata"]
            assert set(published) <= set(file.keys())
            assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in published.items())


# --- RLinf's forms


def rerun(fixture: Fixture, case: str, policy: Pi0) -> tuple[Sampled, Tensor, Tensor]:
    """The rollout of a case again, its normals found by comparing what a step makes of 0 and of 1; chain and steps."""
    inputs, chain, inds = fixture.inputs(), fixture(f"rl.{case}.chains"), fixture(f"rl.{case}.denoise_inds")
    level = torch.full((3,), policy.level(1.0))
    step = torch.zeros_like(inds[:, 0]) if case in JOINT else inds[:, 0]
    normals = torch.zeros(3, policy.config.stored - 1, 5, 6)

    def run(normals: Tensor) -> Sampled:
        return policy.sample(inputs, Draws(chain[:, 0], normals, step, level), True)

    for number in range(normals.shape[1]):
        normals[:, number] = 1.0
        ones = run(normals).chain[:, number + 1]
        normals[:, number] = 0.0
        mean = run(normals).chain[:, number + 1]
        true = chain[torch.arange(3), (number if case in JOINT else step) + 1]
        normals[:, number] = (true - mean) / (ones - mean)
    return run(normals), chain, step


@pytest.mark.parametrize("case", [*SINGLE, *JOINT])
@torch.no_grad()
def test_rollouts(fixture, case: str) -> None:
    policy = fixture.case(case)
    sampled, chain, step = rerun(fixture, case, policy)
    kept = chain if case in JOINT else torch.stack([chain[range(3), step], chain[range(3), step + 1]], dim=1)
    close(sampled.chain, kept)
    close(sampled.actions, fixture(f"rl.{case}.actions"))
    close(sampled.actions, chain[:, -1])
    close(sampled.log_probs[:, :K, :A], fixture(f"rl.{case}.prev_logprobs"))
    close(sampled.values, fixture(f"rl.{case}.prev_values")[:, 0])


@pytest.mark.parametrize("case", [*SINGLE, *JOINT])
@torch.no_grad()
def test_evaluation_is_the_ode(fixture, case: str) -> None:
    policy = fixture.case(case)
    start = fixture(f"rl.{case}.chains")[:, 0]
    normals = torch.ones(3, policy.config.stored - 1, 5, 6)
    draws = Draws(start, normals, torch.zeros(3, dtype=torch.int64), torch.zeros(3))
    sampled = policy.sample(fixture.inputs(), draws, True)
    close(sampled.actions, fixture(f"rl.{case}.eval_actions"))
    close(sampled.log_probs[:, :K, :A], fixture(f"rl.{case}.eval_prev_logprobs"))


@pytest.mark.parametrize("case", [*SINGLE, *JOINT])
@torch.no_grad()
def test_training(fixture, case: str) -> None:
    policy, inputs = fixture.case(case), fixture.inputs()
    sampled, chain, step = rerun(fixture, case, policy)
    kept = chain if case in JOINT else torch.stack([chain[range(3), step], chain[range(3), step + 1]], dim=1)
    judged = denoising.judge(policy, inputs, kept, step, policy.level(1.0))
    close(judged.log_probs[:, :K, :A], fixture(f"rl.{case}.logprobs"))
    close(judged.values, fixture(f"rl.{case}.values"))
    assert (judged.log_probs - sampled.log_probs).abs().max() < 1e-5
    if policy.config.sampler == "flow_noise":
        close(judged.entropy[:, :K, :A].mean(dim=(1, 2)), fixture(f"rl.{case}.entropy")[:, 0])
    else:
        assert judged.entropy is None
        assert not fixture(f"rl.{case}.entropy").any()


@pytest.mark.parametrize("case", SINGLE)
@torch.no_grad()
def test_every_number_of_the_trained_step(fixture, case: str) -> None:
    policy = fixture.case(case)
    sampled, _, step = rerun(fixture, case, policy)
    judged = denoising.judge(policy, fixture.inputs(), sampled.chain, step, policy.level(1.0))
    close(judged.log_probs, fixture(f"rl.{case}.all_logprobs")[:, 0])
    close(judged.values, fixture(f"rl.{case}.all_values")[:, 0])


@pytest.mark.parametrize("case", JOINT)
@torch.no_grad()
def test_every_term_of_the_joint_form(fixture, case: str) -> None:
    policy, chain = fixture.case(case, joint_log_prob=False), fixture(f"rl.{case}.chains")
    expected = fixture(f"rl.{case}.all_logprobs")
    standard = flow.Step(torch.zeros(()), torch.ones(()))
    close(flow.log_density(chain[:, 0], standard), expected[:, 0])
    entropies = fixture(f"rl.{case}.all_entropy") if policy.config.sampler == "flow_noise" else None
    for number in range(policy.config.num_steps):
        step = torch.full((3,), number)
        judged = denoising.judge(policy, fixture.inputs(), chain[:, number : number + 2], step, policy.level(1.0))
        close(judged.log_probs, expected[:, number + 1])
        close(judged.values, fixture(f"rl.{case}.all_values")[:, number])
        if entropies is not None:
            close(judged.entropy, entropies[:, number + 1])
    if entropies is not None:
        close(flow.entropy(standard).expand_as(entropies[:, 0]), entropies[:, 0])


@pytest.mark.parametrize("case", [*SINGLE, *JOINT])
def test_annealing(fixture, case: str) -> None:
    flow_config = Flow(noise_level=0.7, noise_level_final=0.3, noise_anneal_epochs=400)
    assert fixture(f"rl.{case}.noise_level_anneal100").item() == pytest.approx(0.7 * flow_config.annealed(101))


# --- values after the vlm, images


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_values_of_the_vlm_as_the_original_with_padding(fixture, version: str) -> None:
    config = Pi0Config(value_position="vlm", vlm=StreamConfig(width=32, mlp=48), value_widths=(24, 16, 8))
    head, hidden = ValueHead(config), fixture(f"vlmvalue.{version}_x.prefix_out")
    head.load_state_dict(fixture.under("vlmvalue.w."))
    for mode in ("mean_token", "last_token", "first_token"):
        seen = hidden if mode == "last_token" else hidden[:, [*range(512), *range(768, hidden.shape[1])]]
        close(head(pool(seen, None, mode, padding=True)), fixture(f"vlmvalue.{version}_x.{mode}"))


def test_images(fixture) -> None:
    images = fixture("resize.u8_in").permute(0, 3, 1, 2)
    close(resize_with_pad(scaled(images), 28).permute(0, 2, 3, 1), fixture("resize.f32_out"))


def test_every_array_of_the_fixture_was_compared(fixture) -> None:
    assert sorted(fixture.arrays.keys() - fixture.used) == []
