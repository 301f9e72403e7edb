"""The Debian packages that the cluster is made of."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from slurm.cluster.errors import ClusterError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the daemons are, also for users whose own PATH has no sbin."""

PROGRAMS = {
    "slurmctld": ("slurmctld",),
    "slurmd": ("slurmd", "slurmstepd"),
    "slurm-client": ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr"),
    "munge": ("munged",),
    "slurmdbd": ("slurmdbd",),
    "mariadb-server": ("mariadbd", "mariadb-install-db"),
}
"""Package -> what of it is used."""
LOCK = Path(tempfile.gettempdir()) / "baton-apt.lock"
"""Held by whoever of us installs: apt ends with an error where another apt is at work."""
WAIT_S = 300  # for an apt that is not ours


def missing() -> list[str]:
    """Packages that are not installed.

    Returns:
        Names of Debian packages; empty if all is there.
    """
    return [package for package, programs in PROGRAMS.items() if not all(shutil.which(p, path=PATH) for p in programs)]


def install() -> None:
    """Install what is missing, with apt.

    Raises:
        ClusterError: something is missing and cannot be installed from here.
    """
    if not (packages := missing()):
        return
    names = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get", path=PATH):
        raise ClusterError(
            f"the development cluster needs packages that are not here: {names}; "
            f"on Debian, as root: apt-get install --no-install-recommends {names}"
        )
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (packages := missing()):
            return
        _apt(["apt-get", "update"])
        waiting = ["-o", f"DPkg::Lock::Timeout={WAIT_S}"]
        _apt(["apt-get", "install", "--yes", "--no-install-recommends", *waiting, *packages])
    if missing():
        raise ClusterError(f"apt-get installed {names}, but programs of {' '.join(missing())} are not in {PATH}")


def _apt(command: list[str]) -> None:
    environment = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    words, seconds = " ".join(command), 600
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`{words}` took more than {seconds} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"code {done.returncode}").splitlines()
        raise ClusterError(f"`{words}` failed: {lines[-1]}")
