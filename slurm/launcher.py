"""How a unit of work gets onto a machine: submit, poll, find, cancel.

`LocalLauncher` runs jobs as processes of this machine through submitit's local executor. Jobs outlive whoever submitted
them, and are found again by the key in their environment. What submitit reports as a result is not used.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from submitit.core.utils import JobPaths
from submitit.local.local import LocalExecutor, LocalJob

from slurm import processes
from slurm.entry import run_module
from slurm.states import State

KEY_VARIABLE = "BATON_KEY"
LOG, CONTROLLER_LOG = "log.txt", "controller.log"


@dataclasses.dataclass(frozen=True)
class Request:
    """A job to be submitted.

    Attributes:
        key: identifies the work; two jobs never carry the same one.
        module: dotted name of the module to run.
        arguments: its command line.
        folder: existing directory for the job's logs and submitit's files, used by no other job.
        environment: variables set beside those of this process.
        timeout_minutes: the job is ended after this time.
    """

    key: str
    module: str
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    timeout_minutes: int


@dataclasses.dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        key: of its request.
        id: names it to the launcher, now and in any later process.
        host: the machine that submitted it.
    """

    key: str
    id: str
    host: str


class Launcher(Protocol):
    """Submits jobs and knows about all of them, whoever submitted them."""

    def submit(self, request: Request) -> Job:
        """Submit one job."""

    def poll(self, jobs: Sequence[Job]) -> dict[str, State]:
        """State of every job by its key, from one look."""

    def find(self, prefix: str) -> dict[str, Job]:
        """Live jobs by key, for keys that start with `prefix`."""

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs and everything they started; returns when nothing of them is left."""


class LocalLauncher:
    """Runs jobs as processes of this machine."""

    def __init__(self, grace: float = 2.0) -> None:
        """Prepare.

        Args:
            grace: seconds between SIGTERM and SIGKILL when a job is cancelled.
        """
        self._grace = grace
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, request: Request) -> Job:
        """Start a job in a session of its own.

        Args:
            request: what to run.

        Returns:
            The job, whose id names its controlling process.
        """
        executor = _DetachedExecutor(request)
        executor.update_parameters(timeout_min=request.timeout_minutes, signal_delay_s=0, stderr_to_stdout=True)
        submitted = executor.submit(run_module, request.module, request.arguments)
        pid = int(submitted.job_id)
        log = request.folder / LOG
        log.unlink(missing_ok=True)
        log.symlink_to(submitted.paths.stdout.name)
        assert executor.process is not None
        # A job that ended at once is a zombie until polled, and has no name any more.
        job = Job(request.key, processes.identity(pid) or f"{pid}.0.{processes.boot_id()}", socket.gethostname())
        self._started[job.id] = executor.process
        return job

    def poll(self, jobs: Sequence[Job]) -> dict[str, State]:
        """Look whether the controlling processes are there.

        Args:
            jobs: jobs of any process of this user.

        Returns:
            Key -> RUNNING, ENDED, or LOST for a job of another machine.
        """
        return {job.key: self._state(job) for job in jobs}

    def find(self, prefix: str) -> dict[str, Job]:
        """Look for processes that carry a key.

        Args:
            prefix: what the keys start with.

        Returns:
            Key -> job. Of several processes with one key, the job is the one whose parent has another.
        """
        marked = processes.marked(KEY_VARIABLE, prefix)
        found: dict[str, Job] = {}
        for pid, key in sorted(marked.items()):
            name = processes.identity(pid)
            if name and marked.get(processes.parent(pid) or 0) != key:
                found.setdefault(key, Job(key, name, socket.gethostname()))
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs with all their processes: those with the key, and those of the job's session.

        Args:
            jobs: jobs of this machine, running or not.
        """
        keys = {job.key for job in jobs}
        leaders = {int(job.id.split(".")[0]) for job in jobs if processes.alive(job.id)}

        def remaining() -> set[int]:
            self.poll(jobs)
            marked = {pid for key in keys for pid, value in processes.marked(KEY_VARIABLE, key).items() if value == key}
            return marked.union(*(processes.session_members(leader) for leader in leaders))

        processes.end(remaining, self._grace)

    def _state(self, job: Job) -> State:
        if job.host != socket.gethostname():
            return State.LOST
        if (process := self._started.get(job.id)) and process.poll() is not None:
            del self._started[job.id]
            return State.ENDED
        return State.RUNNING if processes.alive(job.id) else State.ENDED


class _DetachedExecutor(LocalExecutor):
    """submitit's local executor, whose jobs depend on nothing of the process that submits them."""

    def __init__(self, request: Request) -> None:
        # -P: a folder named like one of our packages in the current directory must not shadow it.
        super().__init__(request.folder, python=f"{shlex.quote(sys.executable)} -P")
        self.request = request
        self.process: subprocess.Popen[bytes] | None = None

    def _submit_command(self, command: str) -> LocalJob[Any]:
        timeout = int(60 * self.parameters["timeout_min"])
        environment = {
            **os.environ,
            **self.request.environment,
            KEY_VARIABLE: self.request.key,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_TIMEOUT_S": str(timeout),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(self.parameters["signal_delay_s"]),
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1" if self.parameters["stderr_to_stdout"] else "",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
        }
        # submitit renames the pickle after it has started the job, which would wait in vain if we were killed between.
        # The job therefore links it itself under the name it expects, which holds its pid, unless it is there already.
        pickle = next(JobPaths.get_first_id_independent_folder(self.folder).glob("*.pkl"))
        script = 'ln "$1" "$2/$$_submitted.pkl" 2>/dev/null; shift 2; exec "$@"'
        controller = [sys.executable, "-P", "-m", "submitit.local._local", str(self.folder)]
        # A session of its own: Ctrl-C and a closed terminal do not reach it.
        with (self.request.folder / CONTROLLER_LOG).open("wb") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", str(pickle), str(self.folder), *controller],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return LocalJob(self.folder, str(self.process.pid), process=self.process, tasks=[0])
