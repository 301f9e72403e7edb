"""A run keeps its config, and says what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.lease import Lease
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume, differences, identity, load


def config(folder: Path, **values: Any) -> Config:
    return Config.model_validate({"name": "run", "runs_dir": str(folder), **values})


def test_a_new_run_holds_its_config_and_identity(tmp_path: Path) -> None:
    asked = config(tmp_path, seed=5)
    run = create_or_resume(asked)
    assert run == tmp_path / "run"
    assert load(run) == asked
    found = identity(run)
    assert found["name"] == "run"
    assert found["id"].startswith("run-")
    assert len(found["code"]["digest"]) == 64
    assert "python" in found["versions"]


def test_the_same_config_resumes_and_keeps_the_identity(tmp_path: Path) -> None:
    run = create_or_resume(config(tmp_path))
    before = identity(run)
    assert create_or_resume(config(tmp_path)) == run
    assert identity(run) == before


def test_what_cannot_change_results_may_change(tmp_path: Path) -> None:
    run = create_or_resume(config(tmp_path, epochs=3))
    create_or_resume(config(tmp_path, epochs=2, keep={"policies": 4}, slurm={"poll_seconds": 9.0}))
    assert load(run).epochs == 2
    assert load(run).slurm.poll_seconds == 9.0


def test_how_often_films_are_drawn_may_change_but_not_how_a_simulator_goes_on(tmp_path: Path) -> None:
    def drawn(frames: int, simulator: str, **values: Any) -> Config:
        return config(tmp_path / simulator, simulator={"name": simulator, "rendering_frequency": frames}, **values)

    run = create_or_resume(drawn(20, "household", video_cfg={"episodes": 4}))
    create_or_resume(drawn(10, "household"))
    assert (load(run).simulator.rendering_frequency, load(run).video_cfg.episodes) == (10, None)
    joints = {"policy": {"action_dim": 14}}
    run = create_or_resume(drawn(30, "omnigibson", **joints))
    with pytest.raises(UserError) as refused:
        create_or_resume(drawn(60, "omnigibson", **joints))
    assert str(refused.value) == (
        f"{run} was made with another config (simulator.rendering_frequency: the run has 30, asked is 60); set the "
        "run's values again, or give another name=..."
    )


def test_a_run_may_move_to_other_machines_as_long_as_its_ranks_stay(tmp_path: Path) -> None:
    def placed(gpus: str, shards: int, **slurm: Any) -> Config:
        components = {"component_placement": {"env,rollout": "0-3", "actor": gpus}}
        return resolve(config(tmp_path, cluster=components, rollout={"shards": shards}, slurm=slurm))

    run = create_or_resume(placed("0-3", 4, launcher="local"))
    create_or_resume(placed("4-7", 4, launcher="slurm", partition="train", update={"time": "1:00:00"}))
    assert load(run).slurm.update.time == "1:00:00"
    with pytest.raises(UserError, match=r"sft\.processes: the run has 4, asked is 8; update\.processes"):
        create_or_resume(placed("0-7", 4))


def test_anything_else_is_refused_with_both_values_and_changes_nothing(tmp_path: Path) -> None:
    run = create_or_resume(config(tmp_path, epochs=3))
    text = (run / "config.yaml").read_text()
    with pytest.raises(UserError) as caught:
        create_or_resume(config(tmp_path, epochs=4, seed=7, update={"optimizer": {"lr": 0.5}}))
    message = str(caught.value)
    assert "seed: the run has 0, asked is 7" in message
    assert "update.optimizer.lr: the run has 0.0001, asked is 0.5" in message
    assert "epochs" not in message
    assert "name=" in message
    assert (run / "config.yaml").read_text() == text


def test_a_driven_run_keeps_its_config(tmp_path: Path) -> None:
    run = create_or_resume(config(tmp_path, epochs=3))
    with Lease(run, print), pytest.raises(UserError, match="stop it before changing epochs"):
        create_or_resume(config(tmp_path, epochs=4))
    assert load(run).epochs == 3


def test_a_directory_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"is not a run \(it holds thesis.tex"):
        create_or_resume(config(tmp_path))


@pytest.mark.parametrize("name", ["50%awards", "top%4a"])
def test_a_directory_named_like_the_index_of_a_shard_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="runs_dir=.*%"):
        create_or_resume(config(tmp_path / name))


def test_a_creation_cut_short_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"id": "torn"}))
    assert identity(create_or_resume(config(tmp_path)))["id"] != "torn"


def test_loading_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        load(tmp_path)


def test_differences_name_every_key() -> None:
    assert differences(Config(name="a"), Config(name="a")) == []
    assert differences(Config(name="a"), Config(name="b", seed=1)) == [("name", "a", "b"), ("seed", 0, 1)]
