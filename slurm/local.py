"""Jobs as processes of this machine, through submitit's local executor.

They outlive whoever submitted them, and are found again by the key in their environment. What submitit reports as a
result is not used.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from submitit.core.utils import JobPaths
from submitit.local.local import LocalExecutor, LocalJob

from slurm import processes
from slurm.entry import run_module
from slurm.launcher import KEY_VARIABLE, LOG, Job, Request, Sight
from slurm.states import State
from slurm.visible import DEVICES, named

CONTROLLER_LOG = "controller.log"


class ProcessLauncher:
    """What is true of jobs that are processes of this machine, however they are started."""

    def __init__(self, grace: float = 2.0) -> None:
        """Prepare.

        Args:
            grace: seconds between SIGTERM and SIGKILL when a job is cancelled.
        """
        self._grace, self._nodes = grace, socket.gethostname()
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, request: Request) -> dict[str, Job]:
        """Start jobs in sessions of their own.

        Args:
            request: what to run.

        Returns:
            Key -> job, whose id names its controlling process.
        """
        jobs = {}
        for key, single in request.members().items():
            process = self._start(single)
            # A job that ended at once is a zombie until polled, and has no name any more.
            name = processes.identity(process.pid) or f"{process.pid}.0.{processes.boot_id()}"
            jobs[key] = self._job(key, name)
            self._started[name] = process
        return jobs

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        """Look whether the controlling processes are there.

        Args:
            jobs: jobs of any process of this user.

        Returns:
            Key -> RUNNING, ENDED, or LOST for a job of another machine.
        """
        return {job.key: Sight(self._state(job), node=self._nodes) for job in jobs}

    def hurry(self) -> None:
        """Every look is a new one."""

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
                found.setdefault(key, self._job(key, name))
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs with all their processes: those with the key, and those of the job's session.

        Args:
            jobs: jobs of this machine, running or not.
        """
        keys = {job.key for job in jobs}
        names = [name for job in jobs if (name := self._process(job))]
        leaders = {int(name.split(".")[0]) for name in names if processes.alive(name)}

        def remaining() -> set[int]:
            self.poll(jobs)
            marked = {pid for key in keys for pid, value in processes.marked(KEY_VARIABLE, key).items() if value == key}
            return marked.union(*(processes.session_members(leader) for leader in leaders))

        processes.end(remaining, self._grace)

    def tidy(self, jobs: Sequence[Job]) -> None:
        """End children that outlived their jobs."""
        self.cancel(jobs)

    def close(self) -> None:
        """Nothing is kept."""

    def _start(self, request: Request) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _job(self, key: str, name: str) -> Job:
        """The job whose controlling process `processes.identity` calls by this name."""
        return Job(key, name, socket.gethostname())

    def _process(self, job: Job) -> str | None:
        """The name of a job's controlling process; None if that is not one of this machine."""
        return job.id if job.host == socket.gethostname() else None

    def _state(self, job: Job) -> State:
        name = self._process(job)
        if name is None:
            return State.LOST
        if (process := self._started.get(name)) and process.poll() is not None:
            del self._started[name]
            return State.ENDED
        return State.RUNNING if processes.alive(name) else State.ENDED


class LocalLauncher(ProcessLauncher):
    """Runs jobs as processes of this machine."""

    def _start(self, request: Request) -> subprocess.Popen[bytes]:
        executor = _DetachedExecutor(request)
        executor.update_parameters(timeout_min=request.options.time, signal_delay_s=0, stderr_to_stdout=True)
        submitted = executor.submit(run_module, request.module, request.arguments)
        log = request.folder / LOG
        log.unlink(missing_ok=True)
        log.symlink_to(submitted.paths.stdout.name)
        assert executor.process is not None
        return executor.process


class _DetachedExecutor(LocalExecutor):
    """submitit's local executor, whose jobs depend on nothing of the process that submits them."""

    def __init__(self, request: Request) -> None:
        # -P: a folder named like one of our packages in the current directory must not shadow it.
        super().__init__(request.folder, python=f"{shlex.quote(sys.executable)} -P")
        self.request = request
        self.process: subprocess.Popen[bytes] | None = None

    def _submit_command(self, command: str) -> LocalJob[Any]:
        timeout = int(60 * self.parameters["timeout_min"])
        gpus = self.request.seat.devices
        devices = {DEVICES: named(gpus, os.environ.get(DEVICES))} if gpus else {}
        environment = {
            **os.environ,
            **self.request.environment,
            **devices,
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
