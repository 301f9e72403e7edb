"""On typed GPUs of a real cluster every process sees what the placement gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.compose import compose
from pipeline.errors import UserError
from pipeline.launchers import PILOT_VARIABLE
from pipeline.orchestrator import drive
from pipeline.resources import machine_gpus
from pipeline.rundir import create_or_resume
from slurm import client
from slurm.cluster import Cluster
from slurm.states import State, state_of

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GROUPS = """
  num_nodes: 4
  gpus_per_node: 4
  node_groups:
    - {label: simulators, node_ranks: 0-1, gpu_type: rtx, partition: sim}
    - {label: trainers, node_ranks: 2-3, gpu_type: h100, partition: train}
"""


@pytest.fixture(autouse=True)
def _fakes_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))


def new_run(folder: Path, cluster: str, shards: int, slurm: str = "") -> Path:
    recipe = folder / "run.yaml"
    recipe.write_text(
        f"runs_dir: {folder}\nepochs: 1\nrollout: {{shards: {shards}, episodes: {shards}, threads: 1}}\n"
        "sft: {threads: 1}\nupdate: {threads: 1}\nevaluate: {threads: 1}\n"
        "trainer: {logger: {mlflow: {enable: false}}}\n"
        f"slurm: {{launcher: slurm, poll_seconds: 0.05, query_seconds: 1, {slurm}}}\n"
        f"cluster:\n{cluster}"
    )
    return create_or_resume(compose(recipe))


def carry_out(run: Path) -> list[dict[str, Any]]:
    drive(run, lambda snapshot: None, stages_package="fake_stages")
    return places(run)


def places(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "places.log").read_text().splitlines()]


def of(found: list[dict[str, Any]], module: str, epoch: int) -> list[dict[str, Any]]:
    return [place for place in found if (place["module"], place["epoch"]) == (module, epoch)]


def test_cells_on_one_kind_of_gpu_and_the_update_on_all_of_another(tmp_path: Path, idle_cluster: Cluster) -> None:
    run = new_run(
        tmp_path,
        f"""{GROUPS}
  component_placement:
    env: {{node_group: simulators, placement: 0-3}}
    rollout: {{node_group: simulators, placement: 4-7}}
    actor: {{node_group: trainers, placement: all}}
""",
        shards=4,
    )
    found = carry_out(run)
    rollouts = of(found, "rollout", 1)
    assert len(rollouts) == 4
    for place in rollouts:
        assert place["SLURMD_NODENAME"].startswith("sim")
        assert place["BATON_CELL"] == "1+1"
        assert len(place["CUDA_VISIBLE_DEVICES"].split(",")) == 2
    for place in of(found, "rollout", 0):
        assert (place["BATON_CELL"], len(place["CUDA_VISIBLE_DEVICES"].split(","))) == ("1+0", 1), "the expert alone"
    update = of(found, "update", 1)
    assert Counter(place["SLURMD_NODENAME"] for place in update) == {"train0": 4, "train1": 4}
    assert {place["CUDA_VISIBLE_DEVICES"] for place in update} == {"0,1,2,3"}
    script = (run / "attempts/e0001-update/1/sbatch.sh").read_text()
    assert "--gres=gpu:h100:4" in script
    assert "--partition=train" in script


def test_shared_gpus_are_cells_of_one(tmp_path: Path, idle_cluster: Cluster) -> None:
    run = new_run(
        tmp_path,
        "  gpus_per_node: 4\n  component_placement: {'env,rollout,actor': all}\n",
        shards=4,
        slurm="gpu_option: gpus-per-node, partition: train",
    )
    found = carry_out(run)
    assert [place["BATON_CELL"] for place in of(found, "rollout", 1)] == ["shared:1"] * 4
    assert all(place["CUDA_VISIBLE_DEVICES"] in "0123" for place in of(found, "rollout", 1))
    assert len(of(found, "update", 1)) == 4
    assert "--array=0-3%4" in (run / "attempts/e0001-rollout-s0000/1/sbatch.sh").read_text()


def test_inside_an_allocation_each_step_is_told_its_own_gpus(tmp_path: Path, idle_cluster: Cluster) -> None:
    placement = "  gpus_per_node: 4\n  component_placement: {env: 0-1, rollout: 2-3, actor: all}\n"
    found = carry_out_inside(new_run(tmp_path, placement, shards=2, slurm="schedule: pilot"), gpus=4)
    seen = {place["shard"]: place["CUDA_VISIBLE_DEVICES"] for place in of(found, "rollout", 1)}
    assert seen == {0: "0,2", 1: "1,3"}
    assert {place["CUDA_VISIBLE_DEVICES"] for place in of(found, "update", 1)} == {"0,1,2,3"}


def test_an_allocation_of_some_gpus_of_a_node_leaves_the_others_alone(tmp_path: Path, idle_cluster: Cluster) -> None:
    held = ["sbatch", "--partition=train", "--nodelist=train0", "--gres=gpu:h100:2", "--output=/dev/null"]
    subprocess.run([*held, "--wrap=sleep 600"], check=True, capture_output=True)
    placement = "  gpus_per_node: 2\n  component_placement: {env: 1, rollout: 0, actor: all}\n"
    found = carry_out_inside(new_run(tmp_path, placement, shards=1, slurm="schedule: pilot"), gpus=2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in of(found, "rollout", 1)] == ["3,2"]
    assert {place["CUDA_VISIBLE_DEVICES"] for place in of(found, "update", 1)} == {"2,3"}


def carry_out_inside(run: Path, gpus: int) -> list[dict[str, Any]]:
    """As `carry_out`, in an allocation of some GPUs of node train0."""
    program = (
        "import sys; from pathlib import Path; from pipeline.orchestrator import drive; "
        "drive(Path(sys.argv[1]), lambda s: None, stages_package='fake_stages')"
    )
    script = run.parent / "held.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --partition=train --nodelist=train0 --cpus-per-task=4 --gres=gpu:h100:{gpus}\n"
        f"#SBATCH --output={run}/pilot.log\n"
        f'exec {sys.executable} -c "{program}" {run}\n'
    )
    job = client.sbatch(script, variables={PILOT_VARIABLE: "1"})
    while any(state_of(entry.state) is not State.ENDED for entry in client.queue() if entry.id == job):
        time.sleep(0.3)
    return places(run)


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"actor.*names GPU 15.*1 node x 8 GPUs"):
        new_run(
            tmp_path,
            "  gpus_per_node: 8\n  component_placement: {env: 0-3, rollout: 4-7, actor: 0-15}\n",
            shards=4,
        )
    assert not (tmp_path / "run").exists()


def test_without_slurm_a_placement_needs_the_gpus_here(tmp_path: Path) -> None:
    assert machine_gpus() == 0, "this test is for a machine without GPUs"
    run = new_run(tmp_path, "  gpus_per_node: 2\n  component_placement: {'env,rollout,actor': all}\n", shards=2)
    recipe = tmp_path / "run.yaml"
    create_or_resume(compose(recipe, ["slurm.launcher=local"]))
    with pytest.raises(UserError, match="this machine has 0"):
        drive(run, lambda snapshot: None, stages_package="fake_stages")
