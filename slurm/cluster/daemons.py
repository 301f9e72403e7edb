"""The daemons of a cluster: how each is started, found by its pid file, and stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from slurm import processes
from slurm.cluster import packages
from slurm.cluster.config import NODES, Settings
from slurm.cluster.errors import ClusterError

MARK = "BATON_CLUSTER_DAEMON"
"""Variable in the environment of a cluster's daemons, and in nobody else's: the cluster's root."""


class Daemon:
    """A process of its own session, known by the identity in its pid file.

    Args:
        settings: of the cluster.
        name: of the daemon; a node's is the node's name.
        command: runs it in the foreground.
        output: where its stdout and stderr go; its log if None.
    """

    def __init__(self, settings: Settings, name: str, command: list[str], output: Path | None = None) -> None:
        self.name = name
        self.log = settings.log(name)
        self._output = output or self.log
        self._command = command
        self._settings = settings
        self._file = settings.root / "pids" / name

    @property
    def pid(self) -> int | None:
        """Of the process, None if it does not run."""
        try:
            identity = self._file.read_text()
        except FileNotFoundError:
            return None
        return int(identity.split(".")[0]) if identity and processes.alive(identity) else None

    def start(self) -> None:
        """Start the process unless it runs; it is not ready yet.

        Raises:
            ClusterError: its program is not installed.
        """
        if self.pid is not None:
            return
        program = shutil.which(self._command[0], path=packages.PATH)
        if program is None:
            raise ClusterError(f"{self._command[0]} is not installed")
        # Daemons and what they start get nothing of the caller's environment, signals or session.
        pid = os.posix_spawn(
            program,
            self._command,
            environment(self._settings),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD],
        )
        self._file.write_text(processes.identity(pid) or "")

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until the daemon answers.

        Args:
            ready: whether it does.
            seconds: how long to wait.

        Raises:
            ClusterError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid is None:
                raise ClusterError(f"{self.name} ended as it started; see {self._output}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.name} did not come up in {seconds:.0f} s; see {self.log}")
            time.sleep(0.05)

    def stop(self, grace: float = 10.0) -> None:
        """End the process: SIGTERM, and SIGKILL after a while.

        Args:
            grace: seconds between the two; 0 for SIGKILL at once.
        """
        pid = self.pid
        if pid is not None:
            processes.end(lambda: {pid} if self.pid == pid else set(), grace)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._file.unlink(missing_ok=True)


def environment(settings: Settings) -> dict[str, str]:
    """All that a daemon gets to see of the environment."""
    return {
        "PATH": packages.PATH,
        "LANG": "C.UTF-8",
        "HOME": str(Path.home()),
        "SLURM_CONF": str(settings.slurm_conf),
        MARK: str(settings.root),
        "MYSQL_UNIX_PORT": str(settings.database_socket),
    }


def daemons(settings: Settings) -> dict[str, Daemon]:
    """All daemons of a cluster.

    Args:
        settings: of the cluster.

    Returns:
        Name -> daemon, in the order in which they need each other.
    """
    root, conf = settings.root, str(settings.slurm_conf)
    commands = {
        # Its checks of the directories above are meant for a key that guards several machines.
        "munged": [
            *("munged", "--foreground", "--force", "--num-threads=10", f"--key-file={root}/munge.key"),
            *(f"--socket={settings.munge_socket}", f"--pid-file={root}/run/munged.pid"),
            f"--seed-file={root}/run/munged.seed",
        ],
        "mariadbd": [
            *("mariadbd", "--no-defaults", f"--datadir={root}/db", f"--user={settings.user}", "--skip-networking"),
            *(f"--socket={settings.database_socket}", f"--pid-file={root}/run/mariadbd.pid"),
            *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"),
        ],
        "slurmdbd": ["slurmdbd", "-D"],
        "slurmctld": ["slurmctld", "-D", "-f", conf],
        **{node: ["slurmd", "-D", "-N", node, "-f", conf] for node in NODES},
    }
    # Slurm's daemons write their log themselves and say the same, without the time, on stderr.
    return {
        name: Daemon(settings, name, command, settings.errors(name) if "-D" in command else None)
        for name, command in commands.items()
    }
