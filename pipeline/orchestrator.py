"""Carries a run out: observe, decide, submit.

The loop has no memory. What is done is what is published; what was submitted is in `jobs.jsonl` and, should we have
been killed before writing it there, in the key that each job carries. It may be killed at any line.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import jobs, ledger, retention, rundir
from pipeline.artifacts import Unit, attempt_directory, clear_scratch, new_attempt, supersede
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.follower import following
from pipeline.lease import Lease
from pipeline.ledger import Snapshot, UnitState
from pipeline.plan import UnitPlan, by_urgency, check_cores, check_placement, machine_cores
from slurm.launcher import LOG, Job, Launcher, LocalLauncher, Request
from slurm.states import State

# After its artifact is out, a stage may take this long to close its simulators before it is ended.
CLOSING_SECONDS = 30.0
LOG_LINES = 15
# glibc gives freed blocks back to the kernel and faults them in again at every step of a small policy: keep them.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def to_stderr(line: str) -> None:
    """Show one line to the user."""
    print(line, file=sys.stderr, flush=True)


def drive(
    run: Path,
    show: Callable[[Snapshot], None],
    *,
    conclude: Callable[[Path], object] = lambda run: None,
    say: Callable[[str], None] = to_stderr,
    launcher: Launcher | None = None,
    stages_package: str = "stages",
    cores: int | None = None,
) -> Snapshot:
    """Carry a run out until every unit of its plan is published.

    KeyboardInterrupt passes through: units that run go on, and the next call takes them up again.

    Args:
        run: the run directory.
        show: called with the state of the run whenever it has changed.
        conclude: called once all is published, before tracking ends, so that what it writes is tracked too.
        say: shows one line to the user.
        launcher: how units reach a machine; None: as processes of this one.
        stages_package: package whose modules do the work.
        cores: CPU cores to use; None: those this process may use.

    Returns:
        The final state.

    Raises:
        UserError: another orchestrator drives the run, a unit does not fit the machine, a stage met a user's mistake,
            a unit failed `max_attempts` times, or the disk is full.
    """
    run = run.absolute()
    config = rundir.load(run)
    cores = cores or machine_cores()
    check_placement(config)
    check_cores(config, ledger.run_plan(run, config), cores)
    with disk_full_explained(run), Lease(run, say) as lease, following(run, config, say):
        loop = Loop(run, launcher or LocalLauncher(), stages_package, cores)
        loop.begin()
        shown: Snapshot | None = None
        while True:
            lease.beat()
            loop.settle()
            snapshot = ledger.read(run)
            loop.raise_failures(snapshot)
            finished = loop.finished(snapshot)
            if not finished and loop.start(snapshot):
                snapshot = ledger.read(run)
            if snapshot != shown:
                show(snapshot)
                shown = snapshot
            if finished:
                conclude(run)
                return snapshot
            time.sleep(config.slurm.poll_seconds)


class Loop:
    """The steps of one turn."""

    def __init__(self, run: Path, launcher: Launcher, stages_package: str, cores: int) -> None:
        """Prepare; nothing is touched yet.

        Args:
            run: the run directory, absolute; its lease is held.
            launcher: how units reach a machine.
            stages_package: package whose modules do the work.
            cores: CPU cores to share out.
        """
        self._run, self._launcher, self._package, self._cores = run, launcher, stages_package, cores
        self._id: str = rundir.identity(run)["id"]
        code = rundir.code_identity()
        self._revision = code["revision"] or f"sources {str(code['digest'])[:12]}"
        self._closing: dict[str, float] = {}  # key -> when its artifact was first seen while the job went on
        self._kept: set[Unit] = set()  # what was done when retention was last looked at

    def begin(self) -> None:
        """Start a session: earlier failures count no longer, and jobs of earlier sessions are taken up."""
        code = rundir.code_identity()
        jobs.append(self._run, "session", host=os.uname().nodename, note=f"pid {os.getpid()}, code {code['digest']}")
        unrecorded = {unit: h.open for unit, h in jobs.histories(self._run).items() if h.open and not h.open.job}
        live = self._launcher.find(f"{self._id}:") if unrecorded else {}
        for unit, record in unrecorded.items():
            if job := live.get(record.key):
                self._record_submitted(unit, record.attempt, job)
            else:
                self._record_end(unit, record, "unsubmitted", "the orchestrator was killed before it submitted this")

    def settle(self) -> None:
        """Write down what has ended since the last turn, and end what does not want to."""
        opened = _open(self._run)
        for key, state in self._launcher.poll([job for _, _, job in opened.values()]).items():
            unit, record, job = opened[key]
            if state is State.LOST:
                raise UserError(
                    f"{unit} was submitted on {job.host} and cannot be seen from {os.uname().nodename}: continue the "
                    f"run there, or, if it is gone for good, `baton cancel {self._run}` and then the same command again"
                )
            # Asked after the state: a job that has ended publishes nothing more.
            done = ledger.published(self._run, unit) is not None
            if state is State.ENDED:
                self._launcher.cancel([job])  # children that outlived it
                self._settle_ended(unit, record, done)
            elif done and time.monotonic() - self._closing.setdefault(key, time.monotonic()) > CLOSING_SECONDS:
                self._launcher.cancel([job])

    def raise_failures(self, snapshot: Snapshot) -> None:
        """Stop where a unit needs the user.

        Raises:
            UserError: a stage's own line, or the end of the log of a unit that was tried often enough.
        """
        for state in snapshot.units:
            if state.status == "failed":
                running = [str(other.unit) for other in snapshot.units if other.status == "running"]
                going_on = f"\nstill running, and taken up by the same command: {', '.join(running)}" if running else ""
                raise UserError(_explain(self._run, snapshot.config, state) + going_on)

    def finished(self, snapshot: Snapshot) -> bool:
        """Whether all is published and nothing runs any more."""
        done = {state.unit for state in snapshot.units if state.status == "published"}
        if done != self._kept:
            retention.free(self._run, snapshot.config, ledger.run_plan(self._run, snapshot.config), done)
            self._kept = done
        return len(done) == len(snapshot.units) and not _open(self._run)

    def start(self, snapshot: Snapshot) -> int:
        """Submit what may start and fits beside what runs, the most urgent first.

        Returns:
            How many units were submitted.
        """
        config = snapshot.config
        status = {state.unit: state.status for state in snapshot.units}
        plans = ledger.run_plan(self._run, config)
        free = self._cores - sum(plan.cores for plan in plans if status[plan.unit] == "running")
        ready = [
            plan
            for plan in plans
            if status[plan.unit] == "waiting" and all(status[need] == "published" for need in plan.needs)
        ]
        submitted = 0
        for plan in by_urgency(ready):
            if plan.cores > free:
                break  # nothing less urgent slips past, or this one might wait for ever
            self._submit(plan, config)
            submitted += 1
            free -= plan.cores
        return submitted

    def _submit(self, plan: UnitPlan, config: Config) -> None:
        unit = plan.unit
        for relative in unit.outputs.values():
            supersede(self._run, relative, f"left by a publication of {unit} that was cut short")
        attempt = new_attempt(self._run, unit)
        key = f"{self._id}:{unit}:{attempt}"
        jobs.append(self._run, "submit", unit=str(unit), attempt=attempt, key=key, host=os.uname().nodename)
        shard = () if unit.shard is None else ("--shard", str(unit.shard))
        path = os.pathsep.join(filter(None, (str(rundir.package_root()), os.environ.get("PYTHONPATH"))))
        request = Request(
            key=key,
            module=f"{self._package}.{plan.module}",
            arguments=(str(self._run), "--epoch", str(unit.epoch), *shard, "--attempt", str(attempt)),
            folder=attempt_directory(self._run, unit, attempt),
            environment={
                "PYTHONPATH": path,
                "BATON_CODE_REVISION": self._revision,
                **ALLOCATOR,
                **dict.fromkeys(THREAD_VARIABLES, str(plan.threads)),
            },
            timeout_minutes=config.slurm.timeout_minutes,
        )
        self._record_submitted(unit, attempt, self._launcher.submit(request))

    def _settle_ended(self, unit: Unit, record: jobs.Record, done: bool) -> None:
        self._closing.pop(record.key, None)
        attempt = attempt_directory(self._run, unit, record.attempt)
        clear_scratch(attempt)
        if done:
            self._record_end(unit, record, "published", None)
        elif (note := attempt / "error.txt").is_file():
            self._record_end(unit, record, "refused", note.read_text().strip())
        else:
            limit = rundir.load(self._run).slurm.timeout_minutes
            timed_out = time.time() - record.time >= 60 * limit
            last = (_log_lines(attempt, 1) or ["it left no log"])[-1]
            why = f"it reached its time limit, slurm.timeout_minutes={limit}" if timed_out else last
            self._record_end(unit, record, "failed", why)

    def _record_submitted(self, unit: Unit, attempt: int, job: Job) -> None:
        jobs.append(self._run, "submitted", unit=str(unit), attempt=attempt, key=job.key, job=job.id, host=job.host)

    def _record_end(self, unit: Unit, record: jobs.Record, outcome: jobs.Outcome, error: str | None) -> None:
        seconds = time.time() - record.time
        jobs.append(
            self._run,
            "ended",
            unit=str(unit),
            attempt=record.attempt,
            key=record.key,
            job=record.job,
            outcome=outcome,
            error=error,
            seconds=seconds,
        )


def _open(run: Path) -> dict[str, tuple[Unit, jobs.Record, Job]]:
    """Jobs that have been submitted and not been seen to end, by key."""
    found = {}
    for unit, history in jobs.histories(run).items():
        if (record := history.open) and record.job:
            found[record.key] = (unit, record, Job(record.key, record.job, record.host))
    return found


def _explain(run: Path, config: Config, state: UnitState) -> str:
    """The lines for a unit that will not be tried again."""
    assert state.attempt is not None
    history = jobs.histories(run)[state.unit]
    if history.last and history.last.outcome == "refused":
        return str(state.error)
    attempt = attempt_directory(run, state.unit, state.attempt)
    tail = "\n".join(f"  {line}" for line in _log_lines(attempt, LOG_LINES))
    return (
        f"{state.unit} failed {history.failures} times (max_attempts={config.max_attempts}); attempt {state.attempt}: "
        f"{state.error}\n{tail}\nfull log: {_log(attempt) or attempt / LOG}; the same command tries again"
    )


def _log(attempt: Path) -> Path | None:
    return next(iter(sorted(attempt.glob("*_log.out"))), None)


def _log_lines(attempt: Path, count: int) -> list[str]:
    path = _log(attempt)
    if path is None:
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-count:]


@contextmanager
def disk_full_explained(run: Path) -> Iterator[None]:
    """Turn a full disk into one line.

    Args:
        run: the run directory.

    Raises:
        UserError: a write failed for want of space.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{error.filename or run}: {os.strerror(error.errno)}; free some space (keep.policies and keep.rollouts "
            f"say what a run keeps) and run the same command again"
        ) from error
