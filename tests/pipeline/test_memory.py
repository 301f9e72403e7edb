"""Sizes and memory estimated from a config, beside the real policy's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.dry_run import dry_run
from pipeline.memory import Memory, estimate, measure
from pipeline.resolve import resolve
from pipeline.sizes import PRESETS, parameters

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("omnigibson_*_*.yaml"))
LORA: dict[str, Any] = {"lora": {"rank": 32}}
ALL = {"rank": 4, "targets": ["all-linear"]}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("tiny", {}),
        ("tiny", {"lora": ALL, "proprio_dim": 0}),
        ("7b", {}),
        ("7b", LORA | {"proprio_dim": 16}),
        ("7b", {"lora": ALL, "action_dim": 7}),
    ],
)
def test_parameters_are_those_of_the_real_policy(tmp_path, preset, changes):
    from stages.policies.statistics import Statistics
    from tests.benchmarks.openvla_oft import OpenVLAOFTConfig, checkpoint, tokenizer_of

    config = OpenVLAOFTConfig.from_options({"preset": preset, **changes})
    rng = np.random.default_rng(0)
    statistics = Statistics.of(rng.uniform(size=(9, config.action_dim)), rng.uniform(size=(9, config.proprio_dim)))
    policy = checkpoint.build(config, statistics, tokenizer_of(config, tmp_path))
    size = dataclasses.replace(PRESETS[preset], action_dim=config.action_dim, proprio_dim=config.proprio_dim)
    counted = parameters(size, config.lora.rank, config.lora.targets)
    assert counted.total == sum(parameter.numel() for parameter in policy.parameters())
    assert counted.trained == sum(p.numel() for p in policy.parameters() if p.requires_grad)


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
@pytest.mark.parametrize(
    "flow",
    [
        {},
        {"version": "pi05"},
        {"train_expert_only": True, "sampler": "flow_noise"},
        {"value_position": "vlm", "horizon": 20},
    ],
)
def test_parameters_are_those_of_the_real_flow_policy(preset, flow):
    from stages.policies.pi0 import checkpoint
    from stages.policies.pi0.config import Pi0Config
    from stages.policies.pi0.prompt import DIRECTORY
    from stages.policies.statistics import Statistics

    config = Config.model_validate({"name": "run", "policy": {"name": "pi0", "preset": preset, "flow": flow}})
    rng = np.random.default_rng(0)
    statistics = Statistics.of(rng.uniform(size=(9, 14)), rng.uniform(size=(9, 16)))
    options = {"preset": preset, "chunk": 8, "action_dim": 14, "proprio_dim": 16, **config.policy.flow.options()}
    policy = checkpoint.build(Pi0Config.from_options(options), statistics, DIRECTORY)
    counted = measure(config).count
    assert counted.total == sum(parameter.numel() for parameter in policy.parameters())
    assert counted.trained == sum(p.numel() for p in policy.parameters() if p.requires_grad)


def test_a_frozen_prefix_stores_nothing_and_every_drawing_step_an_experts_pass():
    def activations(**flow: Any) -> float:
        given = {"name": "pi0", "preset": "base", "precision": "bf16", "flow": flow}
        return update_of(policy=given, deepspeed={"zero_stage": 1}).parts["activations"]

    frozen, joint = activations(train_expert_only=True), activations(train_expert_only=True, joint_log_prob=True)
    assert activations() > 10 * frozen
    assert joint == pytest.approx(4 * frozen)


def update_of(**blocks: dict[str, Any]) -> Memory:
    given = {"name": "run", "policy": {"preset": "7b", "precision": "bf16", **blocks.pop("policy", {})}, **blocks}
    return next(stage for stage in estimate(resolve(Config.model_validate(given))) if stage.stage == "update")


@given(st.integers(1, 16), st.integers(1, 64))
def test_every_stage_of_zero_needs_no_more_than_the_one_before(processes, batch):
    update = {"processes": processes, "micro_batch": batch, "minibatch": 128 * processes}
    totals = [update_of(update=update, deepspeed={"zero_stage": zero}).total for zero in (1, 2, 3)]
    assert totals == sorted(totals, reverse=True)
    assert (processes == 1) == (totals[0] - totals[1] < 1e-9)


def test_what_is_recomputed_is_not_stored_and_lora_has_no_optimizer_to_speak_of():
    zero = {"zero_stage": 1}
    stored = [update_of(update={"recompute": what}, deepspeed=zero).parts["activations"] for what in ("none", "mlp")]
    stored.append(update_of(update={"recompute": "block"}, deepspeed=zero).parts["activations"])
    assert stored[0] > stored[1] > stored[2] > 0
    full, lora = update_of(deepspeed=zero), update_of(policy=LORA, deepspeed=zero)
    assert lora.parts["optimizer"] < full.parts["optimizer"] / 50
    assert lora.parts["weights"] > full.parts["weights"]


def test_a_warm_start_held_beside_the_policy_counts():
    zero = {"zero_stage": 1}
    anchored = update_of(algorithm={"kl_coef": 0.1}, deepspeed=zero)
    assert anchored.parts["reference"] == anchored.parts["weights"]
    assert anchored.total - update_of(deepspeed=zero).total == pytest.approx(anchored.parts["reference"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_show_what_they_need_without_their_simulator_and_fit_80_gb(tmp_path, recipe):
    config = compose(recipe, [f"runs_dir={tmp_path}", "epochs=1"])
    stages = estimate(config)
    assert [stage.stage for stage in stages] == ["rollout", "update", "evaluate"]
    assert all(stage.total < 0.9 * 80e9 / 2**30 for stage in stages)
    lines = dry_run(config).memory
    assert len(lines) == len(stages)
    assert lines[1].startswith(f"update: about {stages[1].total:.1f} GiB on each of 16 ranks (weights ")
