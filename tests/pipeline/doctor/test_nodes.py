"""Probes on real nodes, and what is made of their answers."""

import dataclasses
import time

import pytest

from pipeline.doctor import asks, canary, nodes
from pipeline.doctor.canary import Answer, Place
from slurm import site

SEEN = {
    "host": "n7",
    "python": "3.11.7",
    "devices": "0",
    "driver": True,
    "cards": 1,
    "free": {"runs_dir": 10**12, "/dev/shm": 10**10, "TMPDIR": 10**11},
    "modules": ["stages.update"],
    "torch": {"version": "2.13.0", "gpus": 1},
    "read": 0.1,
    "write": 32,
    "simulator": {"version": "1.0", "renderer": "egl"},
    "missing": [],
    "time": 0.0,
}


@pytest.fixture
def place(make):
    config = make()
    return Place("train", tuple(job for job in asks.read(config) if job.name in ("sft", "update")))


@pytest.fixture
def judge(place, by_name):
    """The checks of an answer that differs from a good one: `judge(devices=None)`."""

    def judge(answer=None, **changes):
        seen = {name: value for name, value in {**SEEN, **changes}.items() if value is not ...}
        return by_name(nodes.examine([answer or Answer(place, seen, returned=True)], 60))

    return judge


@pytest.fixture
def probe(cluster, make, by_name):
    """The checks of what real nodes find: `checks = probe("slurm.python=/nope")`."""

    def probe(*overrides, wait=30, gpus=True, stages=None, **how):
        config = make("simulator.start_timeout=60", *overrides, gpus=gpus)
        jobs = [job for job in asks.read(config) if (job.name in stages if stages else not job.optional)]
        answers = canary.send(config, canary.places(jobs, site.read()), wait, **how)
        return by_name(nodes.examine(answers, wait))

    return probe


def test_nodes_that_are_fit(probe, cluster, tmp_path):
    checks = probe("slurm.setup=['export TMPDIR=/var/tmp', 'echo loaded']")
    verdicts = {name: check.verdict for name, check in checks.items()}
    subjects = ("files", "python", "GPUs", "room", "clock")
    assert set(verdicts) == {"simulator: sim", *(f"{subject}: {p}" for subject in subjects for p in ("sim", "train"))}
    # The test cluster's GPUs exist on paper.
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {"GPUs: sim", "GPUs: train"}
    for partition in ("sim", "train"):
        assert "no NVIDIA driver" in checks[f"GPUs: {partition}"].found
        assert f"on {partition}" in checks[f"GPUs: {partition}"].found
    assert "stages.rollout" in checks["python: sim"].found
    assert "stages.update" in checks["python: train"].found
    assert "rendered by" in checks["simulator: sim"].found
    assert not (tmp_path / "runs").exists()
    assert "baton-doctor" not in cluster.run("squeue", "--noheader", "--format=%j %T", "--states=PD,R")


def test_a_runs_dir_that_nodes_do_not_see(probe, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    checks = probe(gpus=False, stages=["orchestrator"], seen_as=lambda folder: elsewhere, patience=0.3)
    assert checks["files: sim"].verdict == "fail"
    assert str(elsewhere) in checks["files: sim"].found
    assert "runs_dir" in checks["files: sim"].remedy


def test_another_directory_under_the_same_name(probe, tmp_path):
    def another(folder):
        (tmp_path / "another").mkdir()
        (tmp_path / "another" / canary.SEEN).write_text("not this")
        return tmp_path / "another"

    check = probe(gpus=False, stages=["orchestrator"], seen_as=another, patience=0.3)["files: sim"]
    assert check.verdict == "fail"
    assert "holds something else" in check.found


def test_a_python_that_is_not_there(probe):
    check = probe("slurm.python=/opt/nope/python", gpus=False)["node: sim"]
    assert check.verdict == "fail"
    assert "/opt/nope/python" in check.found
    assert "slurm.python" in check.remedy


def test_a_setup_that_fails(probe):
    check = probe("slurm.setup=['echo no such module >&2; exit 3']", gpus=False)["node: sim"]
    assert check.verdict == "fail"
    assert "no such module" in check.found


def test_a_simulator_and_a_checkpoint_that_are_not_there(probe):
    checks = probe(
        "simulator.python=/opt/isaac/python", "policy.checkpoint=/data/policy", gpus=False, stages=["rollout"]
    )
    assert checks["simulator: sim"].verdict == "fail"
    assert "/opt/isaac/python" in checks["simulator: sim"].found
    assert checks["python: sim"].verdict == "fail"
    assert "/data/policy" in checks["python: sim"].found


def test_a_busy_partition_is_no_failure(probe, cluster):
    job = cluster.run(
        "sbatch", "--parsable", "--partition=sim", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 60"
    ).strip()
    try:
        deadline = time.monotonic() + 20
        while cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip() != "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        check = probe(gpus=False, wait=1)["node: sim"]
        assert check.verdict == "warn"
        assert check.found.startswith("busy: no job started within 1 s")
        # The job that did not start is gone.
        assert "baton-doctor" not in cluster.run("squeue", "--noheader", "--format=%j", "--states=PD,R")
    finally:
        cluster.run("scancel", job)


def test_this_machine(make, by_name):
    config = make("slurm.launcher=local", gpus=False)
    checks = by_name(nodes.probe(config, [Place("this machine")], 30))
    assert {check.verdict for check in checks.values()} == {"pass"}
    assert set(checks) == {f"{subject}: this machine" for subject in ("python", "simulator", "room")}


def test_a_good_answer(judge):
    assert {check.verdict for check in judge().values()} == {"pass"}


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "words"),
    [
        ({"write": ..., "write_error": "OSError: read-only"}, "files: train", "fail", "cannot write"),
        ({"modules": ..., "modules_error": "ModuleNotFoundError: no zarr"}, "python: train", "fail", "no zarr"),
        ({"torch": ..., "torch_error": "OSError: libcudart"}, "python: train", "fail", "libcudart"),
        ({"devices": None}, "GPUs: train", "fail", "is not set"),
        ({"devices": "NoDevFiles"}, "GPUs: train", "fail", "NoDevFiles"),
        ({"devices": "0,1,2,3"}, "GPUs: train", "warn", "each other's way"),
        ({"torch": {"version": "2.13.0+cpu", "gpus": 0}}, "GPUs: train", "fail", "torch 2.13.0+cpu can use none"),
        ({"simulator": ..., "simulator_error": "no omni"}, "simulator: train", "fail", "no omni"),
        ({"simulator": {}}, "simulator: train", "pass", "was not tried"),
        ({"free": {"/dev/shm": 64_000_000}}, "room: train", "warn", "64.0 MB in /dev/shm"),
        ({"url_error": "timed out"}, "MLflow: train", "warn", "does not reach"),
    ],
)
def test_what_is_not_as_it_should_be(judge, changes, name, verdict, words):
    check = judge(**changes)[name]
    assert check.verdict == verdict
    assert words in check.found
    assert verdict == "pass" or check.remedy


def test_clocks(judge, place):
    assert judge(Answer(place, SEEN, skew=-4.9, returned=True))["clock: train"].verdict == "pass"
    check = judge(Answer(place, SEEN, skew=-6.2, returned=True))["clock: train"]
    assert check.verdict == "warn"
    assert "n7 is 6.2 s behind this machine" in check.found


def test_a_file_of_a_node_that_does_not_arrive(judge, place):
    assert judge(Answer(place, SEEN, returned=False))["files: train"].verdict == "fail"


def test_renderers_that_differ(place):
    other = dataclasses.replace(place, label="sim")
    raycast = SEEN | {"host": "n8", "simulator": {"version": "1.0", "renderer": "raycast"}}
    checks = list(nodes.examine([Answer(place, SEEN, returned=True), Answer(other, raycast, returned=True)], 60))
    assert checks[-1].verdict == "warn"
    assert "egl on n7; raycast on n8" in checks[-1].found


def test_a_runs_dir_that_cannot_be_made(make, tmp_path, by_name):
    (tmp_path / "file").touch()
    config = make(f"runs_dir={tmp_path / 'file' / 'runs'}", gpus=False)
    check = by_name(nodes.probe(config, [Place("this machine")], 30))["files"]
    assert check.verdict == "fail"


def test_places_are_told_apart_by_what_processes_find_there(make, cluster):
    config = make("slurm.update.setup=['module load cuda']", "slurm.evaluate.constraint=big")
    jobs = [job for job in asks.read(config) if not job.optional]
    found = {place.label: [job.name for job in place.asks] for place in canary.places(jobs, site.read())}
    assert found == {
        "sim (demonstrate)": ["demonstrate", "rollout"],
        "sim (evaluate)": ["evaluate"],
        "train (sft)": ["sft"],
        "train (update)": ["update"],
    }


def test_a_job_that_was_taken_back_before_it_started(judge, place):
    check = judge(Answer(place, None, said="srun: Job allocation 12 has been revoked"))["node: train"]
    assert (check.verdict, "allocation 12 has been revoked" in check.found) == ("warn", True)
