"""Jobs outlive their submitter, are found by key, and leave nothing when cancelled."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm import processes
from slurm.launcher import KEY_VARIABLE, Job, LaunchError, Request, Seat, Sight, fill
from slurm.local import LocalLauncher
from slurm.options import Options
from slurm.states import State
from slurm.visible import DEVICES

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
Path(sys.argv[1]).write_text(json.dumps([sys.argv[1:], __name__, os.environ["MARK"], gpus]))
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

    def make(name: str, *arguments: str, minutes: int = 5, **more: Any) -> Request:
        folder = tmp_path / name
        for index in more.get("indices") or [0]:
            Path(fill(str(folder), index)).mkdir()
        path = os.pathsep.join([str(ROOT), str(modules)])
        environment = {"PYTHONPATH": path, "MARK": "here"}
        arguments = (str(folder / "out"), *arguments)
        options = Options(time=minutes)
        return Request(f"{prefix}:{name}", name, "program", arguments, folder, environment, options, **more)

    yield make
    launcher = LocalLauncher(grace=0.2)
    launcher.cancel(list(launcher.find(prefix).values()))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def submit(launcher: LocalLauncher, request: Request) -> Job:
    (job,) = launcher.submit(request).values()
    assert job.key == request.key
    return job


def state(job: Job, launcher: LocalLauncher | None = None) -> State:
    (sight,) = (launcher or LocalLauncher()).poll([job]).values()
    return sight.state


def test_a_job_runs_the_module_with_its_arguments_and_environment(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(), request_for("plain", "--epoch", "3")
    job = submit(launcher, request)
    assert launcher.poll([job]) == {job.key: Sight(State.RUNNING, node=job.host)}
    until(lambda: state(job, launcher) is State.ENDED)
    arguments, name, mark, _ = json.loads((request.folder / "out").read_text())
    assert arguments == [*request.arguments]
    assert (name, mark) == ("__main__", "here")
    assert job.host == socket.gethostname()


def test_both_streams_are_in_one_log_and_an_exit_code_is_only_an_end(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(), request_for("loud", "shout")
    job = submit(launcher, request)
    until(lambda: state(job, launcher) is State.ENDED)
    log = (request.folder / "log.txt").read_text()
    assert "to stdout" in log
    assert "to stderr" in log


def test_a_job_is_found_and_seen_by_others_than_its_submitter(request_for: Callable[..., Request]) -> None:
    request = request_for("found", "wait")
    job = submit(LocalLauncher(), request)
    until((request.folder / "out").exists)
    other = LocalLauncher()
    assert other.find(request.key) == {request.key: job}
    assert other.find("launcher-no-such") == {}
    assert state(job, other) is State.RUNNING


def test_a_killed_submitter_takes_nothing_with_it(request_for: Callable[..., Request], tmp_path: Path) -> None:
    request = request_for("orphan", "wait")
    script = (
        "import os, pathlib, signal\n"
        "from slurm.launcher import Request\nfrom slurm.local import LocalLauncher\nfrom slurm.options import Options\n"
        f"LocalLauncher().submit(Request({request.key!r}, 'orphan', 'program', {request.arguments!r}, "
        f"pathlib.Path({str(request.folder)!r}), {dict(request.environment)!r}, Options(time=5)))\n"
        "os.killpg(0, signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, start_new_session=True, check=False)
    until((request.folder / "out").exists)
    assert state(LocalLauncher().find(request.key)[request.key]) is State.RUNNING


def test_cancel_ends_children_in_sessions_of_their_own_too(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(grace=0.5), request_for("family", "child", "wait")
    job = submit(launcher, request)
    until(lambda: len(processes.marked(KEY_VARIABLE, request.key)) == 3)
    launcher.cancel([job])
    assert processes.marked(KEY_VARIABLE, request.key) == {}
    assert state(job, launcher) is State.ENDED
    launcher.cancel([job])


def test_cancel_spares_a_key_that_only_begins_alike(request_for: Callable[..., Request]) -> None:
    launcher = LocalLauncher(grace=0.5)
    first = submit(launcher, request_for("x1", "wait"))
    second = submit(launcher, request_for("x12", "wait"))
    launcher.cancel([first])
    sights = launcher.poll([first, second])
    assert {key: sight.state for key, sight in sights.items()} == {first.key: State.ENDED, second.key: State.RUNNING}


def test_a_time_limit_ends_the_job(request_for: Callable[..., Request]) -> None:
    launcher, request = LocalLauncher(), request_for("slow", "wait", minutes=0)
    job = submit(launcher, request)
    until(lambda: state(job, launcher) is State.ENDED)
    assert processes.marked(KEY_VARIABLE, request.key) == {}


def test_a_family_is_one_process_for_each_index(
    request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DEVICES, raising=False)
    launcher = LocalLauncher()
    seats = (Seat(devices=(2, 5)), Seat(devices=(1,)))
    family = request_for("shard-s%4a", "--shard", "%a", indices=(0, 3), seats=seats)
    jobs = launcher.submit(family)
    assert list(jobs) == [family.key.replace("%4a", "0000"), family.key.replace("%4a", "0003")]
    assert all(key == job.key for key, job in jobs.items())
    until(lambda: all(state(job, launcher) is State.ENDED for job in jobs.values()))
    for index, cards in ((0, "2,5"), (3, "1")):
        folder = Path(fill(str(family.folder), index))
        arguments, _, _, gpus = json.loads((folder / "out").read_text())
        assert arguments == [str(folder / "out"), "--shard", str(index)]
        assert gpus == cards
        assert (folder / "log.txt").is_file()


def test_gpus_are_counted_among_those_that_this_process_may_use(
    request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEVICES, "3, GPU-5f2a ,6")
    launcher, request = LocalLauncher(), request_for("cards", seats=(Seat(devices=(1, 2)),))
    job = submit(launcher, request)
    until(lambda: state(job, launcher) is State.ENDED)
    assert json.loads((request.folder / "out").read_text())[3] == "GPU-5f2a,6"
    with pytest.raises(LaunchError) as told:
        launcher.submit(request_for("more", seats=(Seat(devices=(2, 3)),)))
    assert str(told.value) == (
        "CUDA_VISIBLE_DEVICES='3, GPU-5f2a ,6' shows 3 GPUs and a job is to have number 3, counted from 0: unset "
        "CUDA_VISIBLE_DEVICES, name more GPUs in it, or set cluster.gpus_per_node=3"
    )


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
