"""Jobs as steps of an allocation that this process runs in: `srun`, without waiting for the queue."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from collections.abc import Sequence

from slurm import client
from slurm.batch import HOST, JOB_VARIABLE, STEP_MARK, SlurmLauncher
from slurm.launcher import KEY_VARIABLE, LOG, SCRIPT, Job, Request, Sight
from slurm.local import ProcessLauncher
from slurm.processes import alive
from slurm.script import srun


class StepLauncher(ProcessLauncher):
    """Runs jobs as steps; the process of a job is its `srun`. Ids are `<allocation>+<process>`."""

    def __init__(self, grace: float = 15.0) -> None:
        """Prepare.

        Args:
            grace: seconds between SIGTERM, which srun hands on to the step, and SIGKILL.
        """
        super().__init__(grace)
        self._allocation = os.environ[JOB_VARIABLE]
        self._nodes = os.environ.get("SLURM_JOB_NODELIST", self._nodes)
        self._others = SlurmLauncher()

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        """Look at the steps of this allocation, and in the queue for what was submitted otherwise."""
        ours = [job for job in jobs if self._process(job)]
        return {**super().poll(ours), **self._others.poll([job for job in jobs if job not in ours])}

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End steps with all their processes, on whichever nodes of the allocation they are."""
        ours = [job for job in jobs if self._process(job)]
        if names := {step_name(job.key) for job in ours if alive(self._process(job) or "0")}:
            command = ["squeue", "--noheader", "--steps", f"--jobs={self._allocation}", "--format=%i %j"]
            steps = [line.partition(" ") for line in client.run(command).splitlines()]
            client.cancel([id_ for id_, _, name in steps if name in names])
        super().cancel(ours)
        self._others.cancel([job for job in jobs if job not in ours])

    def _start(self, request: Request) -> subprocess.Popen[bytes]:
        # Whoever submits counts cores and GPUs, and an idle stage that stays up holds none: steps overlap, see
        # all GPUs of the allocation on their node, and are told which of those are theirs.
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        shown = os.environ.get("SLURM_GPUS_ON_NODE", "0") if request.gpus else "0"
        options = [f"--job-name={step_name(request.key)}", "--overlap", "--mem=0", "--input=none"]
        options += [f"--relative={request.seat.node % nodes}", f"--gres=gpu:{shown}" if shown != "0" else "--gres=none"]
        command = srun(on_some_gpus(request) if request.seat.devices else request, *options)
        environment = {**os.environ, **request.environment, KEY_VARIABLE: request.key}
        (request.folder / SCRIPT).write_text(shlex.join(command) + "\n")
        with (request.folder / LOG).open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _job(self, key: str, name: str) -> Job:
        return Job(key, f"{self._allocation}{STEP_MARK}{name}", HOST)

    def _process(self, job: Job) -> str | None:
        allocation, mark, name = job.id.partition(STEP_MARK)
        return name if job.host == HOST and mark and allocation == self._allocation else None


def on_some_gpus(request: Request) -> Request:
    """A request whose module starts with its own GPUs of all that its step is shown."""
    gpus = ",".join(map(str, request.seat.devices))
    return dataclasses.replace(request, module="slurm.entry", arguments=(gpus, request.module, *request.arguments))


def step_name(key: str) -> str:
    """Name of the step of a job: unit and attempt."""
    return key.partition(":")[2]
