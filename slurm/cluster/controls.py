"""A running cluster: bringing it up and down, and breaking it the way machines break."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import time
from pathlib import Path

from slurm import processes
from slurm.cluster import packages
from slurm.cluster.config import NODES, Settings
from slurm.cluster.daemons import Daemon, daemons
from slurm.cluster.errors import ClusterError
from slurm.cluster.leftovers import job_processes

UP = {"idle", "mixed", "allocated", "completing", "planned"}
"""States of a node that can take jobs."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster that is up, or was.

    Attributes:
        settings: where it is and how it is reached.
    """

    settings: Settings

    @property
    def root(self) -> Path:
        """The directory that holds everything of it."""
        return self.settings.root

    @property
    def environment(self) -> dict[str, str]:
        """What makes Slurm's clients talk to this cluster."""
        return {"SLURM_CONF": str(self.settings.slurm_conf)}

    def run(self, *command: str, seconds: float = 60.0) -> str:
        """Run a Slurm client against this cluster.

        Args:
            command: the client and its arguments.
            seconds: how long it may take.

        Returns:
            What it wrote to stdout.

        Raises:
            ClusterError: it failed or took too long.
        """
        path = f"{os.environ.get('PATH', '')}:{packages.PATH}"
        words = " ".join(command)
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "PATH": path, **self.environment},
                capture_output=True,
                text=True,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"`{words}` took more than {seconds:.0f} s; see {self.root / 'log'}") from None
        if done.returncode:
            raise ClusterError(f"`{words}` failed: {done.stderr.strip() or f'code {done.returncode}'}")
        return done.stdout

    def nodes(self) -> dict[str, str]:
        """Ask the controller for the nodes.

        Returns:
            Node -> state in Slurm's words, e.g. `idle`, `mixed`, `down*` (the star: it does not answer).

        Raises:
            ClusterError: the controller does not answer.
        """
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %T", seconds=10.0).splitlines()
        return dict(line.split() for line in lines)

    def controller_answers(self) -> bool:
        """Whether slurmctld answers its clients."""
        return self._answers("scontrol", "show", "config")

    def accounting_answers(self) -> bool:
        """Whether slurmdbd answers its clients."""
        return self._answers("sacctmgr", "-n", "show", "cluster")

    def wait_ready(self, seconds: float = 90.0) -> None:
        """Wait until accounting and controller answer and every node can take jobs.

        Args:
            seconds: how long to wait for each of them.

        Raises:
            ClusterError: one did not come up; names its log.
        """
        self._daemon("slurmdbd").wait(self.accounting_answers, seconds)
        self._daemon("slurmctld").wait(self.controller_answers, seconds)
        for node, state in self.nodes().items():
            if state not in UP:
                self._wait_node(node, seconds)

    def cancel_all(self, seconds: float = 90.0) -> None:
        """End every job at once, and wait until the controller has no more of them.

        Args:
            seconds: how long to wait.

        Raises:
            ClusterError: some are still there.
        """
        user = f"--user={self.settings.user}"
        deadline = time.monotonic() + seconds
        # A job that ignores SIGTERM would keep its node for KillWait.
        while jobs := self.run("squeue", "-h", "-o", "%i %T", user).split("\n")[:-1]:
            for words in (["--signal=KILL", "--full"], []):
                with contextlib.suppress(ClusterError):  # a job that is ending takes no signals
                    self.run("scancel", *words, user)
            if time.monotonic() > deadline:
                raise ClusterError(f"jobs do not end: {', '.join(jobs)}; see {self.settings.log('slurmctld')}")
            time.sleep(0.1)

    def kill_node(self, name: str, *, daemon_only: bool = False) -> None:
        """Make a node die like a machine that loses power.

        The controller notices within half a minute, or when `declare_dead` tells it; what ran there is then requeued
        or ends as NODE_FAIL.

        Args:
            name: of the node.
            daemon_only: leave the processes of its jobs alone, as when only slurmd crashes.
        """
        _check_node(name)
        self._daemon(name).stop(grace=0.0)
        if not daemon_only:
            processes.end(lambda: job_processes(self.settings, name), grace=0.0)

    def declare_dead(self, name: str) -> None:
        """Make the controller notice now that a node is dead.

        Args:
            name: of the node.

        Raises:
            ClusterError: the controller does not answer.
        """
        _check_node(name)
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=dead")

    def start_node(self, name: str, seconds: float = 90.0) -> None:
        """Boot a node, and tell the controller to use it again.

        Args:
            name: of the node.
            seconds: how long to wait until it can take jobs.

        Raises:
            ClusterError: it did not come up.
        """
        _check_node(name)
        self._daemon(name).start()
        self._wait_node(name, seconds)

    def stop_controller(self) -> None:
        """Stop slurmctld: no client gets an answer, jobs run on."""
        self._daemon("slurmctld").stop()

    def start_controller(self, seconds: float = 90.0) -> None:
        """Start slurmctld with the jobs it knew.

        Args:
            seconds: how long to wait until it answers.

        Raises:
            ClusterError: it did not come up.
        """
        daemon = self._daemon("slurmctld")
        daemon.start()
        daemon.wait(self.controller_answers, seconds)

    def stop_accounting(self) -> None:
        """Stop slurmdbd: sacct and sacctmgr fail, jobs are taken and run on; nothing is lost."""
        self._daemon("slurmdbd").stop()

    def start_accounting(self, seconds: float = 90.0) -> None:
        """Start slurmdbd.

        Args:
            seconds: how long to wait until it answers.

        Raises:
            ClusterError: it did not come up.
        """
        daemon = self._daemon("slurmdbd")
        daemon.start()
        daemon.wait(self.accounting_answers, seconds)

    def _daemon(self, name: str) -> Daemon:
        return daemons(self.settings)[name]

    def _answers(self, *command: str) -> bool:
        with contextlib.suppress(ClusterError):
            self.run(*command, seconds=5.0)
            return True
        return False

    def _wait_node(self, name: str, seconds: float) -> None:
        def takes_jobs() -> bool:
            with contextlib.suppress(ClusterError):
                if self.nodes()[name].rstrip("-") in UP:
                    return True
                # A node that was found dead stays so until it is resumed; others refuse to be.
                self.run("scontrol", "update", f"nodename={name}", "state=resume")
            return False

        self._daemon(name).wait(takes_jobs, seconds)


def _check_node(name: str) -> None:
    if name not in NODES:
        raise ClusterError(f"there is no node {name!r}; the nodes are {', '.join(NODES)}")
