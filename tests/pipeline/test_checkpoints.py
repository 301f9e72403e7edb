"""A checkpoint that cannot be the warm start of a run is refused before the run exists, from its headers alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import checkpoints, rundir
from pipeline.config import Config
from pipeline.errors import UserError

EXPERT = {
    "paligemma_with_expert.paligemma.lm_head.weight": [257152, 2048],
    "action_in_proj.weight": [1024, 32],
}
PI0 = EXPERT | {"action_time_mlp_in.weight": [1024, 2048]}
PI05 = EXPERT | {"time_mlp_in.weight": [1024, 1024]}
OPENVLA = {"vision_backbone.featurizer.cls_token": [1, 1, 1024]}


def made(
    folder: Path,
    shapes: dict[str, list[int]],
    *statistics: str,
    config: dict[str, Any] | None = None,
    numbers: int = 14,
) -> Path:
    """A checkpoint's headers without its weights; its statistics know so many numbers an action."""
    header = json.dumps({name: {"dtype": "BF16", "shape": shape} for name, shape in shapes.items()}).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    for place in statistics:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(json.dumps({"norm_stats": {"actions": {"mean": [0.0] * numbers}}}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def run_of(checkpoint: Path | str, **policy: Any) -> Config:
    given = {"name": "pi0", "preset": "base", "checkpoint": str(checkpoint), **policy}
    return Config.model_validate({"name": "run", "policy": given, "sft": {"steps": 0}})


def refusal(config: Config) -> str:
    with pytest.raises(UserError) as refused:
        checkpoints.require(config)
    return str(refused.value)


@pytest.mark.parametrize("place", ["norm_stats.json", "assets/robot/norm_stats.json", "dataset_statistics.json"])
def test_a_checkpoint_that_fits(tmp_path, place):
    checkpoints.require(run_of(made(tmp_path / "policy", PI0, place, config={"action_horizon": 50})))
    checkpoints.require(run_of(made(tmp_path / "other", PI05, place), flow={"version": "pi05"}))


def test_nothing_is_made_of_a_run_whose_checkpoint_does_not_fit(tmp_path):
    config = run_of(tmp_path / "nowhere").model_copy(update={"runs_dir": str(tmp_path / "runs")})
    says = f"policy.checkpoint={tmp_path / 'nowhere'} is no directory: name one that a policy was saved to"
    with pytest.raises(UserError, match=f"^{re.escape(says)}$"):
        rundir.create_or_resume(config)
    assert not (tmp_path / "runs").exists()
    checkpoints.check(config)  # a dry run needs none


@pytest.mark.parametrize("config", [None, {"model_type": "openvla"}, {"baton": {"policy": "openvla_oft"}}])
def test_another_policys_checkpoint(tmp_path, config):
    folder = made(tmp_path / "policy", OPENVLA, "norm_stats.json", config=config)
    assert refusal(run_of(folder)) == (
        f"policy.checkpoint={folder} holds a policy of openvla_oft: set policy.name=openvla_oft, or name another"
    )


def test_no_policys_checkpoint(tmp_path):
    folder = made(tmp_path / "policy", {"wte.weight": [50257, 768]})
    assert refusal(run_of(folder)) == (
        f"policy.checkpoint={folder} holds no pi0: its model.safetensors has no tensor `paligemma_with_expert....`; "
        "name an openpi checkpoint in PyTorch's format"
    )


def test_a_pi0_where_another_is_asked_for(tmp_path):
    folder = made(tmp_path / "policy", PI0, "norm_stats.json")
    assert refusal(run_of(folder, name="openvla_oft", preset="7b")) == (
        f"policy.checkpoint={folder} holds a policy of pi0: set policy.name=pi0, or name another"
    )
    assert refusal(run_of(folder, flow={"version": "pi05"})) == (
        f"policy.checkpoint={folder} is a pi0: set policy.flow.version=pi0"
    )


def test_missing_and_ambiguous_statistics(tmp_path):
    folder = made(tmp_path / "policy", PI0)
    assert refusal(run_of(folder)) == (
        f"policy.checkpoint={folder} has no norm_stats.json and no dataset_statistics.json: copy the one of its assets "
        "there, or set policy.statistics=demonstrations"
    )
    several = made(tmp_path / "several", PI0, "assets/droid/norm_stats.json", "assets/trossen/norm_stats.json")
    assert refusal(run_of(several)) == (
        f"policy.checkpoint={several} has statistics of several data sets: set policy.statistics to one of droid, "
        "trossen"
    )
    checkpoints.require(run_of(several, statistics="droid"))


def test_sizes_that_the_run_does_not_fit_into(tmp_path):
    short = made(tmp_path / "short", PI0, "norm_stats.json", config={"action_horizon": 5})
    assert refusal(run_of(short)) == (
        f"policy.checkpoint={short} denoises 5 actions, fewer than policy.chunk=8 carries out: set policy.chunk to 5 "
        "or less"
    )
    checkpoints.require(run_of(short, chunk=5))
    silent = made(tmp_path / "silent", PI0, "norm_stats.json")
    assert refusal(run_of(silent, chunk=51)) == (
        f"policy.checkpoint={silent} denoises 50 actions, fewer than policy.chunk=51 carries out: set policy.chunk to "
        "50 or less"
    )
    narrow = made(tmp_path / "narrow", PI0 | {"action_in_proj.weight": [1024, 7]}, "norm_stats.json")
    assert refusal(run_of(narrow)) == (
        f"policy.checkpoint={narrow} has 7 numbers an action, fewer than policy.action_dim=14: name one that is wide "
        "enough"
    )


def test_statistics_of_another_robot(tmp_path):
    folder = made(tmp_path / "policy", PI0, "assets/libero/norm_stats.json", numbers=7)
    path = folder / "assets/libero/norm_stats.json"
    assert refusal(run_of(folder)) == (
        f"{path} knows 7 numbers an action, fewer than policy.action_dim=14: take the statistics of this robot, or set "
        "policy.statistics=demonstrations"
    )
    path.write_text('{"norm_stats": {}}')
    assert refusal(run_of(folder)) == (
        f"{path} is damaged (no mean of its actions): take the policy from its source again"
    )


def test_damaged_files(tmp_path):
    folder = made(tmp_path / "policy", PI0, "norm_stats.json")
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    assert (
        refusal(run_of(folder)) == f"{folder / 'model.safetensors'} is damaged: take the policy from its source again"
    )
    (folder / "config.json").write_text("{")
    assert refusal(run_of(folder)).startswith(f"{folder / 'config.json'} is damaged (")
