"""What the launcher of Slurm's jobs submits, finds and cancels, against commands that fail as the test says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from slurm import batch
from slurm.batch import HOST, SlurmLauncher
from slurm.client import Unanswered
from slurm.launcher import EXIT, LOG, SCRIPT, STOPPED, Job, LaunchError, Request, TryLater
from slurm.options import Options
from slurm.states import State
from tests.slurm.fake_slurm_for_tests import KEY, TIMED_OUT, FakeSlurm, job


@pytest.fixture
def family(tmp_path: Path) -> Request:
    return made(tmp_path, indices=(0, 1, 3))


def made(tmp_path: Path, key: str = KEY, indices: tuple[int, ...] = ()) -> Request:
    request = Request(
        key=key,
        name="run-e0001-rollout",
        module="stages.rollout",
        arguments=("/run", "--epoch", "1", "--shard", "%a", "--attempt", "1"),
        folder=tmp_path / key.replace(":", "-"),
        environment={},
        options=Options(time=10),
        indices=indices,
    )
    for single in request.members().values():
        single.folder.mkdir(parents=True)
    return request


def test_a_family_is_one_array_with_one_script(slurm: FakeSlurm, launcher: SlurmLauncher, family: Request) -> None:
    jobs = launcher.submit(family)
    assert jobs == {
        f"run-1:e0001-rollout-s000{index}:1": Job(f"run-1:e0001-rollout-s000{index}:1", f"100_{index}", HOST)
        for index in (0, 1, 3)
    }
    assert slurm.calls("sbatch") == 1
    assert slurm.ids() == ["100_0", "100_1", "100_3"]
    scripts = [single.folder / SCRIPT for single in family.members().values()]
    assert "#SBATCH --array=0-1,3\n" in scripts[0].read_text()
    assert all(script.samefile(scripts[0]) for script in scripts)


def test_what_was_just_submitted_waits_although_no_look_has_shown_it(slurm: FakeSlurm, family: Request) -> None:
    launcher = SlurmLauncher(1000.0)
    launcher.poll([job("7")])
    jobs = list(launcher.submit(family).values())
    assert {sight.state for sight in launcher.poll(jobs).values()} == {State.WAITING}
    assert slurm.calls("squeue") == 1


def test_an_sbatch_that_times_out_after_accepting_is_not_repeated(
    slurm: FakeSlurm, launcher: SlurmLauncher, family: Request, said: list[str]
) -> None:
    slurm.show("50", "RUNNING", "someone-else")
    slurm.trouble(late=TIMED_OUT)
    jobs = launcher.submit(family)
    assert [each.id for each in jobs.values()] == ["101_0", "101_1", "101_3"]
    assert slurm.calls("sbatch") == 1
    assert len(said) == 1
    assert TIMED_OUT in said[0]
    assert "looking whether run-e0001-rollout was accepted all the same" in said[0]


def test_a_single_job_is_found_by_its_key_too(slurm: FakeSlurm, launcher: SlurmLauncher, tmp_path: Path) -> None:
    slurm.trouble(late=TIMED_OUT)
    (found,) = launcher.submit(made(tmp_path, "run-1:e0001-update:1")).values()
    assert found == Job("run-1:e0001-update:1", "100", HOST)


def test_an_sbatch_that_times_out_without_accepting_leaves_it_open(
    slurm: FakeSlurm, launcher: SlurmLauncher, family: Request
) -> None:
    slurm.show("50_0", "RUNNING", KEY.replace(":1", ":2"))  # of another attempt
    slurm.trouble(sbatch=TIMED_OUT)
    with pytest.raises(Unanswered, match="Socket timed out"):
        launcher.submit(family)
    assert slurm.calls("sbatch") == 1
    assert slurm.calls("squeue") == 2
    slurm.trouble(sbatch=TIMED_OUT, squeue=TIMED_OUT)
    with pytest.raises(Unanswered, match="^sbatch: .*Socket timed out"):
        launcher.submit(family)


@pytest.mark.parametrize(
    ("complaint", "kind"),
    [("invalid partition specified: nowhere", LaunchError), ("QOSMaxSubmitJobPerUserLimit", TryLater)],
)
def test_an_sbatch_that_fails_for_good_submits_nothing(
    slurm: FakeSlurm, launcher: SlurmLauncher, family: Request, complaint: str, kind: type[Exception]
) -> None:
    slurm.trouble(sbatch=complaint)
    with pytest.raises(kind, match=f"^sbatch: {complaint}$"):
        launcher.submit(family)
    assert (slurm.ids(), slurm.calls("squeue")) == ([], 0)
    slurm.trouble()
    assert len(launcher.submit(family)) == 3, "the same folder takes it later"


def test_live_jobs_are_found_by_key_tasks_of_arrays_one_by_one(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    slurm.show("5_0", "RUNNING")
    slurm.show("5_12", "PENDING")
    slurm.show("5_13", "COMPLETED")
    slurm.show("6", "RUNNING", "run-1:e0001-update:1")
    slurm.show("7", "RUNNING", "run-2:e0001-update:1")
    slurm.show("8", "RUNNING", "")
    assert launcher.find("run-1:") == {
        "run-1:e0001-rollout-s0000:1": Job("run-1:e0001-rollout-s0000:1", "5_0", HOST),
        "run-1:e0001-rollout-s0012:1": Job("run-1:e0001-rollout-s0012:1", "5_12", HOST),
        "run-1:e0001-update:1": Job("run-1:e0001-update:1", "6", HOST),
    }
    assert list(launcher.find("run-1:e0001-update")) == ["run-1:e0001-update:1"]
    slurm.trouble(squeue=TIMED_OUT)
    with pytest.raises(Unanswered):
        launcher.find("run-1:")


def test_a_prefix_may_end_within_the_index(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    slurm.show("5_12", "PENDING")
    assert list(launcher.find("run-1:e0001-rollout-s0012:")) == ["run-1:e0001-rollout-s0012:1"]


def test_cancel_ends_what_is_named_and_nothing_else(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    for id_ in ("5_0", "5_1", "6"):
        slurm.show(id_, "RUNNING")
    launcher.cancel([job("5_0"), job("6"), job("99"), Job("key", "1.1.boot", "laptop")])
    states = {id_: launcher.poll([job(id_)])[job(id_).key].state for id_ in ("5_0", "5_1", "6")}
    assert states == {"5_0": State.ENDED, "5_1": State.RUNNING, "6": State.ENDED}
    launcher.cancel([])
    assert slurm.calls("scancel") == 1


def test_a_job_that_does_not_end_is_named(
    slurm: FakeSlurm, launcher: SlurmLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CANCEL_SECONDS", 0.1)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    slurm.show("5", "RUNNING", stubborn=True)
    with pytest.raises(LaunchError, match=r"^5 did not end within 0 s of scancel$"):
        launcher.cancel([job("5")])


@pytest.mark.parametrize(
    ("shown", "remembered", "exit_code", "log", "expected"),
    [
        ("TIMEOUT", None, None, "", ("timeout", "TIMEOUT")),
        ("FAILED", None, None, "", ("crash", "FAILED")),
        ("FAILED", "OUT_OF_MEMORY", None, "", ("crash", "FAILED")),
        ("FAILED", None, 1, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", ("memory", "FAILED")),
        ("FAILED", None, STOPPED, "", ("preempted", "told to stop")),
        ("NODE_FAIL", None, STOPPED, "", ("node", "NODE_FAIL")),
        (None, "NODE_FAIL", None, "", ("node", "NODE_FAIL")),
        (None, "CANCELLED by 1001", 1, "", ("cancelled", "CANCELLED by 1001")),
        (None, "OUT_OF_MEMORY", 1, "", ("memory", "OUT_OF_MEMORY")),
        (None, "COMPLETED", 0, "", ("crash", "COMPLETED")),
        (None, None, None, "", ("crash", "")),
        (None, None, STOPPED, "", ("preempted", "told to stop")),
        (None, None, 1, "slurmstepd: error: Exceeded job memory limit", ("memory", "")),
    ],
)
def test_the_cause_of_an_end_comes_from_whoever_knows_it(
    slurm: FakeSlurm,
    launcher: SlurmLauncher,
    tmp_path: Path,
    shown: str | None,
    remembered: str | None,
    exit_code: int | None,
    log: str,
    expected: tuple[str, str],
) -> None:
    if shown:
        slurm.show("7", shown)
    if remembered:
        slurm.remember("7", "PREEMPTED", remembered)
    else:
        slurm.trouble(sacct="Slurm accounting storage is disabled")
    if exit_code is not None:
        (tmp_path / EXIT).write_text(f"{exit_code}\n")
    (tmp_path / LOG).write_text(log)
    for _ in range(2):  # what may be requeued is seen twice
        sight = launcher.poll([job("7")])[job("7").key]
    assert sight.state is State.ENDED
    assert batch.cause(job("7"), sight, tmp_path, time.time()) == expected


def test_a_job_without_any_trace_crashed(slurm: FakeSlurm, launcher: SlurmLauncher, tmp_path: Path) -> None:
    sight = launcher.poll([job("7")])[job("7").key]
    assert batch.cause(job("7"), sight, tmp_path / "nowhere", time.time()) == ("crash", "")


def test_what_was_settled_is_forgotten(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    slurm.show("7", "PREEMPTED")
    launcher.poll([job("7")])
    launcher.tidy([job("7")])
    assert launcher.poll([job("7")])[job("7").key].state is State.WAITING, "it is seen for the first time again"
    launcher.close()
    assert slurm.calls("scancel") == 0


def test_a_link_of_a_chain_requeues_itself(slurm: FakeSlurm, tmp_path: Path) -> None:
    request = made(tmp_path, "run-1:e0001-update:1")
    unattended = SlurmLauncher(requeues_itself=True)
    assert "scontrol requeue" not in SlurmLauncher().write(request).read_text()
    unattended.submit(request)
    assert "scontrol requeue" in (request.folder / SCRIPT).read_text()
