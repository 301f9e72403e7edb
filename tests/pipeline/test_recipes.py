"""The recipes of the public simulators are whole: they compose, fit their machines, and follow the field's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.compose import compose
from pipeline.dry_run import dry_run
from pipeline.memory import estimate, measure
from pipeline.plan import make_plan
from pipeline.resources import check_machine
from pipeline.simulator_facts import HELD_OUT_STATES, robot

CONFIGS = Path(__file__).parents[2] / "configs"
LIMITS = {"spatial": 220, "object": 280, "goal": 300, "10": 520}
SMALL = ("libero_object_small", "maniskill_two_robot_small")


@pytest.mark.parametrize("suite", LIMITS)
def test_a_suite_of_libero_is_trained_as_the_field_does_and_fits_eight_gpus(suite, tmp_path):
    config = compose(CONFIGS / f"libero_{suite}_grpo_openvlaoft.yaml", [f"runs_dir={tmp_path}"])
    simulator, rollout, algorithm, update = config.simulator, config.rollout, config.algorithm, config.update
    assert (simulator.max_episode_steps, len(simulator.tasks)) == (LIMITS[suite], 10)
    assert config.evaluate.episodes == HELD_OUT_STATES["libero"] * len(simulator.tasks) == 500
    assert (algorithm.name, rollout.group_size, rollout.temperature) == ("grpo", 8, 1.6)
    assert (algorithm.clip_ratio_low, algorithm.clip_ratio_high, algorithm.clip_ratio_c) == (0.2, 0.28, 3.0)
    assert (algorithm.kl_coef, algorithm.entropy_coef, algorithm.log_prob_level) == (0, 0, "token")
    assert (update.minibatch, update.optimizer.lr, update.optimizer.gradient_clip, update.passes) == (16384, 2e-5, 1, 1)
    assert (config.policy.chunk, config.policy.action_dim, config.policy.options["images"]) == (8, 7, 1)
    assert measure(config).count.total == pytest.approx(7.5e9, rel=0.01)
    assert all(stage.total < 0.9 * 80e9 / 2**30 for stage in estimate(config))
    assert dry_run(config).lines, "it needs neither its simulator nor its checkpoint to be shown"


@pytest.mark.parametrize("name", SMALL)
def test_a_small_recipe_is_for_one_gpu_and_16_cores(name, tmp_path):
    config = compose(CONFIGS / f"{name}.yaml", [f"runs_dir={tmp_path}"])
    assert measure(config).count.total < 60e6
    assert config.cluster.gpus_per_node == 1
    groups = config.rollout.pipeline_stage_num
    assert config.rollout.num_envs == groups * config.rollout.num_workers, "a world of each process in every group"
    check_machine(config, [(plan.unit.stage, plan.share) for plan in make_plan(config)], cores=16, gpus=1)
    assert config.evaluate.episodes == 100
    assert sum(stage.total for stage in estimate(config)) < 40, "stages stay up beside their simulators"
    body = robot(config.simulator)
    assert body is not None
    assert body.actions == config.policy.action_dim == config.policy.options["dims_per_position"]
    assert dry_run(config).lines
