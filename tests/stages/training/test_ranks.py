import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.errors import UserError
from stages.training.ranks import Rank, join, rank_from_environment, run_ranks


def test_a_lone_process_is_the_only_rank():
    assert rank_from_environment({}) == Rank()
    assert rank_from_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Rank()  # a batch script's own shell


def test_ranks_of_torchrun_srun_and_submitit():
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    assert rank_from_environment({**torchrun, "SLURM_STEP_NUM_TASKS": "1"}) == Rank(3, 4, 1, 2, "x")
    srun = {
        "SLURM_PROCID": "4",
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "0",
    }
    assert rank_from_environment(srun) == Rank(4, 5, 0, 1, "77-0")
    assert rank_from_environment({**srun, "SLURM_RESTART_COUNT": "1"}).launch == "77-0-1"
    assert rank_from_environment({**srun, "SLURM_PROCID": "3", "SLURM_NODEID": "1"}).local_size == 2
    local = {"SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_LOCALID": "1"}
    assert rank_from_environment(local) == Rank(1, 2, 1, 2, "launch")


@pytest.mark.parametrize("wrong", [{"RANK": "x"}, {"RANK": "2"}, {"LOCAL_RANK": "2"}, {"WORLD_SIZE": ""}])
def test_nonsense_is_refused_in_one_line(wrong):
    environment = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **wrong}
    with pytest.raises(UserError, match="start ranks with srun, torchrun or the pipeline") as refused:
        rank_from_environment(environment)
    assert "\n" not in str(refused.value)


def test_a_rank_whose_first_never_comes_says_so(tmp_path):
    (tmp_path / "rendezvous-yesterday").write_text("127.0.0.1:1\n")  # a predecessor's address is not taken for ours
    with pytest.raises(TimeoutError, match="rendezvous-today after 0 s; rank 0 did not start"):
        join(Rank(1, 2, 1, 2, "today"), tmp_path, timeout_s=0.2)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_every_rank_is_told_who_it_is(tmp_path):
    code = (
        "import os, pathlib\n"
        f"told = [os.environ[k] for k in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'LOCAL_RANK', 'OMP_NUM_THREADS')]\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(' '.join(told))"
    )
    assert run_ranks(3, python(code), threads=1) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(i): f"3 3 {i} 1" for i in range(3)}


def test_the_first_failure_ends_the_others_and_is_returned():
    begun = time.monotonic()
    code = "import os, sys, time\nsys.exit(7) if os.environ['RANK'] == '1' else time.sleep(60)"
    assert run_ranks(2, python(code)) == 7
    assert time.monotonic() - begun < 20


def test_a_killed_rank_is_a_failure():
    code = "import os, time\nos.kill(os.getpid(), 9) if os.environ['RANK'] == '0' else time.sleep(60)"
    assert run_ranks(2, python(code)) == 128 + signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_ranks_die_with_their_launcher(tmp_path):
    rank = f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(60)"
    launcher = (
        f"import sys; from stages.training.ranks import run_ranks; run_ranks(2, [sys.executable, '-c', {rank!r}])"
    )
    process = subprocess.Popen(python(launcher), env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a rank outlived its launcher"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
