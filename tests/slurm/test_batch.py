"""The launcher of Slurm's jobs, against commands that do what they are told: every trouble of a controller at will."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from slurm import batch
from slurm.batch import HOST, SlurmLauncher
from slurm.client import Unanswered
from slurm.launcher import EXIT, LOG, SCRIPT, STOPPED, Job, LaunchError, Request, TryLater
from slurm.options import Options
from slurm.states import State

KEY = "run-1:e0001-rollout-s%4a:1"
TIMED_OUT = "Socket timed out on send/recv operation"
NOW = "2026-11-25T10:00:00"
# All four commands: jobs.json holds what squeue shows, trouble.json what fails, calls.jsonl who was called with what.
PROGRAM = f'''#!{sys.executable} -IS
import getpass, json, re, sys
from pathlib import Path
here, name, arguments = Path(__file__).parent, Path(sys.argv[0]).name, sys.argv[1:]
def load(what): return json.loads((here / what).read_text()) if (here / what).exists() else {{}}
with (here / "calls.jsonl").open("a") as log: log.write(json.dumps([name, *arguments]) + "\\n")
jobs, trouble = load("jobs.json"), load("trouble.json")
if name in trouble:
    sys.exit(f"{{name}}: error: " + trouble[name])
if name == "sbatch":
    header = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", Path(arguments[-1]).read_text(), flags=re.M))
    base = str(100 + len({{id_.partition("_")[0] for id_ in jobs}}))
    tasks = [None]
    if array := header.get("array"):
        spans = [[int(end) for end in part.split("-")] for part in array.partition("%")[0].split(",")]
        tasks = [index for span in spans for index in range(span[0], span[-1] + 1)]
    for task in tasks:
        id_ = base if task is None else f"{{base}}_{{task}}"
        jobs[id_] = {{"state": "PENDING", "reason": "Priority", "index": task, "comment": header["comment"]}}
    (here / "jobs.json").write_text(json.dumps(jobs))
    if "late" in trouble: sys.exit("sbatch: error: Batch job submission failed: " + trouble["late"])
    print(base)
elif name == "squeue":
    given = next(a for a in arguments if a.startswith("--format=")).removeprefix("--format=")
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY")
    for id_, job in jobs.items():
        if job["state"] in ended and "--states=all" not in arguments: continue
        fields = {{
            "i": id_, "K": "N/A" if job.get("index") is None else job["index"], "T": job["state"],
            "r": job.get("reason", "None"), "N": job.get("nodes", ""), "k": job["comment"] or "(null)",
            "V": job.get("submitted", "{NOW}"), "S": job.get("started", "N/A"), "e": job.get("ended", "N/A"),
        }}
        print(re.sub("%(.)", lambda found: str(fields[found[1]]), given))
elif name == "scancel":
    for id_ in arguments:
        if id_ in jobs and not jobs[id_].get("stubborn"): jobs[id_]["state"] = "CANCELLED"
    (here / "jobs.json").write_text(json.dumps(jobs))
elif name == "sacct":
    wanted = arguments[arguments.index("--jobs") + 1]
    print("".join(f"{{state}}|{NOW}\\n" for state in load("accounting.json").get(wanted, [])), end="")
'''


class FakeSlurm:
    """What the commands on PATH believe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "scancel", "sacct"):
            (folder / name).write_text(PROGRAM)
            (folder / name).chmod(0o755)

    def show(self, id_: str, state: str, comment: str = KEY, **more: Any) -> None:
        """Have squeue show a job like this from now on."""
        index = int(id_.partition("_")[2]) if "_" in id_ else None
        jobs = {**self._load("jobs.json"), id_: {"state": state, "comment": comment, "index": index, **more}}
        self._save("jobs.json", jobs)

    def forget(self, *ids: str) -> None:
        """Have squeue show jobs no longer."""
        self._save("jobs.json", {id_: job for id_, job in self._load("jobs.json").items() if id_ not in ids})

    def remember(self, id_: str, *states: str) -> None:
        """Have accounting know states of a job, the newest last."""
        self._save("accounting.json", {**self._load("accounting.json"), id_: states})

    def trouble(self, **commands: str) -> None:
        """Have commands fail with a message; `late` is an sbatch that fails after the job is accepted."""
        self._save("trouble.json", commands)

    def ids(self) -> list[str]:
        return list(self._load("jobs.json"))

    def calls(self, name: str) -> int:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(json.loads(line)[0] == name for line in lines)

    def _load(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def _save(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / name).write_text(json.dumps(content))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(batch, "LOOKS", (0.0, 0.0))
    return FakeSlurm(folder)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def launcher(said: list[str]) -> SlurmLauncher:
    """Looks at every poll."""
    return SlurmLauncher(0.0, say=said.append)


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


def job(id_: str, key: str = "run-1:e0001-rollout-s0000:1") -> Job:
    return Job(key, id_, HOST)


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
