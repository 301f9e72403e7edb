"""What a run would do, without doing it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.dry_run import dry_run
from pipeline.resolve import resolve

CELLS = {"component_placement": {"env": "0-1", "rollout": "2-3", "actor": "0-3"}}


def config(folder: Path, **values: Any) -> Config:
    given = {"name": "run", "runs_dir": str(folder), "epochs": 2, "rollout": {"shards": 2}, **values}
    return resolve(Config.model_validate(given))


def test_there_is_a_script_for_every_job_and_it_is_what_would_be_submitted(tmp_path: Path) -> None:
    found = dry_run(config(tmp_path, slurm={"rollout": {"partition": "sim", "time": "1:00:00"}}))
    assert found.folder == tmp_path / "run.dry-run"
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "e0000-demonstrate.sbatch",
        "e0000-evaluate.sbatch",
        "e0000-sft.sbatch",
        "e0001-rollout.sbatch",
        "e0001-update.sbatch",
        "e0002-evaluate.sbatch",
        "e0002-rollout.sbatch",
        "e0002-update.sbatch",
    ]
    script = (found.folder / "e0001-rollout.sbatch").read_text()
    for line in ("--array=0-1", "--partition=sim", "--time=60", "--job-name=run-e0001-rollout"):
        assert f"#SBATCH {line}\n" in script
    attempt = tmp_path / "run" / "attempts" / "e0001-rollout-s%4a" / "1" / "log.txt"
    assert f"#SBATCH --output={attempt}\n" in script
    for path in found.folder.iterdir():
        assert subprocess.run(["bash", "-n", path], capture_output=True).stderr == b""


def test_lines_are_in_order_and_one_epoch_stands_for_all(tmp_path: Path) -> None:
    found = dry_run(config(tmp_path))
    names = ["e0000-demonstrate", "e0000-sft", "e0000-evaluate", "e0001-rollout", "e0001-update"]
    assert list(found.lines) == [f"sbatch {found.folder / name}.sbatch" for name in names]


def test_nothing_but_the_scripts_is_written(tmp_path: Path) -> None:
    dry_run(config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["run.dry-run"]


def test_a_second_time_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    dry_run(config(tmp_path))
    first = {path.name: path.read_text() for path in (tmp_path / "run.dry-run").iterdir()}
    (tmp_path / "run.dry-run" / "notes.txt").write_text("mine")
    dry_run(config(tmp_path, epochs=1))
    second = {path.name: path.read_text() for path in (tmp_path / "run.dry-run").iterdir()}
    assert "e0002-update.sbatch" not in second
    assert second.pop("notes.txt") == "mine"
    assert second["e0001-update.sbatch"] == first["e0001-update.sbatch"], "a dry run says the same every time"


def test_the_cost_is_that_of_all_units_at_their_time_limits(tmp_path: Path) -> None:
    plain = dry_run(config(tmp_path, slurm={"time": 60}, update={"threads": 4}, evaluate={"num_workers": 3}))
    demonstrate, sft, rollouts, updates, evaluations = 1, 2, 4 * 1, 2 * 4, 2 * 3
    assert plain.gpu_hours == 0
    assert plain.core_hours == demonstrate + sft + rollouts + updates + evaluations
    slurm = {"time": "2:00:00", "update": {"time": 30}}
    with_gpus = dry_run(config(tmp_path, cluster=CELLS, slurm=slurm))
    demonstrate, sft, rollouts, updates, evaluations = 2 * 1, 2 * 4, 4 * 2 * 2, 2 * 0.5 * 4, 2 * 2 * 2
    assert with_gpus.gpu_hours == pytest.approx(demonstrate + sft + rollouts + updates + evaluations)


def test_the_placement_is_told_in_words(tmp_path: Path) -> None:
    assert dry_run(config(tmp_path)).placement == ("no GPUs: every stage runs on CPU cores",)
    lines = dry_run(config(tmp_path, cluster=CELLS)).placement
    assert lines[0] == "rollout: 2 cells of 1 simulator GPU + 1 policy GPU"
    assert lines[1] == "update: 1 node x 4 GPUs, 4 ranks"
