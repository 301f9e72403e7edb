"""Carries a run out: observe, decide, submit.

The loop has no memory. What is done is what is published; what was submitted is in `jobs.jsonl` and, should we have
been killed before writing it there, in the key that each job carries. It may be killed at any line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from pipeline import failures, jobs, ledger, resources, retention, rundir
from pipeline.artifacts import STAGES, Unit, attempt_directory, clear_scratch
from pipeline.errors import UserError
from pipeline.failures import disk_full_explained
from pipeline.follower import following
from pipeline.launchers import launcher_for
from pipeline.lease import Lease
from pipeline.ledger import Snapshot
from pipeline.machine import Machine
from pipeline.plan import by_urgency
from pipeline.submission import Sender, Submitter, families, grown, open_jobs
from slurm import batch, client
from slurm.launcher import EXIT, Job, Launcher, LaunchError, Sight, TryLater
from slurm.states import Cause, State

# After its artifact is out, a stage may take this long to close its simulators before it is ended.
CLOSING_SECONDS = 30.0
# A network file system may show another machine's artifact this much later than the end of its job.
VISIBLE_SECONDS = 60.0
OVERDUE_SECONDS = 60.0
RETRY_SECONDS = 30.0
LONGEST_PAUSE = 600.0


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
    stages: Collection[str] = STAGES,
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
        launcher: how units reach a machine; None: as the config says.
        stages: those to carry out; what they need has to be among them.
        stages_package: package whose modules do the work.
        cores: CPU cores to use where units are processes of this machine; None: those this process may use.

    Returns:
        The final state.

    Raises:
        UserError: another orchestrator drives the run, a unit does not fit the machine, Slurm refuses one, a stage met
            a user's mistake, a unit failed too often, or the disk is full.
    """
    run = run.absolute()
    config = rundir.load(run)
    launcher = launcher or launcher_for(run, config, say)
    machine = Machine.of(run, config, cores, stages)
    with disk_full_explained(run), Lease(run, say) as lease, following(run, config, say):
        loop = Loop(run, launcher, machine, Sender.of(run, stages_package), say, stages)
        loop.begin()
        shown: Snapshot | None = None
        while True:
            lease.beat()
            loop.settle()
            snapshot = loop.look()
            try:
                loop.raise_failures(snapshot)
            except UserError:
                show(snapshot)
                raise
            finished = loop.finished(snapshot)
            if not finished and loop.start(snapshot):
                snapshot = loop.look()
            if snapshot != shown:
                show(snapshot)
                shown = snapshot
            if finished:
                launcher.close()
                conclude(run)
                return snapshot
            time.sleep(config.slurm.poll_seconds)


class Loop:
    """The steps of one turn."""

    def __init__(
        self,
        run: Path,
        launcher: Launcher,
        machine: Machine,
        sender: Sender,
        say: Callable[[str], None],
        stages: Collection[str] = STAGES,
    ) -> None:
        """Prepare; nothing is touched yet.

        Args:
            run: the run directory, absolute; its lease is held.
            launcher: how units reach a machine.
            machine: what there is to share out.
            sender: what all submissions have in common.
            say: shows one line to the user.
            stages: those to carry out.
        """
        self._run, self._launcher, self._machine, self._say = run, launcher, machine, say
        self.submitter = Submitter(run, launcher, sender)
        self._stages, self._reader = stages, ledger.Reader(run, stages)
        self._sights: dict[str, Sight] = {}
        self._ending: dict[str, float] = {}  # key -> when one of its job and its artifact was first seen gone or there
        self._late: set[str] = set()  # keys of jobs ended because of their time limit
        self._kept: set[Unit] = set()  # what was done when retention was last looked at
        self._not_before = 0.0  # when to submit again after a limit
        self._pause = RETRY_SECONDS
        self._said: str | None = None

    def begin(self) -> None:
        """Start a session: earlier failures count no longer, and jobs of earlier sessions are taken up."""
        code = rundir.code_identity()
        jobs.append(self._run, "session", host=os.uname().nodename, note=f"pid {os.getpid()}, code {code['digest']}")
        self.resolve()

    def settle(self) -> None:
        """Write down what has ended since the last turn, and end what does not want to."""
        if any(history.open and not history.open.job for history in jobs.histories(self._run).values()):
            self.resolve()
        opened = open_jobs(self._run)
        if self.failing():
            self._launcher.hurry()
        self._sights = self._launcher.poll([job for _, _, job in opened.values()])
        for key, sight in self._sights.items():
            unit, record, job = opened[key]
            if sight.state is State.LOST:
                raise UserError(
                    f"{unit} was submitted on {job.host} and cannot be seen from {os.uname().nodename} with this "
                    f"slurm.launcher: continue the run as before, or, if it is gone for good, "
                    f"`baton cancel {self._run}` and then the same command again"
                )
            # Asked after the state: a job that has ended publishes nothing more.
            done = ledger.published(self._run, unit) is not None
            if sight.state is State.ENDED:
                if done or not self._may_yet_show(key, sight):
                    self._launcher.tidy([job])
                    self._settle_ended(unit, record, job, sight, done)
            elif sight.state is State.RUNNING and (
                self._since(key) > CLOSING_SECONDS if done else self._overdue(record, job, sight)
            ):
                if not done:
                    self._late.add(key)
                try:
                    self._launcher.cancel([job])
                except (client.Unanswered, LaunchError) as error:
                    self._ending[key] = time.monotonic()  # what lingers can wait
                    self._say(f"{error}; the job of {unit} is cancelled later")

    def failing(self) -> bool:
        """Whether a job is about to end without success: its script has ended, and there is no artifact."""
        return any(
            (attempt_directory(self._run, unit, record.attempt) / EXIT).exists()
            and ledger.published(self._run, unit) is None
            for unit, record, _ in open_jobs(self._run).values()
        )

    def look(self) -> Snapshot:
        """The state of the run, with what the launcher said last of its jobs."""
        return self._reader.read().seen(self._sights)

    def raise_failures(self, snapshot: Snapshot) -> None:
        """Stop where a unit needs the user.

        Raises:
            UserError: a stage's own line, or the end of the log of a unit that was tried often enough.
        """
        for state in snapshot.units:
            if state.status == "failed":
                running = [str(other.unit) for other in snapshot.units if other.status == "running"]
                going_on = f"\nstill running, and taken up by the same command: {', '.join(running)}" if running else ""
                raise UserError(failures.explain(self._run, snapshot.config, state) + going_on)

    def finished(self, snapshot: Snapshot) -> bool:
        """Whether all is published and nothing runs any more."""
        done = {state.unit for state in snapshot.units if state.status == "published"}
        if done != self._kept:
            retention.free(self._run, snapshot.config, self._reader.plans, done)
            self._kept = done
        if len(done) < len(snapshot.units):
            return False
        if any(unit.stage in self._stages for unit, _, _ in open_jobs(self._run).values()):
            self._launcher.hurry()  # only their ends are waited for
            return False
        return True

    def start(self, snapshot: Snapshot) -> int:
        """Submit what may start and fits beside what runs, the most urgent first.

        Returns:
            How many units were submitted.
        """
        if time.monotonic() < self._not_before:
            return 0
        status = {state.unit: state.status for state in snapshot.units}
        plans = self._reader.plans
        ready = by_urgency(
            plan
            for plan in plans
            if status[plan.unit] == "waiting" and all(status[need] == "published" for need in plan.needs)
        )
        if not ready:
            return 0
        running = [plan.share for plan in plans if status[plan.unit] == "running"]
        fitting = self._machine.fit(ready, running)
        for family in families(fitting):
            try:
                self.submitter.submit(family, snapshot.config)
                self._pause, self._said = RETRY_SECONDS, None
            except TryLater as error:
                self._wait(str(error))
                break
            except client.Unanswered as error:
                self._wait(f"{error}; whether {family[0].unit} was accepted will show")
                break
        return len(fitting)

    def resolve(self) -> None:
        """Find out about submissions of which it was not written down what became of them."""
        if time.monotonic() < self._not_before:
            return
        try:
            self.submitter.resolve()
        except client.Unanswered as error:
            self._wait(f"{error}; whether everything was submitted will show")

    def _settle_ended(self, unit: Unit, record: jobs.Record, job: Job, sight: Sight, done: bool) -> None:
        self._ending.pop(record.key, None)
        attempt = attempt_directory(self._run, unit, record.attempt)
        clear_scratch(attempt)
        if done:
            self._record_end(unit, record, sight, "published")
        elif note := failures.refusal(attempt):
            self._record_end(unit, record, sight, "refused", note)
        else:
            cause, word = self._cause(record, job, sight, attempt)
            last = failures.last_words(attempt)
            self._record_end(unit, record, sight, "failed", f"{word}: {last}" if word else last, cause)

    def _cause(self, record: jobs.Record, job: Job, sight: Sight, attempt: Path) -> tuple[Cause, str]:
        ran, limit = _ran(record, sight), self._limit(record)
        if batch.is_batch_job(job):
            cause, word = batch.cause(job, sight, attempt, record.time)
            # A stage that stops at the signal before its time limit ends by itself, and Slurm calls it FAILED; the
            # signal may come a minute earlier than asked.
            if word == batch.TOLD_TO_STOP and ran >= limit - self._reader.config.slurm.signal_seconds - 60:
                return "timeout", "its time was up"
            return cause, word
        late = record.key in self._late or ran >= limit
        return ("timeout", "it reached its time limit") if late else ("crash", "")

    def _limit(self, record: jobs.Record) -> float:
        """Seconds that an attempt may take."""
        config, unit = self._reader.config, Unit.parse(record.unit)
        asked = resources.options(config, unit.stage)
        return 60 * grown(config, asked, jobs.histories(self._run)[unit]).time

    def _overdue(self, record: jobs.Record, job: Job, sight: Sight) -> bool:
        """Whether nobody else ends an attempt at its time limit, as for a step or a stage that stays up."""
        late = _ran(record, sight) > self._limit(record) + OVERDUE_SECONDS
        return late and not batch.is_batch_job(job)

    def _may_yet_show(self, key: str, sight: Sight) -> bool:
        """Whether a job that succeeded, as its scheduler says, may have published what is not seen here yet."""
        return sight.detail.startswith("COMPLETED") and self._since(key) < VISIBLE_SECONDS

    def _since(self, key: str) -> float:
        return time.monotonic() - self._ending.setdefault(key, time.monotonic())

    def _wait(self, why: str) -> None:
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if why != self._said:
            self._say(why)
        self._said = why

    def _record_end(
        self,
        unit: Unit,
        record: jobs.Record,
        sight: Sight,
        outcome: jobs.Outcome,
        error: str | None = None,
        cause: Cause | None = None,
    ) -> None:
        jobs.append(
            self._run,
            "ended",
            unit=str(unit),
            attempt=record.attempt,
            key=record.key,
            job=record.job,
            outcome=outcome,
            error=error,
            cause=cause,
            seconds=time.time() - record.time,
            queued=sight.queued,
            node=sight.node,
        )


def _ran(record: jobs.Record, sight: Sight) -> float:
    """Seconds for which an attempt has run, as far as can be told."""
    return sight.seconds if sight.seconds is not None else time.time() - record.time
