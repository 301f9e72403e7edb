"""One holder at a time, and none that is dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import lease
from pipeline.errors import UserError
from pipeline.lease import FILE, Holder, Lease, holder
from slurm.client import SEPARATOR


def quiet(line: str) -> None:
    del line


def leave(run: Path, **values: object) -> Holder:
    left = Holder.model_validate({"host": os.uname().nodename, "pid": 1, "process": "x", "token": "other", **values})
    (run / FILE).write_text(left.model_dump_json())
    return left


def test_held_while_inside_and_free_after(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with Lease(tmp_path, quiet):
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()
        with pytest.raises(UserError, match=f"driven by process {os.getpid()} on"), Lease(tmp_path, quiet):
            pass
        assert holder(tmp_path) == found, "the refused one must not free it"
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    leave(tmp_path, pid=child.pid, process=f"{child.pid}.1.boot")
    start = time.monotonic()
    with Lease(tmp_path, quiet):
        assert time.monotonic() - start < 1


def test_a_later_process_with_the_same_pid_holds_nothing(tmp_path: Path) -> None:
    leave(tmp_path, pid=os.getpid(), process=f"{os.getpid()}.1.boot")
    assert holder(tmp_path) is None
    with Lease(tmp_path, quiet):
        pass


def test_another_host_without_heartbeat_is_taken_over_after_patience(tmp_path: Path) -> None:
    leave(tmp_path, host="elsewhere")
    said: list[str] = []
    with Lease(tmp_path, said.append, patience=0.3):
        assert "process 1 on elsewhere" in said[0]
        found = holder(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A Slurm of one command."""
    commands = folder / "commands"
    commands.mkdir()
    (commands / "squeue").write_text(f"#!/bin/bash\n{body}\n")
    (commands / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")


def shows(id_: str, state: str) -> str:
    fields = (id_, "N/A", state, "None", "", "run-1:orchestrator", "2026-11-25T10:00:00", "N/A", "N/A")
    return f"printf '%s\\n' '{SEPARATOR.join(fields)}'"


def test_a_holder_that_is_a_slurm_job_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with Lease(tmp_path, quiet):
        found = holder(tmp_path)
        assert found is not None
        assert str(found) == f"process {os.getpid()} on {os.uname().nodename} (job 4711)"


@pytest.mark.parametrize(
    "body", [shows("7", "COMPLETED"), shows("7", "PENDING"), shows("7", "NODE_FAIL"), shows("8", "RUNNING"), ""]
)
def test_a_job_that_slurm_knows_to_be_over_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    squeue(tmp_path, monkeypatch, body)
    (tmp_path / "run").mkdir()
    leave(tmp_path / "run", host="elsewhere", job="7")
    said: list[str] = []
    with Lease(tmp_path / "run", said.append, patience=60):
        assert said == []


@pytest.mark.parametrize(
    "body", [shows("7", "RUNNING"), "echo 'squeue: error: Socket timed out' >&2; exit 1", "echo '?' >&2; exit 1"]
)
def test_a_job_that_may_live_is_waited_for_as_anybody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    squeue(tmp_path, monkeypatch, body)
    (tmp_path / "run").mkdir()
    leave(tmp_path / "run", host="elsewhere", job="7")
    said: list[str] = []
    with Lease(tmp_path / "run", said.append, patience=0.2):
        assert len(said) == 1
        assert "held by process 1 on elsewhere (job 7)" in said[0]


def test_another_host_with_heartbeat_is_respected_however_wrong_its_clock(tmp_path: Path) -> None:
    leave(tmp_path, host="elsewhere")
    os.utime(tmp_path / FILE, (1, 1))
    beat = threading.Timer(0.2, lambda: os.utime(tmp_path / FILE, (2, 2)))
    beat.start()
    with pytest.raises(UserError, match="driven by process 1 on elsewhere"), Lease(tmp_path, quiet, patience=5):
        pass


def test_whoever_lost_the_lease_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.0)
    with Lease(tmp_path, quiet) as held:
        held.beat()
        (tmp_path / FILE).unlink()
        held.beat()
        rival = leave(tmp_path, host="elsewhere")
        with pytest.raises(UserError, match="elsewhere"):
            held.beat()
    assert holder(tmp_path) == rival, "a rival's lease is not ours to free"


def test_many_contenders_for_a_stale_lease_have_one_winner(tmp_path: Path) -> None:
    leave(tmp_path, pid=1, process="1.1.boot")
    script = (
        "import sys, time, pathlib\n"
        "from pipeline.lease import Lease\nfrom pipeline.errors import UserError\n"
        "try:\n"
        "    with Lease(pathlib.Path(sys.argv[1]), print): print('won', flush=True); time.sleep(2)\n"
        "except UserError: print('lost')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(lease.__file__).parents[1])}
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    answers = sorted(contender.communicate(timeout=30)[0].strip() for contender in contenders)
    assert answers == ["lost", "lost", "lost", "won"]


def test_a_damaged_lease_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match="delete it"), Lease(tmp_path, quiet):
        pass
