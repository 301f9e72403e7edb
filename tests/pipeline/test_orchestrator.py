"""What the loop submits, and what again after which end; jobs here are no processes, they end as the test says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline import orchestrator, resources
from pipeline.artifacts import Unit, attempt_directory
from pipeline.errors import UserError
from pipeline.ledger import read
from pipeline.orchestrator import drive
from slurm.client import Unanswered
from slurm.launcher import LOG, Job, LaunchError, Request, TryLater
from slurm.states import Cause
from tests.pipeline.scripted_launcher_for_tests import WORDS, Scripted, attempts, carry_out, new_run, prepare, records

SFT = Unit(0, "sft")


@pytest.fixture(autouse=True)
def _fakes_and_an_sbatch_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch)


def test_without_trouble_every_unit_is_submitted_once_and_shards_together(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=2)
    launcher = Scripted(run)
    last = carry_out(run, launcher)
    assert {state.status for state in last.units} == {"published"}
    assert set(attempts(run).values()) == {1}
    names = [request.name for request in launcher.requests]
    assert len(names) == len(set(names)) == 8, "the shards of an epoch are one request"
    ended = records(run)
    assert {each["outcome"] for each in ended} == {"published"}
    assert {each["node"] for each in ended} == {"sim0"}
    assert launcher.asked == {"hurry": 0, "find": 0, "cancel": 0}


def test_one_stage_alone_is_carried_out_and_the_whole_run_goes_on_from_it(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, demonstrate={"shards": 3})
    launcher = Scripted(run, {"e0000-demonstrate-s0001": ["crash"]})
    ended: list[Path] = []
    last = drive(
        run,
        lambda snapshot: None,
        conclude=ended.append,
        launcher=launcher,
        cores=8,
        say=lambda line: None,
        stages=("demonstrate",),
    )
    assert [(state.unit.stage, state.status) for state in last.units] == [("demonstrate", "published")] * 3
    assert ended == [run]
    assert {state.unit.stage for state in read(run).units if state.status == "published"} == {"demonstrate"}
    assert attempts(run)["e0000-demonstrate-s0001"] == 2
    carry_out(run, launcher)
    assert {state.status for state in read(run).units} == {"published"}
    assert [request.name for request in launcher.requests].count("run-e0000-demonstrate") == 2


def test_preemptions_and_lost_nodes_do_not_use_up_the_tries_at_a_crash(tmp_path: Path) -> None:
    run = new_run(tmp_path, max_attempts=3, slurm={"max_requeues": 3})
    ends: list[Cause] = ["preempted", "crash", "node", "preempted", "node", "crash"]
    carry_out(run, Scripted(run, {"e0000-sft": ends}))
    assert attempts(run)["e0000-sft"] == 7
    assert [each["cause"] for each in records(run, unit=SFT)[:-1]] == ends


@pytest.mark.parametrize(
    ("cause", "limit", "told", "remedy"),
    [
        ("crash", 2, "2 x crashed", "the same command tries again"),
        ("memory", 2, "2 x ran out of memory", "--mem 64G`, or slurm.sft.mem and slurm.mem_growth"),
        ("timeout", 2, "2 x reached its time limit", "--time 8:00:00`, or slurm.sft.time and slurm.time_growth"),
        ("cancelled", 2, "2 x was cancelled", "the same command tries again"),
        ("preempted", 4, "4 x was told to make room", "the same command tries again"),
        ("node", 4, "4 x lost its node", "the same command tries again"),
    ],
)
def test_each_cause_has_its_limit_its_words_and_its_remedy(
    tmp_path: Path, cause: Cause, limit: int, told: str, remedy: str
) -> None:
    run = new_run(tmp_path, max_attempts=2, slurm={"max_requeues": 4})
    launcher = Scripted(run, {"e0000-sft": [cause] * limit})
    with pytest.raises(UserError) as caught:
        carry_out(run, launcher)
    message = str(caught.value)
    assert message.startswith(f"e0000-sft failed {limit} times ({told}; ")
    assert f"attempt {limit}: {WORDS[cause]}: last words of a {cause}\n  last words of a {cause}\n" in message
    assert f"full log: {attempt_directory(run, SFT, limit) / LOG}; " in message
    assert message.endswith(remedy)
    carry_out(run, launcher)
    assert attempts(run)["e0000-sft"] == limit + 1, "the same command tries again"


def test_several_causes_are_told_apart(tmp_path: Path) -> None:
    run = new_run(tmp_path, max_attempts=2)
    with pytest.raises(UserError, match=r"failed 4 times \(2 x crashed, 1 x was told to make room, 1 x ran out of mem"):
        carry_out(run, Scripted(run, {"e0000-sft": ["crash", "preempted", "memory", "crash"]}))


def test_the_limit_that_was_reached_is_the_one_that_is_named(tmp_path: Path) -> None:
    run = new_run(tmp_path, slurm={"max_requeues": 4})
    with pytest.raises(UserError, match=r"\(4 x was told to make room; slurm\.max_requeues=4\)"):
        carry_out(run, Scripted(run, {"e0000-sft": ["preempted"] * 4}))


@pytest.mark.parametrize("placed", [False, True])
def test_on_slurm_shards_are_one_array_whatever_gpus_they_would_have_here(tmp_path: Path, placed: bool) -> None:
    cells = {"component_placement": {"env": "0-1", "rollout": "2-3", "actor": "0-3"}}
    run = new_run(tmp_path, epochs=1, **({"cluster": cells} if placed else {}))
    launcher = Scripted(run)
    carry_out(run, launcher)
    assert [r.indices for r in launcher.requests if r.name == "run-e0001-rollout"] == [(0, 1)]


def test_on_slurm_cells_of_different_node_groups_are_arrays_of_their_own(tmp_path: Path) -> None:
    groups = [
        {"label": name, "node_ranks": node, "gpus_per_node": 2, "gpu_type": kind, "partition": name}
        for node, (name, kind) in enumerate([("old", "rtx"), ("new", "ada")])
    ]
    cluster = {"num_nodes": 2, "node_groups": groups, "component_placement": {"env,rollout": "0-3", "actor": "0-1"}}
    run = new_run(tmp_path, epochs=1, cluster=cluster, rollout={"shards": 4})
    launcher = Scripted(run)
    carry_out(run, launcher)
    rollouts = [r for r in launcher.requests if r.name == "run-e0001-rollout"]
    assert [(r.indices, r.options.partition, r.gpu_type) for r in rollouts] == [
        ((0, 1), "old", "rtx"),
        ((2, 3), "new", "ada"),
    ]


def test_a_unit_that_ran_out_of_something_gets_more_and_its_sisters_do_not(tmp_path: Path) -> None:
    slurm = {"mem": "1G", "time": 60, "mem_growth": 2.0, "time_growth": 3.0}
    run = new_run(tmp_path, epochs=1, slurm=slurm)
    ends: dict[str, list[Cause]] = {"e0001-rollout-s0001": ["memory", "memory", "timeout"], "e0000-sft": ["timeout"]}
    launcher = Scripted(run, ends)
    carry_out(run, launcher)
    asked = [(r.indices, r.options.mem, r.options.time) for r in launcher.requests if r.name == "run-e0001-rollout"]
    assert asked == [((0, 1), "1G", 60), ((1,), "2048M", 60), ((1,), "4096M", 60), ((1,), "4096M", 180)]
    assert [r.options.time for r in launcher.requests if r.name == "run-e0000-sft"] == [60, 180]
    assert [r.options.mem for r in launcher.requests if r.name == "run-e0001-update"] == ["1G"]


def test_shards_with_different_needs_are_submitted_apart(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, slurm={"mem": "1G", "mem_growth": 2.0, "max_requeues": 9})
    ends: dict[str, list[Cause]] = {"e0001-rollout-s0000": ["memory"], "e0001-rollout-s0001": ["preempted"]}
    launcher = Scripted(run, ends)
    carry_out(run, launcher)
    again = [(r.indices, r.options.mem) for r in launcher.requests if r.name == "run-e0001-rollout"][1:]
    assert sorted(again) == [((0,), "2048M"), ((1,), "1G")]


def test_a_limit_on_jobs_is_waited_out_said_once_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator, "RETRY_SECONDS", 0.05)
    run = new_run(tmp_path, max_attempts=1)
    launcher, said = Scripted(run), list[str]()
    launcher.troubles = [(TryLater("sbatch: QOSMaxSubmitJobPerUserLimit"), False)] * 3
    begun = time.monotonic()
    carry_out(run, launcher, said)
    assert time.monotonic() - begun > 3 * 0.05
    assert said == ["sbatch: QOSMaxSubmitJobPerUserLimit"]
    assert [each["outcome"] for each in records(run)].count("unsubmitted") == 3
    assert not [each for each in records(run) if each["outcome"] == "failed"]
    assert len(launcher.requests) == 3


def test_what_runs_is_settled_while_a_limit_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator, "RETRY_SECONDS", 0.3)
    run = new_run(tmp_path, epochs=1)
    shown: list[dict[str, str]] = []

    class Limited(Scripted):
        def submit(self, request: Request) -> dict[str, Job]:
            if request.name == "run-e0001-rollout" and not self.asked["cancel"]:
                self.asked["cancel"] = 1
                raise TryLater("sbatch: QOSMaxSubmitJobPerUserLimit")
            return super().submit(request)

    drive(
        run,
        lambda snapshot: shown.append({str(state.unit): state.status for state in snapshot.units}),
        launcher=Limited(run),
        cores=8,
        say=lambda line: None,
    )
    meanwhile = [each for each in shown if each["e0001-rollout-s0000"] == "waiting"]
    assert meanwhile[-1]["e0000-sft"] == "published"
    assert attempts(run)["e0001-rollout-s0000"] == 2


def test_a_refusal_of_slurm_names_the_place_and_the_script_and_ends_the_submission(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    launcher = Scripted(run)
    launcher.troubles = [(LaunchError("sbatch: invalid partition specified: nowhere"), False)]
    with pytest.raises(UserError) as caught:
        carry_out(run, launcher)
    script = attempt_directory(run, Unit(0, "demonstrate", 0), 1) / "sbatch.sh"
    assert str(caught.value) == (
        "run-e0000-demonstrate: sbatch: invalid partition specified: nowhere; mend slurm.demonstrate or slurm, and "
        f"run the same command again (the script: {script})"
    )
    (end,) = records(run)
    assert (end["outcome"], end["error"]) == ("unsubmitted", "sbatch: invalid partition specified: nowhere")
    carry_out(run, launcher)
    assert set(attempts(run).values()) == {1, 2}


@pytest.mark.parametrize("accepted", [True, False])
def test_a_submission_without_an_answer_is_looked_for_before_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    monkeypatch.setattr(orchestrator, "RETRY_SECONDS", 0.05)
    run = new_run(tmp_path, max_attempts=1)
    launcher, said = Scripted(run), list[str]()
    launcher.troubles = [(Unanswered("sbatch: Socket timed out"), accepted)]
    launcher.find_troubles = [Unanswered("squeue: Socket timed out")]
    carry_out(run, launcher, said)
    assert said == [
        "sbatch: Socket timed out; whether e0000-demonstrate-s0000 was accepted will show",
        "squeue: Socket timed out; whether everything was submitted will show",
    ]
    assert launcher.asked["find"] == 2
    assert attempts(run)["e0000-demonstrate-s0000"] == (1 if accepted else 2)
    assert len(launcher.requests) == 3, "nothing was accepted twice"


def test_every_shard_gets_the_gpus_of_its_own_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "machine_gpus", lambda: 4)
    cells = {"component_placement": {"env": "0-1", "rollout": "2-3", "actor": "0-3"}}
    run = new_run(tmp_path, epochs=1, cluster=cells, slurm={"launcher": "local"})
    launcher = Scripted(run)
    carry_out(run, launcher)
    members = [single for request in launcher.requests for single in request.members().values()]
    assert {single.key.split(":")[1]: single.seat.devices for single in members} == {
        "e0000-demonstrate-s0000": (0,),
        "e0000-sft": (0, 1, 2, 3),
        "e0000-evaluate": (0, 2),
        "e0001-rollout-s0000": (0, 2),
        "e0001-rollout-s0001": (1, 3),
        "e0001-update": (0, 1, 2, 3),
        "e0001-evaluate": (0, 2),
    }
