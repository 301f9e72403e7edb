"""A tiny pi0 through the relay's stages: its chains are stored, judged alike, and trained on.

The demonstrations are those of the tiny OpenVLA-OFT run; from the warm start on everything is pi0's own.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts import Unit, open_artifact
from pipeline.errors import UserError
from stages import schedule, update
from stages.policies import interface as policies
from stages.policies.statistics import Statistics
from stages.seeing import observe
from stages.trajectories import Trajectories, read
from stages.unit import load_config
from tests.stages.conftest import Tiny

SFT, ROLLOUT, UPDATE, EVALUATE = Unit(0, "sft"), Unit(1, "rollout", 0), Unit(1, "update"), Unit(1, "evaluate")
SMALL = {"layers": 1, "images": 2, "vision": {"depth": 1}}
"""Fewer layers of the tiny preset: the relay is the subject here."""
PPO: dict[str, dict[str, Any]] = {
    "policy": {
        "name": "pi0",
        "flow": {"num_steps": 3, "noise_level": 0.6, "noise_level_final": 0.3, "noise_anneal_epochs": 1},
        "options": SMALL | {"value_init": "normal"},
    },
    "rollout": {"shards": 1, "staleness": 1},
}
GRPO: dict[str, dict[str, Any]] = {
    "policy": {
        "name": "pi0",
        "flow": {
            "version": "pi05", "num_steps": 2, "sampler": "flow_noise", "joint_log_prob": True,
            "value_position": "vlm", "train_expert_only": True,
        },
        "options": SMALL,
    },
    "rollout": {"shards": 1, "group_size": 4, "noise": "chunk"},
    "algorithm": {"name": "grpo", "entropy_coef": 0.01, "kl_coef": 0.1, "log_prob_level": "chunk"},
    "update": {"micro_batch": 3},
    "deepspeed": {"zero_stage": 3},
}  # fmt: skip


def carry_out(run: Tiny, *units: Unit) -> None:
    for unit in units:
        code, output = run.start(unit).end(timeout=300)
        assert code == 0, output


def begun(prepared: Tiny, folder: Path, blocks: dict[str, dict[str, Any]], *units: Unit) -> Tiny:
    """A run of pi0 with some units done."""
    folder.mkdir()
    run = prepared.copy(folder, SFT, ROLLOUT, Unit(1, "rollout", 1), UPDATE, Unit(0, "evaluate"), **blocks)
    shutil.rmtree(run.run / "epochs/0002")
    carry_out(run, *units)
    return run


@pytest.fixture(scope="module")
def runs(prepared, side_by_side, tmp_path_factory) -> dict[str, Tiny]:
    folder = tmp_path_factory.mktemp("flow")
    asked = {
        "grpo": (GRPO, SFT, ROLLOUT, UPDATE, EVALUATE),
        "ppo": (PPO, SFT, ROLLOUT, UPDATE),
        "again": (PPO, SFT, ROLLOUT),
    }
    made = {name: side_by_side(begun, prepared, folder / name, *given) for name, given in asked.items()}
    return {name: future.result() for name, future in made.items()}


def judged(run: Tiny, temperature: float) -> tuple[Trajectories, policies.Evaluation]:
    """The first rollouts, and what the policy that made them thinks of them."""
    rollouts = read(run.run / ROLLOUT.marker)
    policy = policies.load(run.run / SFT.outputs["policy"])
    taken = {name: update.as_taken(array) for name, array in rollouts.taken.items()}
    with torch.no_grad():
        seen = observe(rollouts, np.arange(len(rollouts)))
        return rollouts, policy.evaluate_actions(seen, taken, temperature)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chain"), [("ppo", (2, 8, 16)), ("grpo", (3, 8, 16))])
def test_log_probs_of_stored_chains_are_those_of_the_rollout(runs, name, chain):
    rollouts, evaluation = judged(runs[name], 1.0)
    assert (rollouts.spec.kind, rollouts.spec.chain_shape) == ("chain", chain)
    assert np.abs(evaluation.log_probs.numpy() - rollouts.log_probs).max() < 1e-5
    assert np.abs(evaluation.values.numpy() - rollouts.values).max() < 1e-5
    assert (evaluation.entropy is None) == (name == "ppo")
    assert rollouts.log_probs.std() > 0


@pytest.mark.slow
def test_one_step_of_each_decision_draws_or_all_do(runs):
    steps = {name: read(runs[name].run / ROLLOUT.marker).step for name in ("ppo", "grpo")}
    assert set(steps["ppo"].tolist()) <= {0, 1, 2}
    assert len(set(steps["ppo"].tolist())) > 1
    assert not steps["grpo"].any()


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(runs):
    for unit in (SFT, ROLLOUT):
        assert runs["ppo"].contents(unit) == runs["again"].contents(unit) is not None


@pytest.mark.slow
def test_ppo_and_grpo_train_on_chains(runs):
    found = {}
    for name in ("ppo", "grpo"):
        artifact = open_artifact(runs[name].run / UPDATE.marker)
        assert artifact is not None
        found[name] = artifact.verify().manifest.metrics
    assert found["ppo"]["actor/value_loss"] > 0
    assert found["ppo"]["actor/grad_norm"] > 0
    assert abs(found["ppo"]["actor/behave_approx_kl"]) < 1e-5, "the policy that rolled out is the one that is updated"
    assert "actor/entropy" not in found["ppo"], "flow_sde's noise is no choice of the policy"
    assert "actor/value_loss" not in found["grpo"]
    assert np.isfinite(found["grpo"]["actor/entropy"])
    before, after = (policies.load(runs["grpo"].run / unit.outputs["policy"]).state_dict() for unit in (SFT, UPDATE))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith("paligemma_with_expert.paligemma.") for name in moved), "only the expert is trained"


@pytest.mark.slow
def test_shards_of_another_kind_are_refused(runs, prepared):
    chains, tokens = (run.run / ROLLOUT.marker for run in (runs["ppo"], prepared))
    flow = policies.load(runs["ppo"].run / SFT.outputs["policy"])
    over_tokens = policies.load(prepared.run / SFT.outputs["policy"])
    remedy = "make the shard again with `baton rerun`"
    with pytest.raises(UserError) as refused:
        update.refuse_foreign(read(tokens), flow)
    assert str(refused.value) == (
        f"{tokens} is a shard of kind 'tokens', which pi0 cannot judge: it takes 'chain' of [2, 8, 16]; {remedy}"
    )
    with pytest.raises(UserError) as refused:
        update.refuse_foreign(read(chains), over_tokens)
    assert str(refused.value) == (
        f"{chains} is a shard of kind 'chain' of [2, 8, 16], which openvla_oft cannot judge: it takes 'tokens'; "
        f"{remedy}"
    )


@pytest.mark.slow
def test_the_noise_level_falls_from_epoch_to_epoch_in_rollout_and_update_alike(runs):
    config = load_config(runs["ppo"].run)
    assert [schedule.temperature(config, epoch) for epoch in (1, 2, 3)] == [1.0, 0.5, 0.5]
    rollouts, right = judged(runs["ppo"], 1.0)
    _, wrong = judged(runs["ppo"], 0.5)
    assert rollouts.log_probs is not None
    assert np.abs(wrong.log_probs.numpy() - rollouts.log_probs).max() > 0.1 > 1e-4
    assert np.abs(right.log_probs.numpy() - rollouts.log_probs).max() < 1e-5


def test_imitation_noise_is_drawn_in_the_order_of_the_batch_whoever_gets_it():
    rng = np.random.default_rng(0)
    statistics = Statistics.of(rng.uniform(-1, 1, (50, 14)), rng.normal(size=(50, 16)))
    policy = policies.make("pi0", {"preset": "tiny", **SMALL}, statistics, 0)
    few, many = (policy.draw_imitation_noise(np.random.default_rng(3), count) for count in (2, 5))
    assert few is not None
    assert many is not None
    assert np.array_equal(few, many[:2])
    assert few.shape == (2, 8 * 16 + 1)
    assert len(np.unique(many)) == many.size
