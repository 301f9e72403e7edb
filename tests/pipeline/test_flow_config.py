"""What a run may say of pi0, and what it is told where that cannot work, before anything is submitted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.flow_config import Flow
from pipeline.policy_config import OPTIONS, PRESETS, Policy

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def recipe(tmp_path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text("policy: {name: pi0}\n")
    return file


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["policy.preset=7b"], "preset=7b is not one of pi0: set tiny or small or base"),
        (["policy.options.imges=2"], "options.imges is no option of pi0: did you mean images?"),
        (["policy.options.num_steps=2"], "options.num_steps has a field of its own: set policy.flow.num_steps"),
        (["policy.options.chunk=2"], "options.chunk has a field of its own: set policy.chunk"),
        (
            ["policy.flow.horizon=7"],
            "flow.horizon=7 is less than policy.chunk=8, the actions that a decision carries out: set flow.horizon to "
            "8 or more",
        ),
        (["policy.lora.rank=4"], "lora is not made for pi0: leave it out, or set policy.flow.train_expert_only=true"),
        (
            ["policy.name=openvla_oft", "policy.flow.num_steps=5"],
            "flow.num_steps is of flow policies: leave it out, or set policy.name=pi0",
        ),
        (
            ["policy.name=openvla_oft", "policy.options.top=5"],
            "options.top is no option of openvla_oft: did you mean top_k?",
        ),
        (
            ["policy.flow.noise_level_final=0.3"],
            "flow.noise_level_final=0.3 and flow.noise_anneal_epochs=0 belong together: set both or neither",
        ),
        (
            ["policy.flow.noise_anneal_epochs=3"],
            "flow.noise_level_final=null and flow.noise_anneal_epochs=3 belong together: set both or neither",
        ),
        (
            [
                "policy.flow.sampler=flow_noise",
                "policy.flow.noise_level_final=0.3",
                "policy.flow.noise_anneal_epochs=3",
            ],
            "flow.noise_level_final anneals a level, and flow.sampler=flow_noise learns it: leave it out",
        ),
        (
            ["policy.flow.ignore_last=true", "policy.flow.joint_log_prob=true"],
            "flow.ignore_last=true contradicts flow.joint_log_prob=true, where all steps draw: set one",
        ),
        (
            ["policy.flow.ignore_last=true", "policy.flow.num_steps=1"],
            "flow.ignore_last=true leaves nothing of flow.num_steps=1 to draw: set it to false",
        ),
        (
            ["policy.flow.averaged_rollout_values=true", "policy.flow.value_position=vlm"],
            "flow.averaged_rollout_values=true averages the expert's values: set flow.value_position=expert",
        ),
        (
            ["policy.flow.padding_in_mean=true"],
            "flow.padding_in_mean=true is about the mean of the vision-language model's states: set "
            "flow.value_position=vlm and flow.value_vlm_mode=mean_token",
        ),
        (
            ["rollout.temperature=0.7"],
            "rollout.temperature=0.7 is of policies over tokens: leave it out, and set policy.flow.noise_level=0.5 to "
            "how widely pi0 is to draw",
        ),
        (
            ["algorithm.entropy_coef=0.01"],
            "algorithm.entropy_coef=0.01 rewards an entropy, and that of policy.flow.sampler=flow_sde is no choice of "
            "the policy: set it to 0, or policy.flow.sampler=flow_noise",
        ),
        (
            ["policy.action_dim=23"],
            "policy.action_dim=23, but household takes 14 numbers an action: set policy.action_dim=14",
        ),
    ],
)
def test_what_cannot_work_is_one_line_with_its_remedy(recipe, overrides, says):
    with pytest.raises(UserError) as refused:
        compose(recipe, overrides)
    (line,) = str(refused.value).splitlines()
    places = (f"override {overrides[-1]}", f"override {overrides[0]}", f"{recipe} with {' '.join(overrides)}")
    assert line in [f"{place}: {says}" for place in places]


def test_a_sampler_that_is_not_there_names_those_that_are(recipe):
    with pytest.raises(UserError, match=r"policy\.flow\.sampler = 'flow_ode': must be 'flow_sde', 'flow_noise' or"):
        compose(recipe, ["policy.flow.sampler=flow_ode"])


def test_the_names_of_options_are_those_of_the_policies():
    from stages.policies.openvla_oft.config import PRESETS as OPENVLA_OFT
    from stages.policies.openvla_oft.config import OpenVLAOFTConfig
    from stages.policies.pi0.config import PRESETS as PI0
    from stages.policies.pi0.config import Pi0Config

    flow = set(Flow().options()) | {"horizon"}
    for name, config, presets in (("openvla_oft", OpenVLAOFTConfig, OPENVLA_OFT), ("pi0", Pi0Config, PI0)):
        fields = {field.name for field in dataclasses.fields(config)} - set(Policy.model_fields)
        assert set(OPTIONS[name]) == (fields - flow if name == "pi0" else fields)
        assert set(PRESETS[name]) == set(presets)
        assert name != "pi0" or flow <= fields


def test_a_noise_level_falls_in_equal_steps_and_then_stays():
    flow = Flow(noise_level=0.7, noise_level_final=0.3, noise_anneal_epochs=4)
    levels = [0.7 * flow.annealed(epoch) for epoch in range(1, 8)]
    assert levels == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3, 0.3, 0.3])
    assert [Flow().annealed(epoch) for epoch in (1, 50)] == [1.0, 1.0]


@pytest.mark.parametrize("recipe_name", ["household_ppo_pi0", "omnigibson_ppo_pi0"])
def test_the_recipes_validate_and_are_of_pi0(recipe_name):
    config = compose(CONFIGS / f"{recipe_name}.yaml")
    assert config.policy.name == "pi0"
    assert Config.model_validate(config.model_dump()) == config
