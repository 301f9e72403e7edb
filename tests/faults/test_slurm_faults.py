"""What goes wrong on a cluster, done to a real one: the same command ends in the same artifacts all the same.

The stages are fakes without work; everything else is what users run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline import chain, jobs
from pipeline.artifacts import Unit, attempt_directory, open_artifact
from pipeline.cancel import cancel
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ledger import Snapshot, published, read, run_plan
from pipeline.orchestrator import drive
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume, identity
from slurm import client
from slurm.batch import SlurmLauncher
from slurm.cluster import Cluster
from slurm.processes import marked
from slurm.states import State, state_of

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIRST, SECOND = Unit(0, "demonstrate", 0), Unit(0, "demonstrate", 1)


@pytest.fixture(autouse=True)
def _on_the_cluster(idle_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Snapshot]]]:
    """Drives a run in a thread of this process."""
    with ThreadPoolExecutor(1) as pool:

        def start(run: Path, **options: Any) -> Future[Snapshot]:
            return pool.submit(drive, run, lambda snapshot: None, stages_package="fake_stages", **options)

        yield start


def new_run(folder: Path, epochs: int = 0, knobs: dict[str, object] | None = None, **slurm: Any) -> Path:
    config = Config.model_validate(
        {
            "name": "run",
            "runs_dir": str(folder),
            "epochs": epochs,
            "demonstrate": {"shards": 2},
            "sft": {"threads": 1},
            "rollout": {"shards": 2},
            "update": {"threads": 1},
            "slurm": {
                "launcher": "slurm",
                "poll_seconds": 0.05,
                "query_seconds": 1,
                "update": {"partition": "train"},
                **slurm,
            },
            "trainer": {"logger": {"mlflow": {"enable": False}}},
        }
    )
    run = create_or_resume(resolve(config))
    (run / "fake.json").write_text(json.dumps(knobs or {}))
    return run


def carry_out(run: Path) -> Snapshot:
    return drive(run, lambda snapshot: None, stages_package="fake_stages")


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


def executions(run: Path, unit: Unit) -> list[str]:
    """`start` and `end` of each process that worked on a unit, in order."""
    log = run / "fake.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [what for _, what, name, _ in lines if name == str(unit)]


def started(run: Path, unit: Unit, times: int = 1) -> Callable[[], bool]:
    return lambda: executions(run, unit).count("start") >= times


def job_of(run: Path, unit: Unit) -> str:
    record = jobs.histories(run)[unit].open
    assert record is not None
    return record.job


def attempts(run: Path) -> dict[str, int]:
    return {str(state.unit): state.attempts for state in read(run).units}


def complete(run: Path) -> bool:
    plans = run_plan(run, read(run).config)
    for plan in plans:
        for part, relative in plan.unit.outputs.items():
            if part != "engine":
                artifact = open_artifact(run / relative)
                assert artifact is not None, f"{relative} is missing"
                artifact.verify()
    return True


def in_queue() -> list[client.Entry]:
    return [entry for entry in client.queue() if state_of(entry.state) is not State.ENDED]


def fake_command(folder: Path, name: str, text: str) -> Path:
    """An executable that comes before the real one."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return folder


def test_stages_run_as_arrays_on_their_partitions_and_the_script_is_kept(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1)
    carry_out(run)
    assert complete(run)
    assert all(count == 1 for count in attempts(run).values())
    ended = {
        record["unit"]: record
        for record in map(json.loads, (run / jobs.FILE).read_text().splitlines())
        if record["event"] == "ended"
    }
    base = {ended[str(Unit(1, "rollout", shard))]["job"].split("_")[0] for shard in (0, 1)}
    assert len(base) == 1, "the shards of an epoch are one array"
    assert ended["e0001-update"]["node"].startswith("train")
    script = attempt_directory(run, Unit(1, "rollout", 1), 1) / "sbatch.sh"
    assert "#SBATCH --array=0-1" in script.read_text()
    assert script.samefile(attempt_directory(run, Unit(1, "rollout", 0), 1) / "sbatch.sh")


def test_a_preempted_stage_starts_again_under_the_same_id(
    tmp_path: Path, background: Callable[..., Future[Snapshot]]
) -> None:
    run = new_run(tmp_path, knobs={"seconds": 4.0}, demonstrate={"extra": {"exclusive": True}})
    driven = background(run)
    until(started(run, SECOND))
    until(started(run, FIRST))
    # Takes every node for itself.
    urgent = subprocess.run(
        [
            "sbatch",
            "--parsable",
            "--partition=urgent",
            "--nodes=4",
            "--exclusive",
            "--output=/dev/null",
            "--wrap=sleep 1",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    until(started(run, FIRST, 2), 90)
    driven.result(timeout=120)
    assert urgent
    assert complete(run)
    assert attempts(run)[str(FIRST)] == 1, "Slurm itself started it again"


def test_a_time_limit_is_a_cause_of_its_own_and_grows_if_the_config_says_so(tmp_path: Path) -> None:
    run = new_run(
        tmp_path,
        knobs={"hang": ["e0000-sft"]},
        sft={"time": 1},
        time_growth=2.0,
        signal_seconds=30,
    )
    with ThreadPoolExecutor(1) as pool:
        driven = pool.submit(carry_out, run)
        until(started(run, Unit(0, "sft")))
        until(started(run, Unit(0, "sft"), 2), 150)
        (run / "fake.json").write_text("{}")
        cancel_task = job_of(run, Unit(0, "sft"))
        subprocess.run(["scancel", cancel_task], check=True)
        driven.result(timeout=60)
    causes = [r.get("cause") for r in map(json.loads, (run / jobs.FILE).read_text().splitlines()) if r.get("cause")]
    # Slurm may signal a minute early: on a busy machine before the first try has said that it started.
    assert causes in (["timeout", "cancelled"], ["timeout", "timeout", "cancelled"])
    for number, minutes in zip(range(1, len(causes) + 1), (1, 2, 4), strict=False):
        script = (attempt_directory(run, Unit(0, "sft"), number) / "sbatch.sh").read_text()
        assert f"--time={minutes}\n" in script


def test_scancel_of_one_array_task_repeats_only_that(
    tmp_path: Path, background: Callable[..., Future[Snapshot]]
) -> None:
    run = new_run(tmp_path, knobs={"seconds": 3.0})
    driven = background(run)
    until(started(run, SECOND))
    (run / "fake.json").write_text("{}")
    subprocess.run(["scancel", job_of(run, SECOND)], check=True)
    driven.result(timeout=60)
    assert complete(run)
    assert (attempts(run)[str(FIRST)], attempts(run)[str(SECOND)]) == (1, 2)


def test_a_node_that_dies_in_mid_stage_and_comes_back(
    tmp_path: Path, background: Callable[..., Future[Snapshot]], cluster: Cluster
) -> None:
    run = new_run(tmp_path, knobs={"seconds": 2.0}, sft={"partition": "sim"})
    (run / "fake.json").write_text(json.dumps({"hang": ["e0000-sft"]}))
    driven = background(run)
    until(started(run, Unit(0, "sft")))
    node = next(entry.nodes for entry in in_queue() if "sft" in entry.comment)
    (run / "fake.json").write_text("{}")
    cluster.kill_node(node)
    until(started(run, Unit(0, "sft"), 2), 90)  # elsewhere, once Slurm has noticed
    cluster.start_node(node)
    driven.result(timeout=60)
    assert complete(run)


def test_a_restarted_controller_ends_nothing(
    tmp_path: Path, background: Callable[..., Future[Snapshot]], cluster: Cluster
) -> None:
    run = new_run(tmp_path, knobs={"seconds": 6.0})
    said: list[str] = []
    driven = background(run, say=said.append)
    until(started(run, SECOND))
    cluster.stop_controller()
    time.sleep(4)
    cluster.start_controller()
    driven.result(timeout=120)
    assert complete(run)
    assert all(count == 1 for count in attempts(run).values())


def test_a_run_needs_no_accounting(tmp_path: Path, cluster: Cluster) -> None:
    run = new_run(tmp_path)
    cluster.stop_accounting()
    try:
        carry_out(run)
    finally:
        cluster.start_accounting()
    assert complete(run)


@pytest.mark.parametrize(
    ("slurm", "reason"),
    [
        ({"demonstrate": {"partition": "nowhere"}}, "invalid partition"),
        ({"demonstrate": {"account": "nobody"}}, "[Ii]nvalid account"),
        ({"demonstrate": {"mem": "900G"}}, "not available"),
    ],
)
def test_what_slurm_refuses_is_one_line_and_leaves_nothing_in_the_queue(
    tmp_path: Path, slurm: dict[str, Any], reason: str
) -> None:
    run = new_run(tmp_path, **slurm)
    with pytest.raises(UserError, match=reason) as caught:
        carry_out(run)
    assert "slurm.demonstrate" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not in_queue()
    assert all(history.open is None for history in jobs.histories(run).values())


def test_a_limit_on_jobs_is_waited_out(
    tmp_path: Path, background: Callable[..., Future[Snapshot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.orchestrator.RETRY_SECONDS", 1.0)
    subprocess.run(["sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=1"], check=True)
    run = new_run(tmp_path)
    said: list[str] = []
    try:
        driven = background(run, say=said.append)
        until(lambda: any("MaxSubmit" in line or "limit" in line for line in said))
    finally:
        subprocess.run(["sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1"], check=True)
    driven.result(timeout=60)
    assert complete(run)
    assert len([line for line in said if "sbatch" in line]) == 1, "it is said once"


def test_an_sbatch_that_times_out_after_it_was_accepted_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("sbatch")
    text = (
        f'[ "$1" = --version ] && exec {real} "$@"\n'
        f'{real} "$@" >/dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out" >&2; exit 1'
    )
    folder = fake_command(tmp_path / "bin", "sbatch", text)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    run = new_run(tmp_path)
    carry_out(run)
    assert complete(run)
    for plan in run_plan(run, read(run).config):
        assert executions(run, plan.unit) == ["start", "end"], plan.unit


def test_a_kill_between_submission_and_its_record_doubles_nothing(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class DiesAfterSubmitting(SlurmLauncher):
        def submit(self, request):  # type: ignore[no-untyped-def]
            super().submit(request)
            raise Killed

    run = new_run(tmp_path, knobs={"seconds": 2.0})
    with pytest.raises(Killed):
        drive(run, lambda snapshot: None, stages_package="fake_stages", launcher=DiesAfterSubmitting(1))
    carry_out(run)
    assert complete(run)
    assert all(count == 1 for count in attempts(run).values())
    assert executions(run, FIRST) == ["start", "end"]


def test_a_killed_orchestrator_is_continued_by_the_same_command(tmp_path: Path) -> None:
    run = new_run(tmp_path, knobs={"seconds": 1.0}, epochs=1)
    program = (
        "import sys; from pathlib import Path; from pipeline.orchestrator import drive; "
        "drive(Path(sys.argv[1]), lambda s: None, stages_package='fake_stages')"
    )
    for _ in range(3):
        driver = subprocess.Popen([sys.executable, "-c", program, str(run)])
        time.sleep(2.0)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    carry_out(run)
    assert complete(run)
    for plan in run_plan(run, read(run).config):
        assert executions(run, plan.unit) == ["start", "end"], plan.unit


def test_out_of_memory_repeats_one_unit_with_more(tmp_path: Path) -> None:
    greedy = (
        'if [ "$SLURM_ARRAY_TASK_ID" = 1 ] && [ "$SLURM_MEM_PER_NODE" -lt 300 ]; then '
        f"srun {sys.executable} -c 'x = bytearray(600 << 20); import time; time.sleep(30)' || exit 1; fi"
    )
    run = new_run(tmp_path, demonstrate={"mem": "200M", "setup": [greedy]}, mem_growth=2.0)
    carry_out(run)
    assert complete(run)
    assert (attempts(run)[str(FIRST)], attempts(run)[str(SECOND)]) == (1, 2)
    records = [json.loads(line) for line in (run / jobs.FILE).read_text().splitlines()]
    assert [record["cause"] for record in records if record.get("cause")] == ["memory"]
    assert "--mem=400M" in (attempt_directory(run, SECOND, 2) / "sbatch.sh").read_text()


def test_a_unit_that_keeps_failing_stops_the_run_with_its_log(tmp_path: Path) -> None:
    run = new_run(tmp_path, knobs={"crash": {"e0000-sft": 9}})
    with pytest.raises(UserError) as caught:
        carry_out(run)
    message = str(caught.value)
    assert "e0000-sft failed 3 times (3 x crashed; max_attempts=3)" in message
    assert "RuntimeError: e0000-sft was asked to crash" in message
    log = re.search(r"full log: (\S+?);", message)
    assert log is not None
    assert Path(log[1]).is_file()


def test_cancel_leaves_no_job_and_no_process(tmp_path: Path, background: Callable[..., Future[Snapshot]]) -> None:
    run = new_run(tmp_path, knobs={"hang": [str(FIRST), str(SECOND)], "child": [str(FIRST)]})
    program = (
        "import sys; from pathlib import Path; from pipeline.orchestrator import drive; "
        "drive(Path(sys.argv[1]), lambda s: None, stages_package='fake_stages')"
    )
    driver = subprocess.Popen([sys.executable, "-c", program, str(run)], stderr=subprocess.DEVNULL)
    until(started(run, FIRST))
    until(started(run, SECOND))
    assert marked("BATON_KEY", identity(run)["id"])
    assert set(cancel(run)) == {str(FIRST), str(SECOND)}
    assert driver.wait(timeout=10) is not None
    assert not in_queue()
    until(lambda: not marked("BATON_KEY", identity(run)["id"]), 20)
    (run / "fake.json").write_text("{}")
    carry_out(run)
    assert complete(run)


def test_a_chain_runs_with_nobody_alive(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=2, schedule="chain")
    done = chain.extend(run, stages_package="fake_stages")
    assert done.submitted == len(read(run).units)
    assert read(run).driver is None
    until(lambda: published(run, Unit(2, "evaluate")), 90)
    assert complete(run)
    until(lambda: not in_queue(), 30)
    assert chain.extend(run, stages_package="fake_stages").finished


def test_a_broken_chain_is_cancelled_behind_the_break_and_repaired(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, schedule="chain", knobs={"crash": {"e0000-sft": 1}})
    chain.extend(run, stages_package="fake_stages")
    # Repaired at once, before Slurm itself has cancelled what waits for the failed unit.
    until(lambda: (attempt_directory(run, Unit(0, "sft"), 1) / "exit").exists(), 60)
    assert published(run, FIRST)
    assert not published(run, Unit(0, "sft"))
    assert not executions(run, Unit(1, "rollout", 0)), "what needs it was cancelled"
    again = chain.extend(run, stages_package="fake_stages")
    assert again.submitted == len(read(run).units) - 2
    until(lambda: published(run, Unit(1, "evaluate")), 60)
    assert complete(run)


def test_a_chain_that_slurm_refuses_half_way_leaves_nothing_in_the_queue(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, schedule="chain", evaluate={"partition": "nowhere"})
    with pytest.raises(UserError, match="invalid partition"):
        chain.extend(run, stages_package="fake_stages")
    assert not in_queue()
