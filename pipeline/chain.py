"""schedule=chain: units are submitted epochs ahead, each after what it needs, and nothing of ours stays alive.

A unit that fails leaves all after it cancelled; `baton run` submits again what is missing. The last link is a small
job that writes the results and, where `slurm.chain_epochs` is set, submits the next epochs: `python -m pipeline.chain
RUN`.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import ledger, resources, rundir
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.failures import disk_full_explained
from pipeline.launchers import launcher_for
from pipeline.lease import Lease
from pipeline.ledger import Snapshot
from pipeline.machine import Machine
from pipeline.orchestrator import Loop, to_stderr
from pipeline.report.tables import write_report
from pipeline.submission import Sender, families, open_jobs
from slurm import client
from slurm.batch import JOB_VARIABLE
from slurm.launcher import Job, Launcher, LaunchError, Request, TryLater

# How long a job may take from the end of its script to its own.
ENDING_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Extended:
    """What a call came to.

    Attributes:
        snapshot: the run's state.
        submitted: jobs of units submitted by this call.
        finished: everything is published.
        short: why not all could be submitted; None if they were.
    """

    snapshot: Snapshot
    submitted: int
    finished: bool
    short: str | None = None


def extend(
    run: Path,
    *,
    conclude: Callable[[Path], object] = lambda run: None,
    say: Callable[[str], None] = to_stderr,
    launcher: Launcher | None = None,
    stages_package: str = "stages",
) -> Extended:
    """Submit every unit that is neither published nor in the queue, in a chain.

    Args:
        run: the run directory.
        conclude: called when all is published.
        say: shows one line to the user.
        launcher: how units reach a machine; None: as the config says.
        stages_package: package whose modules do the work.

    Returns:
        What was done.

    Raises:
        UserError: somebody else drives the run, Slurm refuses a unit (then none of this call stays in the queue), or a
            stage met a user's mistake.
    """
    run = run.absolute()
    config = rundir.load(run)
    launcher = launcher or launcher_for(run, config, say)
    with disk_full_explained(run), Lease(run, say):
        sender = Sender.of(run, stages_package)
        loop = Loop(run, launcher, Machine(), sender, say)
        loop.begin()
        loop.settle()
        deadline = time.monotonic() + ENDING_SECONDS
        while loop.failing() and time.monotonic() < deadline:
            time.sleep(0.5)
            loop.settle()
        snapshot = loop.look()
        loop.raise_failures(snapshot)
        if loop.finished(snapshot):
            conclude(run)
            _track(run, config)
            return Extended(snapshot, 0, True)
        if broken := _broken(snapshot):
            launcher.cancel(broken)
            loop.settle()
            snapshot = loop.look()
        submitted, short = _link(loop, snapshot, launcher)
        if short is None:
            short = _close(run, config, sender, launcher)
        return Extended(ledger.read(run), len(submitted), False, short)


def _broken(snapshot: Snapshot) -> list[Job]:
    """Jobs of an earlier chain that wait for what failed; Slurm cancels them itself, but not at once."""
    opened = {unit: job for unit, _, job in open_jobs(snapshot.run).values()}
    sound = {state.unit for state in snapshot.units if state.status == "published"}
    broken = []
    for plan in ledger.run_plan(snapshot.run, snapshot.config):  # in plan order, so one pass reaches everything
        if plan.unit in opened:
            if sound.issuperset(plan.needs):
                sound.add(plan.unit)
            else:
                broken.append(opened[plan.unit])
    return broken


def _link(loop: Loop, snapshot: Snapshot, launcher: Launcher) -> tuple[list[Job], str | None]:
    """Submit what is missing, in plan order."""
    config, run = snapshot.config, snapshot.run
    status = {state.unit: state.status for state in snapshot.units}
    first = min(state.unit.epoch for state in snapshot.units if state.status != "published")
    last = config.epochs if config.slurm.chain_epochs is None else first + config.slurm.chain_epochs - 1
    missing = [
        plan for plan in ledger.run_plan(run, config) if status[plan.unit] == "waiting" and plan.unit.epoch <= last
    ]
    submitted: list[Job] = []
    for family in families(missing):
        ids = {unit: job.id for unit, _, job in open_jobs(run).values()}
        needs = [need for need in family[0].needs if status[need] != "published"]
        try:
            submitted += loop.submitter.submit(family, config, after=[ids[need] for need in needs])
        except (TryLater, client.Unanswered) as error:
            return submitted, f"{error}; epochs up to {family[0].unit.epoch} are in the queue as far as they fit"
        except UserError:
            launcher.cancel(submitted)
            loop.settle()
            raise
    return submitted, None


def _close(run: Path, config: Config, sender: Sender, launcher: Launcher) -> str | None:
    """Submit the last link, unless it is there."""
    key = f"{sender.id}:chain:"
    folder = run / "attempts" / "chain" / str(int(time.time()))
    share = resources.Share(1, 1, 0, 1)
    try:
        # One of an earlier chain waits for what will never be; this very process may be one that is at work.
        earlier = [job for job in launcher.find(key).values() if job.id != os.environ.get(JOB_VARIABLE)]
        launcher.cancel(earlier)
        folder.mkdir(parents=True)
        launcher.submit(
            Request(
                key=f"{key}{folder.name}",
                name=f"{config.name}-chain",
                module="pipeline.chain",
                arguments=(str(run),),
                folder=folder,
                environment=sender.environment(share),
                options=resources.options(config, "orchestrator"),
                after=tuple(job.id for _, _, job in open_jobs(run).values()),
            )
        )
    except (TryLater, client.Unanswered, LaunchError) as error:
        return f"{error}; the results are written by the next `baton run`"
    return None


def _track(run: Path, config: Config) -> None:
    if config.trainer.logger.enabled:
        # What goes wrong is in its own log, and `baton track` makes up for it.
        subprocess.run([sys.executable, "-m", "pipeline.tracking", str(run)], check=False)


if __name__ == "__main__":
    try:
        done = extend(Path(sys.argv[1]), conclude=write_report)
    except UserError as error:
        print(f"baton: {error}", file=sys.stderr)
        sys.exit(UserError.EXIT_CODE)
    print(
        "all is published" if done.finished else f"submitted {done.submitted} units; {done.short or 'all in the queue'}"
    )
