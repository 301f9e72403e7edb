"""What the launcher of Slurm's jobs sees of them in the queue, when it holds them for ended, and how often it looks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from slurm.batch import SlurmLauncher
from slurm.launcher import Job
from slurm.states import State
from tests.slurm.fake_slurm_for_tests import NOW, TIMED_OUT, FakeSlurm, job


@pytest.mark.parametrize(
    ("state", "more", "expected"),
    [
        ("PENDING", {"reason": "Resources"}, (State.WAITING, "PENDING (Resources)", "", None)),
        ("RUNNING", {"nodes": "sim0", "started": NOW}, (State.RUNNING, "RUNNING", "sim0", None)),
        ("COMPLETING", {"nodes": "sim0"}, (State.RUNNING, "COMPLETING", "sim0", None)),
        ("COMPLETED", {"nodes": "sim0"}, (State.ENDED, "COMPLETED", "sim0", None)),
        ("FAILED", {"nodes": "sim0"}, (State.ENDED, "FAILED", "sim0", "crash")),
        ("TIMEOUT", {}, (State.ENDED, "TIMEOUT", "", "timeout")),
        ("OUT_OF_MEMORY", {}, (State.ENDED, "OUT_OF_MEMORY", "", "memory")),
        ("CANCELLED", {}, (State.ENDED, "CANCELLED", "", "cancelled")),
    ],
)
def test_what_is_seen_of_a_job(
    slurm: FakeSlurm, launcher: SlurmLauncher, state: str, more: dict[str, str], expected: tuple[Any, ...]
) -> None:
    slurm.show("7", state, **more)
    (sight,) = launcher.poll([job("7")]).values()
    assert (sight.state, sight.detail, sight.node, sight.cause) == expected


def test_times_of_a_job_are_told(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    times = {"submitted": "2026-11-25T10:00:00", "started": "2026-11-25T10:10:00", "ended": "2026-11-25T10:40:00"}
    slurm.show("7", "FAILED", **times)
    slurm.show("8", "PENDING", submitted=times["submitted"], started="2099-01-01T00:00:00")
    ended, waiting = launcher.poll([job("7", "a"), job("8", "b")]).values()
    assert (ended.queued, ended.seconds, ended.starts_at) == (600.0, 1800.0, None)
    assert waiting.seconds is None
    assert waiting.starts_at is not None
    assert waiting.starts_at > time.time(), "when Slurm expects to start it"


def test_a_job_that_is_gone_from_the_queue_has_ended(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    slurm.show("7", "RUNNING")
    assert launcher.poll([job("7")])[job("7").key].state is State.RUNNING
    slurm.forget("7")
    (sight,) = launcher.poll([job("7")]).values()
    assert (sight.state, sight.detail, sight.cause) == (State.ENDED, "gone from the queue", None)


def test_nothing_ends_while_slurm_does_not_answer_and_that_is_said_once(
    slurm: FakeSlurm, launcher: SlurmLauncher, said: list[str]
) -> None:
    slurm.show("7", "RUNNING")
    launcher.poll([job("7")])
    slurm.forget("7")
    slurm.trouble(squeue=TIMED_OUT)
    for _ in range(3):
        assert launcher.poll([job("7")])[job("7").key].state is State.RUNNING
    assert said == [f"squeue: {TIMED_OUT}; going on with what was known"]
    slurm.trouble()
    assert launcher.poll([job("7")])[job("7").key].state is State.ENDED
    assert said[1:] == ["Slurm answers again"]
    slurm.trouble(squeue=TIMED_OUT)
    launcher.poll([job("7")])
    assert len(said) == 3, "the next time is news"


def test_nothing_ends_before_slurm_has_answered_for_the_first_time(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    slurm.show("7", "RUNNING")
    slurm.trouble(squeue=TIMED_OUT)
    for _ in range(2):
        assert launcher.poll([job("7")])[job("7").key].state is State.WAITING
    slurm.trouble()
    assert launcher.poll([job("7")])[job("7").key].state is State.RUNNING


def test_a_job_that_the_last_look_could_not_show_has_not_ended(slurm: FakeSlurm) -> None:
    launcher = SlurmLauncher(0.5)
    launcher.poll([job("7")])
    slurm.show("8", "RUNNING", "run-1:e0001-update:1")
    (late,) = launcher.find("run-1:").values()
    assert launcher.poll([late])[late.key].state is not State.ENDED
    time.sleep(0.5)
    assert launcher.poll([late])[late.key].state is State.RUNNING


def test_a_complaint_of_squeue_that_nobody_foresaw_ends_neither_jobs_nor_run(
    slurm: FakeSlurm, launcher: SlurmLauncher, said: list[str]
) -> None:
    slurm.show("7", "RUNNING")
    launcher.poll([job("7")])
    slurm.trouble(squeue="Insane message length")
    assert launcher.poll([job("7")])[job("7").key].state is State.RUNNING
    assert len(said) == 1


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_what_slurm_may_take_back_is_an_end_when_it_is_seen_twice(
    slurm: FakeSlurm, launcher: SlurmLauncher, state: str
) -> None:
    slurm.show("7", state)
    assert launcher.poll([job("7")])[job("7").key].state is State.WAITING
    slurm.show("7", "PENDING", reason="BeginTime")
    assert launcher.poll([job("7")])[job("7").key].state is State.WAITING
    slurm.show("7", "RUNNING")
    assert launcher.poll([job("7")])[job("7").key].state is State.RUNNING
    for expected in (State.WAITING, State.ENDED):
        slurm.show("8", state)
        (sight,) = launcher.poll([job("8", "other")]).values()
        assert sight.state is expected
    assert sight.cause == {"PREEMPTED": "preempted", "NODE_FAIL": "node"}[state]


def test_two_preemptions_with_a_run_between_are_not_seen_twice(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    for state, expected in (
        ("PREEMPTED", State.WAITING),
        ("RUNNING", State.RUNNING),
        ("PREEMPTED", State.WAITING),
        ("PREEMPTED", State.ENDED),
    ):
        slurm.show("7", state)
        assert launcher.poll([job("7")])[job("7").key].state is expected


def test_one_look_is_one_sight_however_often_it_is_asked_for(slurm: FakeSlurm) -> None:
    launcher = SlurmLauncher(1000.0)
    slurm.show("7", "PREEMPTED")
    for _ in range(3):
        assert launcher.poll([job("7")])[job("7").key].state is State.WAITING
    assert slurm.calls("squeue") == 1


def test_the_queue_is_not_asked_more_often_than_the_pace_allows(slurm: FakeSlurm) -> None:
    launcher = SlurmLauncher(0.6)
    slurm.show("7", "RUNNING")
    begun, polls = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < 1.5:
        launcher.poll([job("7")])
        polls += 1
        time.sleep(0.01)
    assert polls > 20
    assert 2 <= slurm.calls("squeue") <= 1 + passed / 0.6
    slurm.trouble(squeue=TIMED_OUT)
    before = slurm.calls("squeue")
    for _ in range(20):
        launcher.poll([job("7")])
    assert slurm.calls("squeue") <= before + 1, "a controller in trouble is not asked more often either"


def test_signs_of_an_end_bring_the_next_look_forward_to_a_second(slurm: FakeSlurm) -> None:
    launcher = SlurmLauncher(1000.0)
    slurm.show("7", "RUNNING")
    launcher.poll([job("7")])
    slurm.show("7", "COMPLETED")
    begun = time.monotonic()
    while launcher.poll([job("7")])[job("7").key].state is State.RUNNING:
        assert time.monotonic() - begun < 10
        launcher.hurry()
        time.sleep(0.02)
    assert time.monotonic() - begun > 0.9
    assert slurm.calls("squeue") == 2


def test_no_job_is_no_question(slurm: FakeSlurm, launcher: SlurmLauncher) -> None:
    elsewhere = Job("run-1:e0000-sft:1", "1.1.boot", "laptop")
    assert launcher.poll([]) == {}
    assert launcher.poll([elsewhere])[elsewhere.key].state is State.LOST
    assert slurm.calls("squeue") == 0
