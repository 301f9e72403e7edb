"""The job that looks after a run from inside Slurm: the supervising loop, or the allocation of schedule=pilot.

Both are `slurm/baton.sbatch`, which runs `baton run`.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pipeline import ledger, resources, rundir
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.launchers import PARENT_VARIABLE, PILOT_VARIABLE, launcher_for
from pipeline.ledger import Snapshot
from pipeline.plan import UnitPlan, make_plan
from slurm import client
from slurm.batch import SlurmLauncher
from slurm.launcher import Job, LaunchError, TryLater
from slurm.script import gpu_request, header
from slurm.states import State

Kind = Literal["orchestrator", "pilot"]
SCRIPT = Path(__file__).resolve().parent.parent / "slurm" / "baton.sbatch"


def submit(run: Path, kind: Kind, say: Callable[[str], None]) -> tuple[Job, Path]:
    """Submit the job, unless there is one.

    Args:
        run: the run directory.
        kind: which of the two.
        say: shows one line to the user.

    Returns:
        The job and its log.

    Raises:
        UserError: Slurm refuses it or does not answer, or the run is driven by somebody else.
    """
    run = run.absolute()
    config, id_ = rundir.load(run), rundir.identity(run)["id"]
    launcher = launcher_for(run, config, say)
    key = f"{id_}:{kind}"
    log = run / f"{kind}.log"
    try:
        if there := launcher.find(key).get(key):
            say(f"job {there.id} looks after {run} already")
            return there, log
        if driver := ledger.read(run).driver:
            raise UserError(f"{run} is driven by {driver}: stop that first (units that run go on)")
        # The run's own config: a recipe that is edited meanwhile is no concern of a job that starts again.
        arguments = [str(run / rundir.CONFIG)]
        base = client.sbatch(SCRIPT, sbatch_options(config, kind, key, log), arguments, _variables(config, kind))
    except (LaunchError, TryLater, client.Unanswered) as error:
        raise UserError(f"{error}; mend slurm.{kind} or slurm, and give the same command again") from None
    return Job(key, base, "slurm"), log


def watch(run: Path, job: Job, show: Callable[[Snapshot], None], say: Callable[[str], None]) -> Snapshot:
    """Show a run that a job looks after until that job has ended.

    Args:
        run: the run directory.
        job: looks after it.
        show: called with the state of the run whenever it has changed.
        say: shows one line to the user.

    Returns:
        The last state.
    """
    config = rundir.load(run)
    launcher = SlurmLauncher(config.slurm.query_seconds, say=say)
    shown: Snapshot | None = None
    while True:
        sights = launcher.poll([job])
        over = sights[job.key].state is State.ENDED
        snapshot = ledger.read(run).seen(sights)
        if snapshot != shown:
            show(snapshot)
            shown = snapshot
        if over:
            return snapshot
        if all(state.status == "published" for state in snapshot.units):
            launcher.hurry()
        time.sleep(max(config.slurm.poll_seconds, 0.2))


def allocation(config: Config, plans: Sequence[UnitPlan]) -> tuple[int, int, int, str | None]:
    """What schedule=pilot holds: nodes, cores and GPUs on each, and the kind of GPU.

    Enough for the rollouts of an epoch, or the update, and an evaluation beside them.

    Raises:
        UserError: its units belong to different partitions or kinds of GPU.
    """
    shares = {plan.unit: plan.share for plan in plans if plan.unit.epoch <= 1}
    for what in ("partition", "gpu_type"):
        kinds = sorted({str(value) for share in shares.values() if (value := getattr(share, what))})
        if len(kinds) > 1:
            raise UserError(
                f"schedule=pilot holds one allocation, and cluster.node_groups asks for {' and '.join(kinds)}: use "
                f"slurm.schedule=supervise, which gives each stage jobs of its own"
            )
    own = config.slurm.pilot
    nodes = own.nodes or (config.cluster.num_nodes if any(s.gpus for s in shares.values()) else 1)
    by_stage: dict[str, int] = {}
    for unit, share in shares.items():
        by_stage[unit.stage] = by_stage.get(unit.stage, 0) + share.cores
    beside = by_stage.pop("evaluate", 0) // 2 if len(shares) > 1 else 0
    cores = own.cpus or -(-(max(by_stage.values()) + beside) // nodes)
    placed = resources.place(config)
    gpus = 0 if placed.cpu else placed.all_gpus // config.cluster.num_nodes
    kind = next((share.gpu_type for share in shares.values() if share.gpu_type), None)
    return nodes, cores, gpus, kind


def sbatch_options(config: Config, kind: Kind, key: str, log: Path) -> list[str]:
    """What the job asks of Slurm, as options of sbatch."""
    own = resources.options(config, kind)
    named: dict[str, object] = {
        "job-name": f"{config.name}-{kind}",
        "comment": key,
        "output": log,
        "time": own.time,
        "signal": f"B:USR2@{own.signal_seconds}",
    }
    if kind == "pilot":
        nodes, cores, gpus, gpu_type = allocation(config, make_plan(config))
        named |= {"nodes": nodes, "ntasks-per-node": 1, "cpus-per-task": cores}
        named |= header(own, gpu_request(gpus, gpu_type))
    else:
        named |= {"cpus-per-task": config.slurm.orchestrator.cpus or 1, **header(own)}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in named.items()]


def _variables(config: Config, kind: Kind) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(rundir.package_root()), os.environ.get("PYTHONPATH"))))
    python = config.slurm.orchestrator.python or shlex.quote(sys.executable)
    setup = resources.options(config, kind).setup
    return {
        "PYTHONPATH": path,
        "BATON": f"{python} -m pipeline.cli",
        "BATON_SETUP": "\n".join(setup),
        PARENT_VARIABLE: "1",
        **({PILOT_VARIABLE: "1"} if kind == "pilot" else {}),
    }
