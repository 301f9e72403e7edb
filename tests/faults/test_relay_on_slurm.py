"""The real relay, tiny, on a real cluster: every schedule ends in the policies of this machine, bit for bit."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import jobs
from pipeline.artifacts import Unit, attempt_directory, open_artifact
from slurm import client
from slurm.cluster import Cluster
from slurm.states import State, state_of

pytestmark = pytest.mark.slow

RECIPE = """
epochs: 1
simulator:
  tasks: [pick_onto_plate]
  image_size: 32
  max_episode_steps: 24
  options: {object_size: 0.05, plate_radius: 0.09, spread: 0.2, arms: right, renderer: raycast}
policy: {precision: fp32, chunk: 8}
demonstrate: {episodes: 4, num_envs: 2, stride: 8, max_episode_steps: 60}
sft: {steps: 3, batch: 8, threads: 1, optimizer: {name: muon, lr: 2.0e-3}}
rollout: {episodes: 4, shards: 2, num_envs: 2}
update: {minibatch: 8, threads: 1, processes: 2}
evaluate: {episodes: 2, num_envs: 2, threads: 1}
video_cfg: {save_video: false}
trainer: {logger: {mlflow: {enable: false}}}
slurm: {query_seconds: 1, mem: 3G}
"""
ON_TWO_NODES = ("slurm.update.partition=train", "slurm.update.nodes=2")


def baton(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def relay(folder: Path, name: str, *overrides: str) -> Path:
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    done = baton("run", str(recipe), f"name={name}", f"runs_dir={folder}", *overrides)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / name


def policies(run: Path) -> list[str]:
    found = [open_artifact(run / unit.outputs["policy"]) for unit in (Unit(0, "sft"), Unit(1, "update"))]
    return [artifact.verify().digest for artifact in found if artifact]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    # With stages that stay up: other tests hold the same for stages that do not.
    digests = policies(relay(tmp_path_factory.mktemp("local"), "local", "slurm.launcher=local", "slurm.follow=true"))
    assert len(digests) == 2
    return digests


def test_supervised_and_preempted_with_an_update_over_two_nodes(
    tmp_path: Path, idle_cluster: Cluster, expected: list[str]
) -> None:
    rollout = attempt_directory(tmp_path / "supervised", Unit(1, "rollout", 0), 1)
    with ThreadPoolExecutor(1) as pool:
        relayed = pool.submit(relay, tmp_path, "supervised", *ON_TWO_NODES)
        deadline = time.monotonic() + 200
        while not (rollout / "phases.jsonl").exists():
            assert time.monotonic() < deadline, "no rollout began"
            time.sleep(0.1)
        everything = ["--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null"]
        subprocess.run(["sbatch", *everything, "--wrap=sleep 1"], check=True, capture_output=True)
        run = relayed.result()
    assert policies(run) == expected
    assert "rollout was stopped by SIGTERM" in (rollout / "log.txt").read_text()
    assert (rollout / "restart-1").is_dir(), "Slurm started the same job again"
    update = open_artifact(run / "epochs/0001/update")
    assert update is not None
    assert update.manifest.job_id.isdigit()
    assert "warm start" in (run / "result.txt").read_text()


def test_chained_with_nobody_alive(tmp_path: Path, idle_cluster: Cluster, expected: list[str]) -> None:
    run = relay(tmp_path, "chained", "slurm.schedule=chain", *ON_TWO_NODES)
    deadline = time.monotonic() + 300
    while any(state_of(entry.state) is not State.ENDED for entry in client.queue()):
        assert time.monotonic() < deadline, "the chain does not end"
        time.sleep(1)
    assert policies(run) == expected
    assert (run / "result.txt").is_file(), "the last link writes the results"


def test_inside_one_allocation_with_stages_that_stay_up(
    tmp_path: Path, idle_cluster: Cluster, expected: list[str]
) -> None:
    run = relay(tmp_path, "held", "slurm.schedule=pilot", "slurm.follow=true", "slurm.pilot.mem=7G")
    assert policies(run) == expected
    assert list(run.glob("attempts/residents/update/1/orders/0001.done"))


def test_the_loop_as_a_job_goes_back_into_the_queue_when_its_time_is_up(
    tmp_path: Path, idle_cluster: Cluster, expected: list[str]
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    asked = [str(recipe), "name=submitted", f"runs_dir={tmp_path}"]
    done = baton("submit", *asked)
    assert done.returncode == 0, done.stderr
    again = baton("submit", *asked)
    assert "already" in again.stderr
    run, deadline = tmp_path / "submitted", time.monotonic() + 300
    while not (run / jobs.FILE).exists() or '"event":"submitted"' not in (run / jobs.FILE).read_text():
        assert time.monotonic() < deadline, "the loop did not begin"
        time.sleep(0.1)
    # What Slurm itself sends `slurm.signal_seconds` before the time limit, to the same process.
    subprocess.run(["scancel", "--batch", "--signal=USR2", done.stdout.split()[1]], check=True)
    while not (run / "result.txt").exists():
        assert time.monotonic() < deadline, (run / "orchestrator.log").read_text()
        time.sleep(0.5)
    assert policies(run) == expected
    log = (run / "orchestrator.log").read_text()
    assert "back into the queue" in log
    assert "detached: the units that run go on" in log
    assert (run / jobs.FILE).read_text().count('"event":"session"') >= 2, "the loop began again"
