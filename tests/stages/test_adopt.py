"""A run that begins with a trained policy: it becomes version 0 as it is, and nothing is demonstrated."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from pipeline import compose, rundir
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from pipeline.plan import make_plan
from tests.stages.conftest import RECIPE, Tiny


@pytest.mark.slow
def test_a_trained_policy_is_version_0_of_another_run_and_evaluates_alike(prepared, tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("steps: 2,", "steps: 0,"))
    trained = prepared.run / "policies" / "0001"
    overrides = ["name=next", f"runs_dir={tmp_path}", f"policy.checkpoint={trained}", "video_cfg.save_video=false"]
    config = compose.compose(tmp_path / "tiny.yaml", overrides)
    assert [str(plan.unit) for plan in make_plan(config)][0] == "e0000-sft"
    run = Tiny(rundir.create_or_resume(config))
    for unit in (Unit(0, "sft"), Unit(0, "evaluate")):
        code, output = run.start(unit).end()
        assert code == 0, output
    before, after = (load_file(folder / "model.safetensors") for folder in (trained, run.run / "policies" / "0000"))
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    statistics = "dataset_statistics.json"
    assert (run.run / "policies/0000" / statistics).read_text() == (trained / statistics).read_text()


@pytest.mark.parametrize("policy", [{}, {"checkpoint": "somewhere", "statistics": "demonstrations"}])
def test_without_training_there_must_be_a_trained_policy(policy, tmp_path):
    (tmp_path / "bad.yaml").write_text(f"sft: {{steps: 0}}\npolicy: {policy}\n")
    with pytest.raises(UserError, match="sft.steps=0 takes policy.checkpoint and its own statistics"):
        compose.compose(tmp_path / "bad.yaml")
