"""Which launcher carries a run's units: Slurm, this machine, or the allocation this process runs in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline import rundir
from pipeline.config import Config
from pipeline.errors import UserError
from slurm import client
from slurm.batch import JOB_VARIABLE, SlurmLauncher
from slurm.launcher import Launcher

# Set in the job that holds the allocation of schedule=pilot.
PILOT_VARIABLE = "BATON_PILOT"
# Set in every job that looks after a run.
PARENT_VARIABLE = "BATON_PARENT"
# Last part of the keys of jobs that are no unit but look after units.
PARENTS = ("orchestrator", "pilot", "chain")
Where = Literal["slurm", "local", "allocation"]


def where(config: Config) -> Where:
    """Where the units of a run go.

    Raises:
        UserError: Slurm is asked for and is not there, or a schedule needs it.
    """
    slurm = config.slurm
    try:
        there = slurm.launcher != "local" and client.configured()
    except client.Unanswered as error:
        raise UserError(
            f"{error}: mend SLURM_CONF or Slurm's configuration, or set slurm.launcher=local to do without Slurm"
        ) from None
    if slurm.launcher == "auto" and not there and os.environ.get(PARENT_VARIABLE):
        raise UserError(
            "this job looks after a run on Slurm, and no sbatch on its node knows a cluster: let it run where one does "
            "(slurm.orchestrator.partition, nodelist or setup), or use `baton run` on a login node"
        )
    if slurm.launcher == "local" or (slurm.launcher == "auto" and not there):
        if slurm.schedule == "chain":
            raise UserError(
                "slurm.schedule=chain needs Slurm, which keeps the chain, and no sbatch here knows a cluster: "
                "set slurm.schedule=supervise"
            )
        return "local"
    if not there:
        raise UserError(
            "slurm.launcher=slurm, but there is no sbatch that knows a cluster on this machine: run this on a login "
            "node, or set slurm.launcher=local"
        )
    if slurm.schedule == "pilot" and os.environ.get(PILOT_VARIABLE) and os.environ.get(JOB_VARIABLE):
        return "allocation"
    return "slurm"


def launcher_for(run: Path, config: Config, say: Callable[[str], None] = lambda line: None) -> Launcher:
    """The launcher of a run.

    Args:
        run: the run directory, absolute.
        config: its config.
        say: shows one line to the user.

    Raises:
        UserError: as `where`.
    """
    place = where(config)
    if place == "slurm":
        unattended = config.slurm.schedule == "chain" and config.slurm.requeue
        return SlurmLauncher(config.slurm.query_seconds, say=say, requeues_itself=unattended)
    # These load submitit, a tenth of a second that a look at a run on Slurm need not spend.
    from slurm.local import LocalLauncher
    from slurm.residents import ResidentLauncher
    from slurm.steps import StepLauncher

    inner: Launcher = LocalLauncher() if place == "local" else StepLauncher()
    # Also where stages no longer stay up: orders of an earlier session may be open.
    return ResidentLauncher(inner, run / "attempts" / "residents", rundir.identity(run)["id"])
