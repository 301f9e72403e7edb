"""A real Slurm on this machine: what it does for jobs, and how it breaks and mends."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from slurm import processes
from slurm.cluster import Cluster, ClusterError, down, leftovers, packages, status, up
from slurm.cluster.config import NODES, Settings
from slurm.cluster.daemons import Daemon

LISTENS = """
import pathlib, signal, sys, time
def heard(number, frame):
    pathlib.Path(sys.argv[1]).write_text(signal.Signals(number).name)
    sys.exit()
signal.signal(signal.SIGTERM, heard)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


def submit(cluster, script, *options):
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()


def look(cluster, job):
    """State, reason and number of restarts of a job."""
    row = cluster.run("squeue", "-h", "-j", job, "-t", "all", "-O", "state:20,reason:30,restartcnt:5").split()
    return row[0], row[1], int(row[2])


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result


def wait_state(cluster, job, state, seconds=20):
    wait_for(lambda: look(cluster, job)[0] == state, seconds)


def alone(tmp_path):
    """Settings of a cluster that does not run."""
    (tmp_path / "log").mkdir()
    (tmp_path / "pids").mkdir()
    return Settings(tmp_path, "box", "root", {}, cgroups=False)


def test_nodes_are_idle_and_have_gpus(idle_cluster):
    assert idle_cluster.nodes() == dict.fromkeys(NODES, "idle")
    gres = dict(line.split() for line in idle_cluster.run("sinfo", "-h", "-N", "-o", "%N %G").splitlines())
    assert gres == {node: f"gpu:{gpu}:4" for node, gpu in NODES.items()}


def test_a_step_spans_nodes_and_sees_its_gpus(idle_cluster):
    words = ("srun", "-p", "train", "-N2", "--gres=gpu:h100:2", "bash", "-c")
    lines = idle_cluster.run(*words, "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES").splitlines()
    assert sorted(lines) == ["train0 0,1", "train1 0,1"]


def test_jobs_get_different_gpus_of_a_node(idle_cluster, tmp_path):
    for name in "ab":
        script = f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/{name}; sleep 60"
        submit(idle_cluster, script, "-w", "sim0", "--gres=gpu:rtx:2")
        wait_for((tmp_path / name).exists)
    assert (tmp_path / "a").read_text() == "0,1\n"
    assert (tmp_path / "b").read_text() == "2,3\n"


def test_a_job_starts_soon(idle_cluster):
    began = time.monotonic()
    wait_state(idle_cluster, submit(idle_cluster, "true"), "COMPLETED")
    assert time.monotonic() - began < 5


def test_urgent_preempts_and_the_job_runs_again(idle_cluster, tmp_path):
    script = f'exec python3 -c "{LISTENS}" {tmp_path}/heard'
    job = submit(idle_cluster, script, "-p", "sim", "-w", "sim0", "--gres=gpu:4", "--comment=unit-7")
    wait_for((tmp_path / "heard").exists)
    urgent = submit(idle_cluster, "sleep 3", "-p", "urgent", "-w", "sim0", "--gres=gpu:1")
    wait_state(idle_cluster, urgent, "RUNNING")
    assert (tmp_path / "heard").read_text() == "SIGTERM"
    assert look(idle_cluster, job)[0::2] == ("PENDING", 1)
    assert idle_cluster.run("squeue", "-h", "-j", job, "-o", "%k") == "unit-7\n"
    wait_state(idle_cluster, job, "RUNNING", 30)
    history = idle_cluster.run("sacct", "-XDnP", "-j", job, "-o", "state,comment").splitlines()
    assert history[0] == "PREEMPTED|unit-7"


def test_too_much_memory_ends_a_job(idle_cluster):
    script = "exec python3 -c 'import time; x = bytearray(b\"1\" * (300 << 20)); time.sleep(60)'"
    job = submit(idle_cluster, script, "--mem=100")
    wait_state(idle_cluster, job, "OUT_OF_MEMORY" if idle_cluster.settings.cgroups else "FAILED")


def test_accounting_remembers(idle_cluster):
    job = submit(idle_cluster, "exit 3", "--comment=unit-3", "--job-name=short")
    wait_state(idle_cluster, job, "FAILED")
    query = ("sacct", "-XnP", "-j", job, "-o", "jobname,account,state,exitcode,comment")
    wait_for(lambda: idle_cluster.run(*query) == "short|baton|FAILED|3:0|unit-3\n")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--account=nobody", "Invalid account"),
        ("--qos=gold", "Invalid qos"),
        ("--partition=moon", "invalid partition"),
        ("--gres=gpu:a100:1", "node configuration is not available"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(idle_cluster, option, message):
    with pytest.raises(ClusterError, match=message):
        submit(idle_cluster, "true", option)


def test_a_limit_holds(idle_cluster):
    user = ("sacctmgr", "-i", "modify", "user", idle_cluster.settings.user, "account=baton", "set")
    idle_cluster.run(*user, "MaxSubmitJobs=1")
    try:
        submit(idle_cluster, "sleep 60")
        with pytest.raises(ClusterError, match="MaxSubmitJob|submit limit|QOSMaxSubmit|AssocMaxSubmit"):
            submit(idle_cluster, "sleep 60")
    finally:
        idle_cluster.run(*user, "MaxSubmitJobs=-1")


@pytest.mark.slow
def test_a_dead_node_is_noticed_and_comes_back(idle_cluster, tmp_path):
    job = submit(idle_cluster, f"sleep 300 & echo $! > {tmp_path}/pid; wait", "-w", "sim0")
    pid = int(wait_for(lambda: (file := tmp_path / "pid").exists() and file.read_text().strip()))
    idle_cluster.kill_node("sim0")
    assert processes.identity(pid) is None
    wait_for(lambda: idle_cluster.nodes()["sim0"] == "down*", 60)
    wait_for(lambda: look(idle_cluster, job)[0::2] == ("PENDING", 1))
    idle_cluster.start_node("sim0")
    assert idle_cluster.nodes() == dict.fromkeys(NODES, "idle")
    wait_state(idle_cluster, job, "RUNNING", 30)


def test_a_dead_node_can_be_declared_so(idle_cluster):
    job = submit(idle_cluster, "sleep 300", "-w", "train0", "-p", "train", "--no-requeue")
    wait_state(idle_cluster, job, "RUNNING")
    idle_cluster.kill_node("train0")
    idle_cluster.declare_dead("train0")
    wait_state(idle_cluster, job, "NODE_FAIL")
    idle_cluster.start_node("train0")
    assert idle_cluster.nodes()["train0"] == "idle"


def test_jobs_survive_their_slurmd(idle_cluster, tmp_path):
    job = submit(idle_cluster, f"touch {tmp_path}/a; sleep 3; touch {tmp_path}/b", "-w", "sim1")
    wait_for((tmp_path / "a").exists)
    idle_cluster.kill_node("sim1", daemon_only=True)
    wait_for((tmp_path / "b").exists)
    idle_cluster.start_node("sim1")
    wait_state(idle_cluster, job, "COMPLETED", 60)


def test_jobs_survive_the_controller(idle_cluster, tmp_path):
    job = submit(idle_cluster, f"touch {tmp_path}/a; sleep 2")
    wait_for((tmp_path / "a").exists)
    idle_cluster.stop_controller()
    with pytest.raises(ClusterError, match="squeue"):
        idle_cluster.run("squeue", seconds=2)
    idle_cluster.start_controller()
    wait_state(idle_cluster, job, "COMPLETED", 60)


def test_jobs_run_without_accounting(idle_cluster):
    idle_cluster.stop_accounting()
    with pytest.raises(ClusterError, match="sacct"):
        idle_cluster.run("sacct")
    job = submit(idle_cluster, "true")
    wait_state(idle_cluster, job, "COMPLETED")
    idle_cluster.start_accounting()
    wait_for(lambda: idle_cluster.run("sacct", "-XnP", "-j", job, "-o", "state") == "COMPLETED\n", 60)


def test_up_mends_what_died(idle_cluster):
    for daemon in status(idle_cluster.root).daemons:
        os.kill(daemon.pid, signal.SIGKILL)
    # A killed process is there until the kernel has taken it down.
    wait_for(lambda: not any(daemon.alive for daemon in status(idle_cluster.root).daemons))
    assert up(idle_cluster.root) == idle_cluster
    assert idle_cluster.nodes() == dict.fromkeys(NODES, "idle")
    assert idle_cluster.run("srun", "echo", "here") == "here\n"


def test_up_again_is_quick(idle_cluster):
    before, began = status(idle_cluster.root), time.monotonic()
    up(idle_cluster.root)
    assert time.monotonic() - began < 3
    assert status(idle_cluster.root) == before


@pytest.fixture
def short_root():
    """A directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="baton-slurm-", dir="/tmp") as folder:
        yield Path(folder) / "c"
        down(Path(folder) / "c")


def test_down_leaves_nothing_and_touches_no_other_cluster(idle_cluster, short_root):
    other = up(short_root)
    step = f"trap '' TERM; touch {short_root}/step; sleep 302; sleep 303"
    submit(other, f'(setsid sleep 301 &); srun /bin/bash -c "{step}"; sleep 304', "--export=ALL,PATH=/usr/bin")
    submit(other, "sleep 305", "--export=NONE")
    wait_for((short_root / "step").exists)
    pids = leftovers.all_processes(other.settings)
    # besides the daemons two slurmstepd of the first job, one of the second, and what they started
    assert len(pids) > len(status(short_root).daemons) + 6

    down(short_root, purge=True)
    assert not leftovers.all_processes(other.settings)
    assert not [pid for pid in pids if processes.identity(pid)]
    assert not list(leftovers.MEMORY.glob(f"slurm_*/uid_*/job_{str(other.settings.first_job)[:-3]}*"))
    assert not short_root.exists()
    assert status(short_root).daemons == []
    assert all(daemon.alive for daemon in status(idle_cluster.root).daemons)
    assert idle_cluster.run("srun", "echo", "here") == "here\n"


def test_status_and_down_of_nothing(tmp_path):
    (tmp_path / "precious").touch()
    assert status(tmp_path).daemons == []
    down(tmp_path, purge=True)
    assert (tmp_path / "precious").exists()
    down(tmp_path / "absent")


@pytest.mark.parametrize("name", ["x" * 70, "my cluster"])
def test_a_root_that_slurm_cannot_use_is_refused(monkeypatch, tmp_path, name):
    monkeypatch.setattr(packages, "install", lambda: None)
    with pytest.raises(ClusterError, match="name another one"):
        up(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_daemon_that_ends_names_its_log(tmp_path):
    daemon = Daemon(alone(tmp_path), "broken", ["false"])
    daemon.start()
    with pytest.raises(ClusterError, match=f"broken ended as it started; see {tmp_path}/log/broken.log"):
        daemon.wait(lambda: False, 5)


def test_a_daemon_that_hangs_names_its_log_and_is_killed(tmp_path):
    daemon = Daemon(alone(tmp_path), "slow", ["sleep", "60"])
    daemon.start()
    with pytest.raises(ClusterError, match=f"slow did not come up in 0 s; see {tmp_path}/log/slow.log"):
        daemon.wait(lambda: False, 0.2)
    assert daemon.pid is not None
    daemon.stop()
    assert daemon.pid is None


def test_an_unknown_node_is_named(tmp_path):
    with pytest.raises(ClusterError, match="no node 'sim9'; the nodes are sim0, sim1, train0, train1"):
        Cluster(alone(tmp_path)).kill_node("sim9")


def test_missing_packages_are_named_where_they_cannot_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "PATH", str(tmp_path))
    with pytest.raises(
        ClusterError, match="apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
    ):
        packages.install()
