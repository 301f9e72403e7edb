"""Units -> what a launcher is asked for -> jobs, each step written down before and after it is taken."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline import jobs, resources, rundir
from pipeline.artifacts import Unit, attempt_directory, new_attempt, supersede
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.jobs import History
from pipeline.plan import UnitPlan
from slurm.launcher import SCRIPT, Job, Launcher, LaunchError, Request, Seat, TryLater
from slurm.options import Options

# glibc gives freed blocks back to the kernel and faults them in again at every step of a small policy: keep them.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
RESIDENT = ("rollout", "update", "evaluate")


@dataclasses.dataclass(frozen=True)
class Sender:
    """What all submissions of a run have in common.

    Attributes:
        run: the run directory, absolute.
        id: of the run.
        revision: of the code.
        package: package whose modules do the work.
    """

    run: Path
    id: str
    revision: str
    package: str = "stages"

    @classmethod
    def of(cls, run: Path, package: str = "stages") -> Sender:
        """The sender of a run with the code that is here."""
        code = rundir.code_identity()
        revision = code["revision"] or f"sources {str(code['digest'])[:12]}"
        return cls(run, rundir.identity(run)["id"], revision, package)

    def key(self, unit: Unit, attempt: int) -> str:
        """What the job of an attempt carries."""
        return f"{self.id}:{unit}:{attempt}"

    def request(
        self,
        config: Config,
        plans: Sequence[UnitPlan],
        attempt: int,
        history: History,
        after: Sequence[str] = (),
    ) -> Request:
        """The request for units of one stage and epoch, which differ in their shard only.

        Args:
            config: the run's config.
            plans: the units.
            attempt: number of the attempt, the same for all.
            history: what has been tried at them, the same as far as memory and time go.
            after: ids of jobs that must have succeeded before.
        """
        unit, share = plans[0].unit, plans[0].share
        pattern = str(unit) if unit.shard is None else f"{dataclasses.replace(unit, shard=None)}-s%4a"
        shard = () if unit.shard is None else ("--shard", "%a")
        training = unit.stage in resources.TRAINING
        own = getattr(config.slurm, unit.stage)
        return Request(
            key=f"{self.id}:{pattern}:{attempt}",
            name=f"{config.name}-e{unit.epoch:04d}-{unit.stage}",
            module=f"{self.package}.{plans[0].module}",
            arguments=(str(self.run), "--epoch", str(unit.epoch), *shard, "--attempt", str(attempt)),
            folder=self.run / "attempts" / pattern / str(attempt),
            environment=self.environment(share),
            options=grown(config, resources.options(config, unit.stage, share), history),
            tasks=share.processes,
            nodes=share.nodes,
            cpus=own.cpus or config.slurm.cpus or (share.threads if training else share.cores),
            gpus=share.gpus,
            gpu_type=share.gpu_type,
            seats=tuple(Seat(plan.share.node, plan.share.devices) for plan in plans),
            indices=tuple(plan.unit.shard for plan in plans if plan.unit.shard is not None),
            after=tuple(after),
            resident=pattern.partition("-")[2] if config.slurm.follow and unit.stage in RESIDENT else None,
        )

    def environment(self, share: resources.Share) -> dict[str, str]:
        """Variables of a stage's process."""
        path = os.pathsep.join(filter(None, (str(rundir.package_root()), os.environ.get("PYTHONPATH"))))
        cell = {resources.CELL_VARIABLE: share.cell} if share.cell else {}
        threads = dict.fromkeys(THREAD_VARIABLES, str(share.threads))
        return {"PYTHONPATH": path, "BATON_CODE_REVISION": self.revision, **ALLOCATOR, **threads, **cell}


def grown(config: Config, options: Options, history: History) -> Options:
    """More of what earlier tries ran out of, and what a `baton retry` asked for."""
    memory = history.outgrown.get("memory", 0)
    time = history.outgrown.get("timeout", 0)
    mem = history.mem or options.mem
    if memory and config.slurm.mem_growth > 1 and mem is None:
        raise UserError(
            "slurm.mem_growth multiplies slurm.mem, which is not set: set slurm.mem, for all stages or the one that "
            "ran out of memory"
        )
    return dataclasses.replace(
        options,
        mem=None if mem is None else resources.grown(mem, config.slurm.mem_growth**memory),
        time=round((history.minutes or options.time) * config.slurm.time_growth**time),
    )


class Submitter:
    """Submits units of a run, whose lease is held."""

    def __init__(self, run: Path, launcher: Launcher, sender: Sender) -> None:
        """Prepare; nothing is submitted yet.

        Args:
            run: the run directory.
            launcher: how units reach a machine.
            sender: what all submissions have in common.
        """
        self._run, self._launcher, self._sender = run, launcher, sender

    def submit(self, family: Sequence[UnitPlan], config: Config, after: Sequence[str] = ()) -> list[Job]:
        """Submit shards of one stage and epoch; those with another number of attempts behind them go separately.

        Args:
            family: the units.
            config: the run's config.
            after: ids of jobs that must have succeeded before.

        Returns:
            Their jobs.

        Raises:
            UserError: they are refused.
            TryLater: a limit is reached; those that were not submitted may be later.
            Unanswered: it is not known of some whether they were accepted.
        """
        submitted: list[Job] = []
        for history, members in _alike(family, jobs.histories(self._run)):
            numbered: dict[int, list[UnitPlan]] = {}
            for plan in members:
                numbered.setdefault(self._new_attempt(plan.unit), []).append(plan)
            for attempt, plans in sorted(numbered.items()):
                submitted += self._submit(self._sender.request(config, plans, attempt, history, after), plans, attempt)
        return submitted

    def resolve(self) -> None:
        """Find out about submissions of which it was not written down what became of them.

        Raises:
            Unanswered: Slurm does not say.
        """
        unrecorded = {unit: h.open for unit, h in jobs.histories(self._run).items() if h.open and not h.open.job}
        live = self._launcher.find(f"{self._sender.id}:") if unrecorded else {}
        for unit, record in unrecorded.items():
            if job := live.get(record.key):
                self._record_submitted(unit, record.attempt, job)
            else:
                self._unsubmitted(unit, record.attempt, record.key, "there is no job of it")

    def _submit(self, request: Request, plans: Sequence[UnitPlan], attempt: int) -> list[Job]:
        units = dict(zip(request.members(), [plan.unit for plan in plans], strict=True))
        for key, unit in units.items():
            jobs.append(self._run, "submit", unit=str(unit), attempt=attempt, key=key, host=os.uname().nodename)
        try:
            accepted = self._launcher.submit(request)
        except (LaunchError, TryLater) as error:
            for key, unit in units.items():
                self._unsubmitted(unit, attempt, key, str(error))
                if isinstance(error, TryLater):  # which may go on for hours
                    shutil.rmtree(attempt_directory(self._run, unit, attempt))
            if isinstance(error, TryLater):
                raise
            script = attempt_directory(self._run, plans[0].unit, attempt) / SCRIPT
            raise UserError(
                f"{request.name}: {error}; mend slurm.{plans[0].unit.stage} or slurm, and run the same command again "
                f"(the script: {script})"
            ) from None
        for key, job in accepted.items():
            self._record_submitted(units[key], attempt, job)
        return list(accepted.values())

    def _new_attempt(self, unit: Unit) -> int:
        for relative in unit.outputs.values():
            supersede(self._run, relative, f"left by a publication of {unit} that was cut short")
        return new_attempt(self._run, unit)

    def _record_submitted(self, unit: Unit, attempt: int, job: Job) -> None:
        jobs.append(self._run, "submitted", unit=str(unit), attempt=attempt, key=job.key, job=job.id, host=job.host)

    def _unsubmitted(self, unit: Unit, attempt: int, key: str, why: str) -> None:
        jobs.append(self._run, "ended", unit=str(unit), attempt=attempt, key=key, outcome="unsubmitted", error=why)


def families(plans: Iterable[UnitPlan]) -> list[list[UnitPlan]]:
    """Group units that one submission can hold: neighbours of one stage and epoch."""
    return [list(group) for _, group in itertools.groupby(plans, lambda p: (p.unit.epoch, p.unit.stage))]


def open_jobs(run: Path) -> dict[str, tuple[Unit, jobs.Record, Job]]:
    """Jobs that have been submitted and not been seen to end, by key."""
    found = {}
    for unit, history in jobs.histories(run).items():
        if (record := history.open) and record.job:
            found[record.key] = (unit, record, Job(record.key, record.job, record.host))
    return found


def _alike(family: Iterable[UnitPlan], tried: dict[Unit, jobs.History]) -> list[tuple[jobs.History, list[UnitPlan]]]:
    """Units that ask for the same."""
    found: dict[tuple[object, ...], tuple[jobs.History, list[UnitPlan]]] = {}
    for plan in family:
        history = tried.get(plan.unit, jobs.History())
        share = dataclasses.replace(plan.share, node=0, devices=(), places=())  # each has a seat of its own
        asks = (share, history.mem, history.minutes, *sorted(history.outgrown.items()))
        found.setdefault(asks, (history, []))[1].append(plan)
    return list(found.values())
