import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.tracking.__main__ import follow, main
from pipeline.tracking.writer import Writer, locked
from tests.pipeline.tracking.runs_for_tests import (
    ROOT,
    command,
    make_run,
    picture,
    publish_all,
    publish_unit,
    store,
    units_written,
    wait_until,
)

CLOSED_PORT = "http://127.0.0.1:9"


@pytest.mark.slow
def test_killed_at_any_moment_and_again_is_the_same_as_once(runs, empty_database):
    run = make_run(runs)
    publish_all(run, lines=60)
    Writer(run).catch_up()
    expected = picture(runs)

    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown where the test fails
    generator = random.Random(seed)
    (runs / "mlflow.db").write_bytes(empty_database)
    killed = 0
    for enough in (1, 5):
        writer = command(run)
        wait_until(lambda writer=writer, enough=enough: writer.poll() is not None or units_written(runs) >= enough)
        time.sleep(generator.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        killed += writer.wait() == -signal.SIGKILL
        writer.stdout.close()
    assert killed, "the writer was done before it could be killed"
    Writer(run).catch_up()
    assert picture(runs) == expected


@pytest.mark.slow
def test_a_server_that_is_down_costs_an_exit_code_and_nothing_else(runs):
    run = make_run(runs, uri=CLOSED_PORT)
    publish_all(run)
    writer = command(run)
    output, _ = writer.communicate(timeout=120)
    assert writer.returncode == 1
    assert "could not be written" in output
    assert "Traceback" not in output
    assert len(output.splitlines()) == 1
    assert f"MLflow: {CLOSED_PORT} does not answer" in (run / "tracking.log").read_text()
    make_run(runs)  # trainer may change: back to the database
    Writer(run).catch_up()
    assert len(store(runs).nested) == 10


@pytest.mark.slow
def test_follow_writes_what_appears_and_catches_up_at_sigterm(runs):
    run = make_run(runs)
    writer = command(run, "--follow", "--poll", "0.2")
    publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
    wait_until(lambda: units_written(runs) == 1)
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 1.0}, at=1)
    writer.send_signal(signal.SIGTERM)
    output, _ = writer.communicate(timeout=120)
    assert (writer.returncode, output) == (0, "")
    assert units_written(runs) == 2


def test_follow_ends_with_1_when_the_server_stays_down(runs, caplog):
    run = make_run(runs, uri=CLOSED_PORT)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.raise_signal(signal.SIGTERM)
        assert follow(Writer(run), 0.1, os.getppid()) == 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    line = f"MLflow: {CLOSED_PORT} does not answer; start it, or set trainer.logger.mlflow.uri to where it is"
    assert [entry.getMessage() for entry in caplog.records] == [
        f"{line}; tried again every 60 s or less",
        f"{line}; nothing is lost: run `baton track {run}` once that is mended",
    ]


@pytest.mark.slow
def test_follow_ends_when_its_parent_was_killed(runs):
    run = make_run(runs, trainer={"logger": {"mlflow": {"enable": False}}})  # MLflow's import would only cost time
    line = [sys.executable, "-m", "pipeline.tracking", str(run), "--follow", "--poll", "0.2"]
    code = (
        f"import subprocess, time\nchild = subprocess.Popen({line!r})\nprint(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    child = int(parent.stdout.readline())
    wait_until((run / "tracking.log").exists)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text())
    assert "is gone" in (run / "tracking.log").read_text()


def test_a_second_writer_waits_for_the_first(tmp_path):
    path = tmp_path / "lock"
    with locked(path, 0), pytest.raises(TimeoutError, match="another writer"), locked(path, 0.2):
        pass
    with locked(path, 0):
        pass


def test_no_run_directory_is_one_line_and_exit_code_2(tmp_path, capfd):
    assert main([str(tmp_path)]) == 2
    assert capfd.readouterr().err == f"baton: {tmp_path} is not a run directory: it has no config.yaml\n"


def test_a_run_without_trackers_is_not_written(runs):
    run = make_run(runs, trainer={"logger": {"mlflow": {"enable": False}}})
    assert (Writer(run).catch_up(), Writer(run).addresses) == ([], [])
