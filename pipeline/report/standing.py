"""Where each unit of a run stands: its job, what an open one waits for and why, and who drives the run."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline import jobs, lease, ledger, rundir
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from pipeline.ledger import Snapshot, UnitState
from pipeline.plan import UnitPlan
from pipeline.report.quantities import duration
from pipeline.report.reasons import job_name, words
from pipeline.tracking.standing import troubles
from slurm import batch, client
from slurm.launcher import Job, LaunchError, Sight, TryLater
from slurm.states import State

Status = Literal["published", "running", "queued", "waiting", "failed"]
DRIVER = "driver"


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where a unit stands.

    Attributes:
        state: what the run directory shows of it.
        status: as in `state`, or `queued` where its job has not started.
        job: the launcher's id of its last job; empty before the first.
        node: where that ran or runs, as far as known.
        queued: seconds that it waited to start, as far as known.
        began: Unix time at which it began to run, as far as known; else of its submission.
        seconds: seconds that it ran or has run, as far as known.
        why: what an open unit waits for.
        starts_at: Unix time at which the scheduler expects to start it.
    """

    state: UnitState
    status: Status
    job: str = ""
    node: str = ""
    queued: float | None = None
    began: float | None = None
    seconds: float | None = None
    why: str = ""
    starts_at: float | None = None

    @property
    def unit(self) -> Unit:
        """The unit."""
        return self.state.unit


@dataclasses.dataclass(frozen=True)
class Overview:
    """A run at one moment.

    Attributes:
        snapshot: what its directory shows.
        units: where they stand, in plan order.
        driver: who carries it on, in words.
        trouble: why its launcher could not be asked; None if it answered.
        again: the command that carries it on, where nobody does and it is not finished; else empty.
        tracking: what is wrong with its trackers, a line each.
    """

    snapshot: Snapshot
    units: tuple[Standing, ...]
    driver: str
    trouble: str | None = None
    again: str = ""
    tracking: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What the launcher says: of jobs by key, of the job that holds the lease, and of jobs that look after the run."""

    sights: Mapping[str, Sight] = dataclasses.field(default_factory=dict)
    parents: Mapping[str, tuple[Job, Sight]] = dataclasses.field(default_factory=dict)
    trouble: str | None = None


def look(run: Path) -> Overview:
    """Look at a run: at its directory, and once at the queue where that matters.

    Args:
        run: the run directory.

    Raises:
        UserError: it is no run, or a file in it is damaged.
    """
    snapshot, holder = ledger.read(run), lease.holder(run)
    records: dict[Unit, jobs.Record] = {}
    if any(state.status == "running" for state in snapshot.units):
        records = {unit: history.open for unit, history in jobs.histories(run).items() if history.open}
    answer = _Answer()
    if records or any(state.status != "published" for state in snapshot.units):
        answer = _ask(run, snapshot, records, holder)
    driver, driven = _driver(run, snapshot, holder, answer)
    units = _standings(snapshot, records, answer.sights, _ends(run), driven)
    finished = all(state.status == "published" for state in snapshot.units)
    again = "" if driven or finished else _command(run, snapshot)
    return Overview(snapshot, units, driver, answer.trouble, again, tuple(troubles(run)))


def watched(snapshot: Snapshot) -> Overview:
    """A run as the one who drives it sees it; nobody is asked.

    Args:
        snapshot: with what the launcher said of its jobs.
    """
    records: dict[Unit, jobs.Record] = {}
    if any(state.status == "running" for state in snapshot.units):
        records = {unit: history.open for unit, history in jobs.histories(snapshot.run).items() if history.open}
    # What was submitted since the launcher was asked has not started where there is a queue.
    new = {record.key: Sight(State.WAITING) for record in records.values() if record.host == batch.HOST}
    driver = snapshot.driver or "nobody drives it"
    for key, sight in snapshot.sights.items():
        if _kind(key) == "pilot" and sight.state is State.WAITING:
            driver = f"its allocation is in the queue{_reason(sight, 'its job')}"
    units = _standings(snapshot, records, {**new, **snapshot.sights}, {}, True)
    return Overview(snapshot, units, driver, tracking=tuple(troubles(snapshot.run)))


def _standings(
    snapshot: Snapshot,
    records: Mapping[Unit, jobs.Record],
    sights: Mapping[str, Sight],
    ends: Mapping[str, jobs.Record],
    driven: bool,
) -> tuple[Standing, ...]:
    plans = {plan.unit: plan for plan in ledger.run_plan(snapshot.run, snapshot.config)}
    status = {state.unit: state.status for state in snapshot.units}
    units = []
    for state in snapshot.units:
        if state.status == "running":
            record = records.get(state.unit)  # None: it has ended since
            needs = _needs(plans[state.unit], status)
            units.append(
                _open(state, record, sights.get(record.key), needs, driven)
                if record
                else Standing(state, "running", began=state.started)
            )
        else:
            why = _waits_for(plans[state.unit], state, status, driven) if state.status == "waiting" else ""
            units.append(_ended(state, ends.get(str(state.unit)), why))
    return tuple(units)


def _ask(run: Path, snapshot: Snapshot, records: Mapping[Unit, jobs.Record], holder: lease.Holder | None) -> _Answer:
    from pipeline import launchers  # takes a while, and a finished run does not need it

    said: list[str] = []
    wanted = [Job(record.key, record.job, record.host) for record in records.values() if record.job]
    if holder is not None and holder.job:
        wanted.append(Job(DRIVER, holder.job, batch.HOST))
    parents: dict[str, tuple[Job, Sight]] = {}
    try:
        launcher = launchers.launcher_for(run.absolute(), snapshot.config, said.append)
        sights = launcher.poll(wanted) if wanted else {}
        if holder is None or (DRIVER in sights and sights[DRIVER].state is State.ENDED):
            prefix = f"{rundir.identity(run)['id']}:"
            found = {key: job for key, job in launcher.find(prefix).items() if _kind(key) in launchers.PARENTS}
            seen = launcher.poll(list(found.values())) if found else {}
            parents = {_kind(key): (job, seen[key]) for key, job in found.items()}
    except (UserError, LaunchError, TryLater, client.Unanswered) as error:
        return _Answer(trouble=str(error))
    if said:
        return _Answer(trouble=said[0].partition("; going on")[0])
    return _Answer(sights, parents)


def _kind(key: str) -> str:
    return key.split(":")[1]


def _driver(run: Path, snapshot: Snapshot, holder: lease.Holder | None, answer: _Answer) -> tuple[str, bool]:
    """Who carries the run on, in words, and whether anybody does."""
    if holder is not None:
        sight = answer.sights.get(DRIVER, Sight(State.LOST))
        if sight.state is State.WAITING:
            return f"job {holder.job}, which drives it, is back in the queue{_reason(sight, holder.job)}", True
        if sight.state is State.RUNNING:
            ran = "" if sight.seconds is None else f" for {duration(sight.seconds)}"
            return f"driven by job {holder.job} on {sight.node}{ran}", True
        if sight.state is State.LOST:
            return f"driven by {holder}", True
    if all(state.status == "published" for state in snapshot.units):
        return "finished", False
    for kind, (job, sight) in answer.parents.items():
        if kind == "chain":
            return f"a chain of jobs carries it on; the last is job {job.id}", True
        if sight.state is State.RUNNING:
            return f"driven by job {job.id} ({kind}) on {sight.node}", True
        return f"job {job.id} ({kind}), which is to drive it, is in the queue{_reason(sight, job.id)}", True
    if answer.trouble:
        return "nobody drives it, as far as can be seen", False
    if snapshot.config.slurm.schedule == "chain" and any(s.state is not State.ENDED for s in answer.sights.values()):
        return "a chain of jobs carries it on", True
    return "nobody drives it", False


def _command(run: Path, snapshot: Snapshot) -> str:
    """The command that carries a run on."""
    home = Path(snapshot.config.runs_dir).expanduser().absolute() / snapshot.config.name
    moved = [] if home == run.absolute() else [f"runs_dir={run.absolute().parent}"]
    return shlex.join(["baton", "run", str(run / rundir.CONFIG), *moved])


def _reason(sight: Sight, job: str) -> str:
    said = words(sight.detail, "orchestrator", job, "")
    return f": {said}" if said else ""


def _open(state: UnitState, record: jobs.Record, sight: Sight | None, needs: str, driven: bool) -> Standing:
    """A unit that was submitted and has not been seen to end."""
    now = time.time()
    since = now - record.time
    if not record.job:
        return Standing(state, "queued", queued=since, why="it is being submitted")
    if sight is None:
        return Standing(state, "running", record.job, began=record.time)
    if sight.state is State.ENDED:
        word = f" ({sight.detail})" if sight.detail else ""
        why = f"{job_name(record.job)} has ended{word} and published nothing"
        return Standing(state, "waiting", record.job, sight.node, sight.queued, None, sight.seconds, why)
    if sight.state is State.WAITING:
        why = words(sight.detail, state.unit.stage, record.job, needs)
        queued = since if sight.queued is None else sight.queued
        return Standing(state, "queued", record.job, "", queued, why=why, starts_at=sight.starts_at)
    if sight.state is State.LOST:
        # A step of the allocation of schedule=pilot is seen by whoever drives the run in there.
        why = "" if driven else f"it was started on {record.host} and cannot be seen from here"
        return Standing(state, "running", record.job, record.host, None, record.time, since, why)
    seconds = since if sight.seconds is None else sight.seconds
    return Standing(state, "running", record.job, sight.node, sight.queued, now - seconds, seconds)


def _ended(state: UnitState, end: jobs.Record | None, why: str) -> Standing:
    """A unit without a job."""
    if state.status == "waiting":
        return Standing(state, "waiting", why=why)
    if end is None:
        return Standing(state, state.status, began=state.started, seconds=state.seconds)
    seconds = state.seconds
    if state.status == "failed" and seconds is not None:
        seconds -= end.queued or 0.0  # it counts from the submission
    return Standing(state, state.status, end.job, end.node, end.queued, state.started, seconds)


def _waits_for(plan: UnitPlan, state: UnitState, status: Mapping[Unit, str], driven: bool) -> str:
    failed = [str(need) for need in plan.needs if status[need] == "failed"]
    if failed:
        return f"for {failed[0]}, which failed"
    if needs := _needs(plan, status):
        return f"for {needs}"
    again = f"for another try, after: {state.error}" if state.error else ""
    return again or ("for room" if driven else "for somebody to drive the run")


def _needs(plan: UnitPlan, status: Mapping[Unit, str]) -> str:
    """The units a unit still needs, shards of one stage and epoch counted."""
    groups: dict[tuple[int, str], list[Unit]] = {}
    for need in plan.needs:
        groups.setdefault((need.epoch, need.stage), []).append(need)
    named: list[str] = []
    for units in groups.values():
        left = [unit for unit in units if status[unit] != "published"]
        if len(units) == 1 or len(left) == 1:
            named += map(str, left)
        elif left:
            named.append(f"{dataclasses.replace(left[0], shard=None)} ({len(left)} of {len(units)} shards)")
    return " and ".join(named)


def _ends(run: Path) -> dict[str, jobs.Record]:
    """The last end of every unit, whether it counts towards the limits or not."""
    try:
        lines = (run / jobs.FILE).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    last = {}
    for line in lines:
        if b'"ended"' in line:  # the others need not be parsed
            record = jobs.Record.model_validate_json(line)
            last[record.unit] = record
    return last
