"""Jobs outlive their submitter, are found by key, and leave nothing when cancelled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm import processes
from slurm.launcher import KEY_VARIABLE, Job, LocalLauncher, Request
from slurm.states import State

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(json.dumps([sys.argv[1:], __name__, os.environ["MARK"], os.getcwd()]))
if "child" in sys.argv:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
if "shout" in sys.argv:
    print("to stdout"); print("to stderr", file=sys.stderr)
    raise SystemExit(3)
if "wait" in sys.argv:
    time.sleep(300)
"""


@pytest.fixture
def request_for(tmp_path: Path) -> Iterator[Callable[..., Request]]:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "program.py").write_text(PROGRAM)
    prefix = f"launcher-{uuid.uuid4().hex}"

    def make(name: str, *arguments: str, minutes: int = 5) -> Request:
        folder = tmp_path / name
        folder.mkdir()
        path = os.pathsep.join([str(ROOT), str(modules)])
        environment = {"PYTHONPATH": path, "MARK": "here"}
        return Request(f"{prefix}:{name}", "program", (str(folder / "out"), *arguments), folder, environment, minutes)

    yield make
    launcher = LocalLauncher(grace=0.2)
    launcher.cancel(list(launcher.find(prefix).values()))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def state(job: Job) -> State:
    return LocalLauncher().poll([job])[job.key]


def test_a_job_runs_the_module_with_its_arguments_and_environment(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(), request_for("plain", "--epoch", "3")
    job = launcher.submit(request)
    assert launcher.poll([job]) == {job.key: State.RUNNING}
    until(lambda: launcher.poll([job])[job.key] is State.ENDED)
    arguments, name, mark, _ = json.loads((request.folder / "out").read_text())
    assert arguments == [*request.arguments]
    assert (name, mark) == ("__main__", "here")


def test_both_streams_are_in_one_log_and_an_exit_code_is_only_an_end(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(), request_for("loud", "shout")
    job = launcher.submit(request)
    until(lambda: launcher.poll([job])[job.key] is State.ENDED)
    log = (request.folder / "log.txt").read_text()
    assert "to stdout" in log
    assert "to stderr" in log


def test_a_job_is_found_and_seen_by_others_than_its_submitter(request_for: Callable[..., Request]) -> None:
    request = request_for("found", "wait")
    job = LocalLauncher().submit(request)
    until((request.folder / "out").exists)
    other = LocalLauncher()
    assert other.find(request.key) == {request.key: job}
    assert other.find("launcher-no-such") == {}
    assert other.poll([job]) == {job.key: State.RUNNING}


def test_a_killed_submitter_takes_nothing_with_it(request_for: Callable[..., Request], tmp_path: Path) -> None:
    request = request_for("orphan", "wait")
    script = (
        "import os, pathlib, signal\n"
        "from slurm.launcher import LocalLauncher, Request\n"
        f"LocalLauncher().submit(Request({request.key!r}, 'program', {request.arguments!r}, "
        f"pathlib.Path({str(request.folder)!r}), {dict(request.environment)!r}, 5))\n"
        "os.killpg(0, signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, start_new_session=True, check=False)
    until((request.folder / "out").exists)
    assert state(LocalLauncher().find(request.key)[request.key]) is State.RUNNING


def test_cancel_ends_children_in_sessions_of_their_own_too(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(grace=0.5), request_for("family", "child", "wait")
    job = launcher.submit(request)
    until(lambda: len(processes.marked(KEY_VARIABLE, request.key)) == 3)
    launcher.cancel([job])
    assert processes.marked(KEY_VARIABLE, request.key) == {}
    assert launcher.poll([job]) == {job.key: State.ENDED}
    launcher.cancel([job])


def test_cancel_spares_a_key_that_only_begins_alike(request_for: Callable[..., Request]) -> None:
    launcher = LocalLauncher(grace=0.5)
    first = launcher.submit(request_for("x1", "wait"))
    second = launcher.submit(request_for("x12", "wait"))
    launcher.cancel([first])
    assert launcher.poll([first, second]) == {first.key: State.ENDED, second.key: State.RUNNING}


def test_a_time_limit_ends_the_job(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(), request_for("slow", "wait", minutes=0)
    job = launcher.submit(request)
    until(lambda: launcher.poll([job])[job.key] is State.ENDED)
    assert processes.marked(KEY_VARIABLE, request.key) == {}


def test_a_job_of_another_machine_is_lost_from_here() -> None:
    assert state(Job("key", "1.1.boot", "elsewhere")) is State.LOST


def test_a_reused_pid_is_another_process() -> None:
    name = processes.identity(os.getpid())
    assert name is not None
    assert processes.alive(name)
    pid, ticks, boot = name.split(".")
    assert not processes.alive(f"{pid}.{int(ticks) + 1}.{boot}")
    assert not processes.alive(f"{pid}.{ticks}.another")


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: processes.identity(child.pid) is None)
    child.wait()
