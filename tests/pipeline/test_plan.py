"""The plan is complete, in order, and asks for what the config says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.plan import by_urgency, dependents, make_plan, policy_unit


@st.composite
def configs(draw: st.DrawFn) -> Config:
    shards = draw(st.integers(1, 3))
    return Config.model_validate(
        {
            "name": "run",
            "epochs": draw(st.integers(0, 6)),
            "demonstrate": {"shards": draw(st.integers(1, 3))},
            "rollout": {"shards": shards, "episodes": shards * 4, "staleness": draw(st.integers(0, 1))},
            "evaluate": {"interval": draw(st.integers(0, 4))},
        }
    )


@settings(max_examples=60, deadline=None)
@given(configs())
def test_every_unit_comes_once_and_after_what_it_needs(config: Config) -> None:
    seen: set[Unit] = set()
    for plan in make_plan(config):
        assert plan.unit not in seen
        assert set(plan.needs) <= seen
        seen.add(plan.unit)
    assert make_plan(config) == make_plan(config)


@settings(max_examples=60, deadline=None)
@given(configs())
def test_inputs_are_fixed_by_the_plan(config: Config) -> None:
    plans = {plan.unit: plan for plan in make_plan(config)}
    for epoch in range(1, config.epochs + 1):
        shards = tuple(Unit(epoch, "rollout", shard) for shard in range(config.rollout.shards))
        for shard in shards:
            assert plans[shard].needs == (policy_unit(max(0, epoch - 1 - config.rollout.staleness)),)
        assert plans[Unit(epoch, "update")].needs == (*shards, policy_unit(epoch - 1))
    interval = config.evaluate.interval
    for epoch in range(config.epochs + 1):
        asked = epoch in (0, config.epochs) or bool(interval and epoch % interval == 0)
        assert (Unit(epoch, "evaluate") in plans) == asked
        if asked:
            assert plans[Unit(epoch, "evaluate")].needs == (policy_unit(epoch),)


def test_modules_are_the_stages_own_but_for_demonstrations() -> None:
    modules = {plan.unit.stage: plan.module for plan in make_plan(Config(name="run", epochs=1))}
    assert modules == {
        "demonstrate": "rollout",
        "rollout": "rollout",
        "sft": "sft",
        "update": "update",
        "evaluate": "evaluate",
    }


@pytest.mark.parametrize(
    ("rollout", "cores"),
    [
        ({"threads": 1, "num_workers": 3}, 3),
        ({"threads": 4, "num_workers": 3}, 4),
        ({"threads": 2, "num_workers": 3, "pipeline_stage_num": 2}, 5),
    ],
)
def test_simulators_and_policy_share_cores_when_they_take_turns(rollout: dict[str, int], cores: int) -> None:
    plans = make_plan(Config.model_validate({"name": "run", "epochs": 1, "rollout": rollout}))
    assert [plan.share.cores for plan in plans if plan.unit.stage == "rollout"] == [cores]


@pytest.mark.parametrize(("groups", "cores"), [(1, 4), (2, 7)])
def test_an_evaluation_in_groups_needs_cores_for_both(groups: int, cores: int) -> None:
    evaluate = {"threads": 3, "num_workers": 4, "pipeline_stage_num": groups}
    plans = make_plan(Config.model_validate({"name": "run", "epochs": 1, "evaluate": evaluate}))
    assert {plan.share.cores for plan in plans if plan.unit.stage == "evaluate"} == {cores}


def test_an_epoch_is_evaluated_before_the_next_begins_where_both_may_start() -> None:
    config = Config.model_validate({"name": "run", "epochs": 2, "evaluate": {"interval": 1}})
    order = [plan.unit.stage for plan in by_urgency(make_plan(config))]
    epoch = ["rollout", "update", "evaluate"]
    assert order == ["demonstrate", "sft", "evaluate", *epoch, *epoch]


def test_dependents_reach_everything_made_from_a_unit() -> None:
    plans = make_plan(Config.model_validate({"name": "run", "epochs": 3, "evaluate": {"interval": 1}}))
    names = [str(unit) for unit in dependents(plans, Unit(2, "update"))]
    assert names == ["e0002-update", "e0002-evaluate", "e0003-rollout-s0000", "e0003-update", "e0003-evaluate"]
    assert len(dependents(plans, Unit(0, "demonstrate", 0))) == len(plans)
