"""Stops a run: its orchestrator, its jobs, and everything they started."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import jobs, lease, rundir
from pipeline.errors import UserError
from pipeline.launchers import PARENTS, launcher_for
from pipeline.orchestrator import to_stderr
from slurm import batch, client, processes
from slurm.launcher import Job, Launcher, LaunchError

PATIENCE_SECONDS = 5.0


def cancel(run: Path, *, say: Callable[[str], None] = to_stderr, launcher: Launcher | None = None) -> tuple[str, ...]:
    """End everything of a run that lives; what is published stays, and the usual command continues it.

    Args:
        run: the run directory.
        say: shows one line to the user.
        launcher: how units reached a machine; None: as the config says.

    Returns:
        Names of the units that were cancelled.

    Raises:
        UserError: its orchestrator runs on another machine, or something of the run cannot be ended.
    """
    run = run.absolute()
    launcher = launcher or launcher_for(run, rundir.load(run), say)
    prefix = f"{rundir.identity(run)['id']}:"
    try:
        _stop_driver(run, launcher, prefix)
        with lease.Lease(run, say):
            opened = {unit: h.open for unit, h in jobs.histories(run).items() if h.open}
            recorded = [Job(r.key, r.job, r.host) for r in opened.values() if r.job]
            far = [job for job in recorded if job.host not in (socket.gethostname(), batch.HOST)]
            for job in far:
                pid = job.id.split(".")[0]
                say(f"{job.key} was submitted on {job.host}: if that machine still runs, end process {pid} there")
            found = launcher.find(prefix)
            launcher.cancel([*(job for job in recorded if job not in far), *found.values()])
            launcher.close()
            if left := launcher.find(prefix):
                first = next(iter(left.values()))
                raise UserError(f"{', '.join(left)} could not be ended: end {first.id} by hand")
            for unit, record in opened.items():
                jobs.append(
                    run,
                    "ended",
                    unit=str(unit),
                    attempt=record.attempt,
                    key=record.key,
                    job=record.job,
                    outcome="cancelled",
                    error="cancelled",
                    seconds=time.time() - record.time,
                )
    except (client.Unanswered, LaunchError) as error:
        raise UserError(f"{error}; some jobs may still run: give the same command again") from None
    return tuple(sorted(str(unit) for unit in opened))


def _stop_driver(run: Path, launcher: Launcher, prefix: str) -> None:
    """Detach the orchestrator, which would otherwise start everything again."""
    parents = {key: job for key, job in launcher.find(prefix).items() if key.partition(":")[2].startswith(PARENTS)}
    launcher.cancel(list(parents.values()))
    driver = lease.holder(run)
    if driver is None:
        return
    if driver.host != socket.gethostname():
        if driver.job and parents:
            return  # its job is gone, and the lease with it
        raise UserError(f"{run} is driven by {driver}: run this command there")
    deadline = time.monotonic() + PATIENCE_SECONDS
    os.kill(driver.pid, signal.SIGINT)
    while processes.alive(driver.process):
        if lease.holder(run) != driver:
            return
        if time.monotonic() > deadline:
            os.kill(driver.pid, signal.SIGKILL)  # nothing is lost by it
            deadline = time.monotonic() + PATIENCE_SECONDS
        time.sleep(0.05)
