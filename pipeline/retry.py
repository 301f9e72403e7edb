"""Lets units be tried again whose tries are used up, with more memory or time if need be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import jobs, launchers, ledger, resources, rundir
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.jobs import History
from pipeline.lease import Lease
from pipeline.ledger import UnitState
from pipeline.machine import Machine
from pipeline.orchestrator import Loop, to_stderr
from pipeline.plan import UnitPlan
from pipeline.submission import Sender
from slurm.options import megabytes, minutes


@dataclasses.dataclass(frozen=True)
class Again:
    """A unit that is tried again.

    Attributes:
        unit: its name.
        mem: memory a node that it gets from now on; None: what it had.
        minutes: time limit that it gets from now on; None: what it had.
    """

    unit: str
    mem: str | None
    minutes: int | None

    def __str__(self) -> str:
        """A line for people."""
        limit = f"{self.minutes // 60}:{self.minutes % 60:02d}:00 of time" if self.minutes else None
        given = [*([f"{self.mem} of memory"] if self.mem else []), *([limit] if limit else [])]
        return f"to be tried again: {self.unit}" + (f", with {' and '.join(given)}" if given else "")


def retry(
    run: Path,
    stage: str | None = None,
    epoch: int | None = None,
    shard: int | None = None,
    *,
    mem: str | None = None,
    time: str | None = None,
    say: Callable[[str], None] = to_stderr,
) -> list[Again]:
    """Forget the failures of units, so that the usual command tries them again.

    Args:
        run: the run directory.
        stage: of the units; None: any.
        epoch: of the units; None: any.
        shard: of the units; None: any.
        mem: memory a node that they get from now on; None: what they had.
        time: time limit that they get from now on; None: what they had.
        say: shows one line to the user.

    Returns:
        The units and what each is tried again with.

    Raises:
        UserError: an amount is none or cannot be given here, no unit of those named has failed, or the run is being
            driven.
    """
    run = run.absolute()
    config = rundir.load(run)
    _check_amounts(config, mem, time)
    with Lease(run, say):
        states = _matching(run, stage, epoch, shard)
        if any(state.status == "running" for state in states):
            # Nobody may have been there to see that their jobs have ended.
            Loop(run, launchers.launcher_for(run, config, say), Machine(), Sender.of(run), say).settle()
            states = _matching(run, stage, epoch, shard)
        chosen = _choose(run, states, named=(stage, epoch, shard) != (None, None, None))
        plans = {plan.unit: plan for plan in ledger.run_plan(run, config)}
        histories, again = jobs.histories(run), []
        for state in chosen:
            memory, limit = _allowance(config, plans[state.unit], histories[state.unit], mem, time)
            jobs.append(run, "reset", unit=str(state.unit), mem=memory, minutes=limit, note="retry")
            again.append(Again(str(state.unit), memory, limit))
    return again


def _check_amounts(config: Config, mem: str | None, time: str | None) -> None:
    for name, text, read in (("mem", mem, megabytes), ("time", time, minutes)):
        if text is None:
            continue
        try:
            read(text)
        except ValueError as error:
            raise UserError(f"--{name}: {error}") from None
        place = launchers.where(config)
        if place == "local" and name == "mem":
            raise UserError(f"--mem {text}: units are processes of this machine, which share its memory; leave it out")
        if place != "local" and config.slurm.schedule == "pilot":
            raise UserError(
                f"--{name} {text}: under slurm.schedule=pilot units share one allocation; raise slurm.pilot.{name}"
            )


def _matching(run: Path, stage: str | None, epoch: int | None, shard: int | None) -> list[UnitState]:
    states = [
        state
        for state in ledger.read(run).units
        if stage in (None, state.unit.stage) and epoch in (None, state.unit.epoch) and shard in (None, state.unit.shard)
    ]
    if not states:
        raise UserError(f"{run} has no such unit: `baton status {run} --all` lists them")
    return states


def _choose(run: Path, states: Sequence[UnitState], *, named: bool) -> list[UnitState]:
    """Those that have failed for good; where there are none, or units are named, also those that may yet be tried."""
    failed = [state for state in states if state.status == "failed"]
    tried = [state for state in states if state.status == "waiting" and state.attempts]
    if named:
        chosen = sorted(failed + tried, key=lambda state: state.unit)
    else:
        histories = jobs.histories(run)
        chosen = failed or [state for state in tried if _has_failed(histories[state.unit])]
    if chosen:
        return chosen
    unit, status = states[0].unit, states[0].status
    if not named or len({state.status for state in states}) > 1:
        raise UserError(f"none of these units has failed: `baton status {run}` shows how far the run is")
    if status == "published":
        shard = "" if unit.shard is None else f" --shard {unit.shard}"
        raise UserError(
            f"{unit} is published; to make it again: baton rerun {run} {unit.stage} --epoch {unit.epoch}{shard}"
        )
    if status == "running":
        raise UserError(f"{unit} runs or is in the queue: wait for its end, or `baton cancel {run}`")
    raise UserError(f"{unit} has not been tried yet: set slurm.{unit.stage} for its first try")


def _has_failed(history: History) -> bool:
    """Whether the last try failed by itself; jobs that waited for one that failed are cancelled."""
    return history.last is not None and history.last.outcome == "failed" and history.last.cause != "cancelled"


def _allowance(
    config: Config, plan: UnitPlan, history: History, mem: str | None, time: str | None
) -> tuple[str | None, int | None]:
    """Memory and minutes of a unit from now on: as asked, or what it has grown to; None: what the config says."""
    options = resources.options(config, plan.unit.stage, plan.share)
    # A reset forgets how often the unit has outgrown what it had.
    more_memory = config.slurm.mem_growth ** history.outgrown.get("memory", 0)
    more_time = config.slurm.time_growth ** history.outgrown.get("timeout", 0)
    base = history.mem or options.mem
    if mem is None and base is not None and (history.mem or more_memory > 1):
        mem = resources.grown(base, more_memory)
    limit = None if time is None else minutes(time)
    if limit is None and (history.minutes or more_time > 1):
        limit = round((history.minutes or options.time) * more_time)
    return mem, limit
