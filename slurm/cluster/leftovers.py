"""What the jobs of a cluster leave on the machine: processes and cgroups."""

from __future__ import annotations

import contextlib
import os

from slurm import processes
from slurm.cluster.config import CGROUPS, JOB_IDS, NODES, Settings
from slurm.cluster.daemons import MARK

MEMORY = CGROUPS / "memory"


def job_processes(settings: Settings, *nodes: str) -> set[int]:
    """Find the processes of jobs: each slurmstepd, and what it started, wherever that has gone since.

    Args:
        settings: of the cluster.
        nodes: of these nodes only; of all if none is named.

    Returns:
        Pids. Tasks are known by what slurmstepd puts into every environment, also with `--export=NONE`. slurmstepd
        overwrites its own environment with its title, and is known by the log it has open.
    """
    names = nodes or tuple(NODES)
    conf, logs = str(settings.slurm_conf), {str(settings.log(name)) for name in names}
    here = {pid for pid, value in processes.marked("SLURM_CONF", conf).items() if value == conf}
    there = {pid for pid, value in processes.marked("SLURMD_NODENAME", "").items() if value in names}
    return here & there | {pid for pid in _slurmstepds() if processes.identity(pid) and logs & _open_files(pid)}


def all_processes(settings: Settings) -> set[int]:
    """Find whatever belongs to a cluster.

    Args:
        settings: of the cluster.

    Returns:
        Pids of jobs, and of daemons with or without a pid file.
    """
    root = str(settings.root)
    return job_processes(settings) | {pid for pid, value in processes.marked(MARK, root).items() if value == root}


def can_confine() -> bool:
    """Whether this machine lets slurmstepd give a job a memory cgroup, of version 1."""
    return (MEMORY / "memory.limit_in_bytes").exists() and os.access(MEMORY, os.W_OK)


def remove_cgroups(settings: Settings) -> None:
    """Remove the cgroups of jobs whose slurmstepd was killed; it removes them otherwise.

    Args:
        settings: of a cluster that is down.
    """
    ours = range(settings.first_job, settings.first_job + JOB_IDS)
    for job in MEMORY.glob("slurm_*/uid_*/job_*"):
        if int(job.name.removeprefix("job_")) in ours:
            for folder, _, _ in os.walk(job, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def _slurmstepds() -> set[int]:
    found = set()
    for entry in os.listdir(processes.PROC):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if entry.isdigit() and "slurmstepd" in os.readlink(processes.PROC / entry / "exe"):
                found.add(int(entry))
    return found


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder := processes.PROC / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(folder / entry))
    return found
