"""What kills an orchestrator or a stage, and what must come out all the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifacts import Unit, attempt_directory, open_artifact
from pipeline.cancel import cancel
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ledger import Snapshot, published, read, run_plan
from pipeline.orchestrator import drive
from pipeline.rerun import rerun
from pipeline.rundir import create_or_resume, identity
from slurm.local import LocalLauncher
from slurm.processes import marked

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def _fakes_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))


def new_run(folder: Path, epochs: int, *, follow: bool = False, minutes: int = 240, **knobs: object) -> Path:
    config = Config.model_validate(
        {
            "name": "run",
            "runs_dir": str(folder),
            "epochs": epochs,
            "demonstrate": {"shards": min(2, 1 + epochs)},
            "sft": {"threads": 1},
            "rollout": {"shards": 2},
            "update": {"threads": 1},
            "slurm": {"launcher": "local", "poll_seconds": 0.05, "follow": follow, "time": minutes},
            "trainer": {"logger": {"mlflow": {"enable": False}}},
        }
    )
    run = create_or_resume(config)
    (run / "fake.json").write_text(json.dumps(knobs))
    return run


def carry_out(run: Path) -> Snapshot:
    return drive(run, lambda snapshot: None, stages_package="fake_stages", cores=2)


def start_driver(run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "drive_fake.py"), str(run)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def digests(run: Path) -> dict[str, str]:
    found = {}
    for plan in run_plan(run, read(run).config):
        for part, relative in plan.unit.outputs.items():
            if part == "engine":
                continue  # only the newest are kept
            artifact = open_artifact(run / relative)
            assert artifact is not None, f"{relative} is missing"
            found[relative] = artifact.verify().digest
    return found


def executions(run: Path) -> dict[str, list[tuple[float, str, int]]]:
    """Unit -> (time, start or end, pid) of each process that worked on it."""
    found: dict[str, list[tuple[float, str, int]]] = {}
    for line in (run / "fake.log").read_text().splitlines():
        moment, what, unit, pid = json.loads(line)
        found.setdefault(unit, []).append((moment, what, pid))
    return found


def stage_pids(run: Path, unit: str) -> list[int]:
    return [pid for pid, key in marked("BATON_KEY", f"{identity(run)['id']}:{unit}:").items()]


def wait_for(run: Path, unit: str) -> int:
    """Pid of the process that works on a unit, once it does."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (run / "fake.log").exists() and unit in (log := executions(run)):
            return log[unit][-1][2]
        time.sleep(0.05)
    raise AssertionError(f"{unit} did not start")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))
        run = new_run(tmp_path_factory.mktemp("undisturbed"), epochs=3)
        last = carry_out(run)
    assert [state.status for state in last.units] == ["published"] * 14
    assert all(len(log) == 2 for log in executions(run).values()), "a unit ran twice"
    assert not marked("BATON_KEY", identity(run)["id"])
    return run


def test_killed_orchestrators_lose_nothing_and_double_nothing(tmp_path: Path, undisturbed: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    run = new_run(tmp_path, epochs=3, seconds=0.1)
    for _ in range(6):
        driver = start_driver(run)
        time.sleep(moments.uniform(0.3, 1.6))
        driver.kill()
        driver.wait()
    driver = start_driver(run)
    _, complaint = driver.communicate(timeout=60)
    assert driver.returncode == 0, complaint
    assert digests(run) == digests(undisturbed)
    for unit, log in executions(run).items():
        assert [what for _, what, _ in log] == ["start", "end"], f"{unit} ran more than once: {log}"


def test_a_kill_between_submission_and_its_record_doubles_nothing(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class DiesAfterSubmitting(LocalLauncher):
        def submit(self, request):  # type: ignore[no-untyped-def]
            super().submit(request)
            raise Killed

    run = new_run(tmp_path, epochs=0, seconds=0.5)
    with pytest.raises(Killed):
        drive(run, lambda snapshot: None, stages_package="fake_stages", cores=2, launcher=DiesAfterSubmitting())
    carry_out(run)
    assert all(len(log) == 2 for log in executions(run).values())
    assert all(state.attempts == 1 for state in read(run).units)


def test_a_killed_stage_is_tried_again(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, seconds=0.5)
    driver = start_driver(run)
    os.kill(wait_for(run, "e0000-sft"), signal.SIGKILL)
    _, complaint = driver.communicate(timeout=60)
    assert driver.returncode == 0, complaint
    states = {str(state.unit): state for state in read(run).units}
    assert states["e0000-sft"].attempts == 2
    assert states["e0000-sft"].attempt == 2
    assert states["e0000-evaluate"].attempts == 1


def test_a_stage_that_keeps_crashing_stops_the_run_with_its_log(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, crash={"e0000-sft": 3})
    with pytest.raises(UserError) as caught:
        carry_out(run)
    message = str(caught.value)
    assert "e0000-sft failed 3 times (3 x crashed; max_attempts=3); attempt 3" in message
    assert "RuntimeError: e0000-sft was asked to crash" in message
    log = Path(message.split("full log: ")[1].split(";")[0])
    assert log.is_file()
    assert attempt_directory(run, Unit(0, "sft"), 3) == log.parent
    assert {str(s.unit): s.status for s in read(run).units}["e0000-sft"] == "failed"
    carry_out(run)  # the fourth attempt is not asked to crash
    assert published(run, Unit(0, "evaluate"))


def test_a_users_mistake_stops_the_run_with_its_line(tmp_path: Path) -> None:
    line = "policy.checkpoint=/nowhere does not exist: give a directory"
    run = new_run(tmp_path, epochs=0, refuse={"e0000-sft": line})
    with pytest.raises(UserError, match="^policy.checkpoint=/nowhere does not exist: give a directory$"):
        carry_out(run)
    assert len(executions(run)["e0000-sft"]) == 1, "a mistake is not worth a second attempt"


def test_a_second_orchestrator_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, hang=["e0000-demonstrate-s0000"])
    driver = start_driver(run)
    try:
        wait_for(run, "e0000-demonstrate-s0000")
        with pytest.raises(UserError, match=rf"already driven by process {driver.pid} on"):
            carry_out(run)
    finally:
        cancel(run)
        driver.communicate(timeout=10)


def test_cancel_leaves_no_process_and_the_run_can_go_on(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, hang=["e0000-demonstrate-s0000"], child=["e0000-demonstrate-s0000"])
    driver = start_driver(run)
    wait_for(run, "e0000-demonstrate-s0000")
    time.sleep(0.3)  # the child, in a session of its own, is up
    assert len(stage_pids(run, "e0000-demonstrate-s0000")) == 3
    assert "e0000-demonstrate-s0000" in cancel(run)
    driver.communicate(timeout=10)
    assert not marked("BATON_KEY", identity(run)["id"])
    assert read(run).driver is None
    assert "running" not in {state.status for state in read(run).units}
    (run / "fake.json").write_text("{}")
    carry_out(run)
    assert published(run, Unit(0, "evaluate"))


def test_ctrl_c_detaches_and_the_units_go_on(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, seconds=1.5)
    driver = start_driver(run)
    wait_for(run, "e0000-demonstrate-s0000")
    os.killpg(driver.pid, signal.SIGINT)
    driver.communicate(timeout=10)
    assert read(run).driver is None
    deadline = time.monotonic() + 20
    while published(run, Unit(0, "demonstrate", 0)) is None:
        assert time.monotonic() < deadline, "the unit died with its orchestrator"
        time.sleep(0.1)


def test_rerun_supersedes_what_was_made_from_it_and_nothing_else(undisturbed: Path) -> None:
    run = undisturbed
    before, log = digests(run), executions(run)
    again = rerun(run, "rollout", 3, 1)
    assert [str(unit) for unit in again] == ["e0003-rollout-s0001", "e0003-update", "e0003-evaluate"]
    assert all(published(run, unit) is None for unit in again)
    assert not (run / "policies/0003").exists()
    assert len([p for p in (run / "superseded").iterdir() if p.is_dir()]) == 5
    carry_out(run)
    assert digests(run) == before
    repeated = {unit for unit, entries in executions(run).items() if len(entries) > len(log[unit])}
    assert repeated == {str(unit) for unit in again}


def test_rerun_names_what_it_cannot_do(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1)
    with pytest.raises(UserError, match="has no rollout --epoch 1 --shard 7"):
        rerun(run, "rollout", 1, 7)
    with pytest.raises(UserError, match="update --epoch 1 is not published yet"):
        rerun(run, "update", 1)


def test_a_stage_that_does_not_end_after_publishing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.orchestrator.CLOSING_SECONDS", 0.3)
    run = new_run(tmp_path, epochs=0, linger=["e0000-evaluate"], child=["e0000-sft"])
    carry_out(run)
    assert not marked("BATON_KEY", identity(run)["id"])


def pids(run: Path, stage: str) -> dict[str, int]:
    """Unit of a stage -> the process that ended it."""
    return {unit: log[-1][2] for unit, log in executions(run).items() if unit.split("-")[1] == stage}


def test_stages_that_stay_up_serve_one_orchestrator_after_the_other(tmp_path: Path, undisturbed: Path) -> None:
    run = new_run(tmp_path, epochs=3, follow=True, seconds=0.1)
    driver = start_driver(run)
    wait_for(run, "e0001-rollout-s0001")
    driver.kill()
    driver.communicate()
    carry_out(run)
    assert digests(run) == digests(undisturbed)
    for unit, log in executions(run).items():
        assert [what for _, what, _ in log] == ["start", "end"], f"{unit} ran more than once: {log}"
    rollouts = pids(run, "rollout")
    for shard in ("s0000", "s0001"):
        assert len({pid for unit, pid in rollouts.items() if unit.endswith(shard)}) == 1
    assert len(set(rollouts.values())) == 2
    assert len(set(pids(run, "update").values())) == len(set(pids(run, "evaluate").values())) == 1
    assert not marked("BATON_KEY", identity(run)["id"]), "they go when the run is done"


def test_a_stage_that_stays_up_and_dies_is_started_again(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, follow=True, seconds=0.5, crash={"e0000-evaluate": 1})
    driver = start_driver(run)
    first = wait_for(run, "e0000-evaluate")
    deadline = time.monotonic() + 30
    while (second := wait_for(run, "e0000-evaluate")) == first:
        assert time.monotonic() < deadline, "it did not start again"
        time.sleep(0.05)
    os.kill(second, signal.SIGKILL)
    _, complaint = driver.communicate(timeout=60)
    assert driver.returncode == 0, complaint
    states = {str(state.unit): state for state in read(run).units}
    assert (states["e0000-evaluate"].attempts, states["e0000-evaluate"].attempt, states["e0000-sft"].attempts) == (
        3,
        3,
        1,
    )
    assert pids(run, "evaluate")["e0000-evaluate"] not in (first, second)
    log = attempt_directory(run, Unit(0, "evaluate"), 1) / "log.txt"
    assert "RuntimeError: e0000-evaluate was asked to crash" in log.read_text(), "each unit has a log of its own"


def test_cancel_ends_stages_that_stay_up_too(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=0, follow=True, hang=["e0000-evaluate"])
    driver = start_driver(run)
    wait_for(run, "e0000-evaluate")
    assert cancel(run) == ("e0000-evaluate",)
    driver.communicate(timeout=10)
    assert not marked("BATON_KEY", identity(run)["id"])
    (run / "fake.json").write_text("{}")
    carry_out(run)
    assert published(run, Unit(0, "evaluate"))


def test_a_stage_that_stays_up_does_not_outstay_the_time_limit_of_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.orchestrator.OVERDUE_SECONDS", -57.0)  # the shortest limit is a minute
    run = new_run(tmp_path, epochs=0, follow=True, minutes=1, hang=["e0000-evaluate"])
    with pytest.raises(UserError, match=r"e0000-evaluate failed 3 times \(3 x reached its time limit"):
        carry_out(run)
    assert not marked("BATON_KEY", identity(run)["id"])
