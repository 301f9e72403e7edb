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

from pipeline import jobs
from pipeline.artifacts import Unit, attempt_directory
from pipeline.cancel import cancel
from pipeline.errors import UserError
from pipeline.ledger import Snapshot, read, run_plan
from pipeline.orchestrator import drive
from pipeline.rundir import identity
from slurm.batch import SlurmLauncher
from slurm.cluster import Cluster
from slurm.processes import marked
from tests.faults.slurm_runs_for_tests import FIRST, SECOND, complete, executions, in_queue, new_run, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fakes_on_the_cluster")]


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Snapshot]]]:
    """Drives a run in a thread of this process."""
    with ThreadPoolExecutor(1) as pool:

        def start(run: Path, **options: Any) -> Future[Snapshot]:
            return pool.submit(drive, run, lambda snapshot: None, stages_package="fake_stages", **options)

        yield start


def carry_out(run: Path) -> Snapshot:
    return drive(run, lambda snapshot: None, stages_package="fake_stages")


def started(run: Path, unit: Unit, times: int = 1) -> Callable[[], bool]:
    return lambda: executions(run, unit).count("start") >= times


def job_of(run: Path, unit: Unit) -> str:
    record = jobs.histories(run)[unit].open
    assert record is not None
    return record.job


def attempts(run: Path) -> dict[str, int]:
    return {str(state.unit): state.attempts for state in read(run).units}


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
        sft={"time": 2},  # Slurm may signal a minute early, and it is to have started by then
        time_growth=2.0,
        signal_seconds=30,
    )
    with ThreadPoolExecutor(1) as pool:
        driven = pool.submit(carry_out, run)
        until(started(run, Unit(0, "sft")))
        until(started(run, Unit(0, "sft"), 2), 200)
        (run / "fake.json").write_text("{}")
        cancel_task = job_of(run, Unit(0, "sft"))
        subprocess.run(["scancel", cancel_task], check=True)
        driven.result(timeout=60)
    causes = [r.get("cause") for r in map(json.loads, (run / jobs.FILE).read_text().splitlines()) if r.get("cause")]
    assert causes == ["timeout", "cancelled"]
    script = (attempt_directory(run, Unit(0, "sft"), 2) / "sbatch.sh").read_text()
    assert "--time=4\n" in script


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
