"""Bringing a cluster up and down, and looking at it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from slurm import processes
from slurm.cluster import config, leftovers, packages
from slurm.cluster.config import GPUS, NAME, NODES, Settings
from slurm.cluster.controls import Cluster
from slurm.cluster.daemons import daemons, environment
from slurm.cluster.errors import ClusterError

WAIT = 90.0
"""Seconds each daemon has to come up."""


@dataclasses.dataclass(frozen=True)
class DaemonStatus:
    """A daemon as it is now.

    Attributes:
        name: of the daemon; a node's is the node's name.
        pid: of its process, None if there is none.
        log: where it writes.
    """

    name: str
    pid: int | None
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.pid is not None


@dataclasses.dataclass(frozen=True)
class Status:
    """A cluster as it is now.

    Attributes:
        daemons: all of them, in the order of their start.
        nodes: node -> state in Slurm's words; empty if the controller does not answer.
    """

    daemons: list[DaemonStatus]
    nodes: dict[str, str]


def default_root() -> Path:
    """Where the cluster is if nobody says otherwise: $BATON_DEV_CLUSTER, or a folder of the user's cache."""
    return Path(os.environ.get("BATON_DEV_CLUSTER") or Path.home() / ".cache/baton/dev-cluster")


def up(root: Path | None = None) -> Cluster:
    """Bring a cluster up, or what of it does not run; missing Debian packages are installed.

    Args:
        root: the directory that holds everything of it; `default_root()` if None.

    Returns:
        The cluster, ready for jobs.

    Raises:
        ClusterError: packages are missing and cannot be installed, or a daemon did not come up.
    """
    packages.install()
    with _locked(root or default_root()) as root:
        settings = _settings(root)
        every, cluster = daemons(settings), Cluster(settings)
        if _write(settings):
            for name in ("slurmctld", *NODES, "slurmdbd"):
                every[name].stop()
        for name in ("munged", "mariadbd"):
            every[name].start()
        every["munged"].wait(lambda: _listens(settings.munge_socket), WAIT)
        every["mariadbd"].wait(lambda: _listens(settings.database_socket), WAIT)
        every["slurmdbd"].start()
        if every["slurmctld"].pid is None:
            every["slurmdbd"].wait(cluster.accounting_answers, WAIT)
            _add_account(cluster)
        for name in ("slurmctld", *NODES):
            every[name].start()
        cluster.wait_ready(WAIT)
        return cluster


def down(root: Path | None = None, *, purge: bool = False) -> None:
    """Stop a cluster with all its jobs.

    Args:
        root: its directory; `default_root()` if None.
        purge: also delete the directory, with all that the cluster knew; nothing is deleted that is no cluster.
    """
    root = (root or default_root()).expanduser().resolve()
    if not (root / "cluster.json").exists():
        return
    with _locked(root):
        settings = _settings(root)
        every = daemons(settings)
        # The controller first, so that it starts nothing; then what runs; then what was needed to account for it.
        for name in ("slurmctld", *NODES):
            every[name].stop()
        processes.end(lambda: leftovers.job_processes(settings), grace=1.0)
        for name in ("slurmdbd", "mariadbd", "munged"):
            every[name].stop()
        processes.end(lambda: leftovers.all_processes(settings), grace=1.0)
        leftovers.remove_cgroups(settings)
        if purge:
            shutil.rmtree(root)


def status(root: Path | None = None) -> Status:
    """Look at a cluster.

    Args:
        root: its directory; `default_root()` if None.

    Returns:
        What runs of it. A directory without a cluster has no daemons.
    """
    root = (root or default_root()).expanduser().resolve()
    if not (root / "cluster.json").exists():
        return Status([], {})
    settings = _settings(root)
    found = [DaemonStatus(d.name, d.pid, d.log) for d in daemons(settings).values()]
    nodes: dict[str, str] = {}
    if any(d.alive for d in found if d.name == "slurmctld"):
        with contextlib.suppress(ClusterError):
            nodes = Cluster(settings).nodes()
    return Status(found, nodes)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[Path]:
    """Let one process at a time change a cluster."""
    root = root.expanduser().resolve()
    # A socket's path may have 107 characters, slurmstepd's has 41 below the root; slurm.conf quotes nothing.
    if not re.fullmatch(r"[\w/.+-]{1,64}", str(root)):
        raise ClusterError(f"{root}: a cluster's directory has at most 64 characters, none special; name another one")
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root


def _settings(root: Path) -> Settings:
    """Read what was chosen at the first start, or choose."""
    file = root / "cluster.json"
    if not file.exists():
        file.write_text(json.dumps(_free_ports(["slurmctld", "slurmdbd", *NODES])))
    user = pwd.getpwuid(os.geteuid()).pw_name
    host = socket.gethostname().split(".")[0]
    return Settings(root, host, user, json.loads(file.read_text()), leftovers.can_confine())


def _free_ports(names: list[str]) -> dict[str, int]:
    """Choose ports below those that the kernel gives to outgoing connections."""
    ports: dict[str, int] = {}
    for port in random.SystemRandom().sample(range(12000, 32000), 500):
        if len(ports) == len(names):
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                ports[names[len(ports)]] = port
    return ports


def _write(settings: Settings) -> bool:
    """Write all that the daemons read.

    Returns:
        Whether a configuration differs from what was there.
    """
    root = settings.root
    for name in ("run", "log", "pids", "state", "spool"):
        (root / name).mkdir(exist_ok=True)
    for index in range(GPUS):
        card = root / f"gpu{index}"
        if not card.is_symlink():
            # slurmd takes only devices for cards; it never opens them.
            card.symlink_to(os.devnull)
    key = root / "munge.key"
    if not key.exists():
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
    if not (root / "db").exists():
        _make_database(settings)
    changed = False
    texts = {
        "slurm.conf": (config.slurm_conf(settings), 0o644),
        "gres.conf": (config.gres_conf(settings), 0o644),
        "cgroup.conf": (config.cgroup_conf(), 0o644),
        "slurmdbd.conf": (config.slurmdbd_conf(settings), 0o600),
    }
    for name, (text, mode) in texts.items():
        file = root / name
        if not file.exists() or file.read_text() != text:
            file.touch(mode)
            file.write_text(text)
            changed = True
    return changed


def _make_database(settings: Settings) -> None:
    draft, log = settings.root / "db.new", settings.log("mariadb-install-db")
    shutil.rmtree(draft, ignore_errors=True)
    command = [
        *("mariadb-install-db", "--no-defaults", f"--datadir={draft}", f"--user={settings.user}", "--skip-test-db"),
        *("--auth-root-authentication-method=socket", f"--auth-root-socket-user={settings.user}"),
    ]
    with log.open("w") as output:
        done = subprocess.run(command, env=environment(settings), stdout=output, stderr=output, timeout=120)
    if done.returncode:
        raise ClusterError(f"mariadb-install-db failed; see {log}")
    draft.rename(settings.root / "db")


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _add_account(cluster: Cluster) -> None:
    """Make the user known; the controller takes no job of anyone else."""
    user = cluster.settings.user

    def is_there(*words: str) -> bool:
        return bool(cluster.run("sacctmgr", "-nP", "show", *words).strip())

    # sacctmgr fails for what is there, e.g. after an interrupted start.
    if not is_there("cluster", NAME):
        cluster.run("sacctmgr", "-i", "add", "cluster", NAME)
    if not is_there("account", NAME):
        cluster.run("sacctmgr", "-i", "add", "account", NAME)
    if not is_there("associations", f"user={user}", f"account={NAME}"):
        cluster.run("sacctmgr", "-i", "add", "user", user, f"account={NAME}")
        # slurmdbd itself has put root into an account `root`.
        cluster.run("sacctmgr", "-i", "modify", "user", user, "set", f"defaultaccount={NAME}")
