"""Makes units to be done again: supersedes their artifacts and all that was made from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import jobs, ledger, rundir
from pipeline.artifacts import Unit, supersede
from pipeline.errors import UserError
from pipeline.lease import Lease
from pipeline.orchestrator import to_stderr
from pipeline.plan import UnitPlan, dependents, make_plan


def rerun(
    run: Path, stage: str, epoch: int, shard: int | None = None, *, say: Callable[[str], None] = to_stderr
) -> tuple[Unit, ...]:
    """Move a unit's artifact, and everything made from it, to `superseded/`.

    The run itself is carried on by the usual command.

    Args:
        run: the run directory.
        stage: of the unit.
        epoch: of the unit.
        shard: of the unit; None where the stage has no shards, or for all of them.
        say: shows one line to the user.

    Returns:
        The units that will be done again, in plan order.

    Raises:
        UserError: there is no such unit, it is not published, an input has been freed, or the run is being driven.
    """
    run = run.absolute()
    plans = _whole_plan(run)
    chosen = [
        plan.unit
        for plan in plans
        if (plan.unit.stage, plan.unit.epoch) == (stage, epoch) and shard in (None, plan.unit.shard)
    ]
    wanted = f"{stage} --epoch {epoch}" + ("" if shard is None else f" --shard {shard}")
    if not chosen:
        raise UserError(f"{run} has no {wanted}: `baton status {run}` lists its units")
    if not any((run / unit.marker).exists() or ledger.published(run, unit) for unit in chosen):
        raise UserError(
            f"{wanted} is not published yet, so there is nothing to do again: the usual command carries it out"
        )
    affected = {unit for one in chosen for unit in dependents(plans, one)}
    with Lease(run, say):
        if running := [str(unit) for unit, history in jobs.histories(run).items() if history.open]:
            raise UserError(
                f"{', '.join(running)} may still run: carry the run on until it is settled, or "
                f"`baton cancel {run}`; then rerun"
            )
        ordered = [plan for plan in plans if plan.unit in affected]
        _check_inputs(run, ordered)
        # The last made goes first: killed half-way, nothing is left that was made from something superseded.
        for plan in reversed(ordered):
            _supersede(run, plan.unit, f"rerun of {wanted}")
    return tuple(plan.unit for plan in ordered)


def _whole_plan(run: Path) -> tuple[UnitPlan, ...]:
    """The plan up to the last epoch on disk, which may lie beyond the config's."""
    config = rundir.load(run)
    epochs = run / "epochs"
    there = [int(path.name) for path in epochs.iterdir() if path.name.isdigit()] if epochs.is_dir() else []
    longest = config.model_copy(update={"epochs": max([config.epochs, *there])})
    return make_plan(longest, [epoch for epoch in there if ledger.published(run, Unit(epoch, "evaluate"))])


def _check_inputs(run: Path, plans: Sequence[UnitPlan]) -> None:
    again = {plan.unit for plan in plans}
    for plan in plans:
        for need in set(plan.needs) - again:
            for part, relative in need.outputs.items():
                used = part != "engine" or plan.unit.stage == "update"
                if used and ledger.published(run, need) and not (run / relative).is_dir():
                    raise UserError(
                        f"{run / relative}, which {plan.unit} reads, was freed (see keep in {rundir.CONFIG}): "
                        f"rerun something later, or from the rollouts of epoch 1 on"
                    )


def _supersede(run: Path, unit: Unit, reason: str) -> None:
    # The marker first: without it the unit counts as not done, whatever else is still there.
    for relative in reversed(list(unit.outputs.values())):
        supersede(run, relative, reason)
    remains = run / ledger.FREED / str(unit)
    if remains.exists():
        (run / "superseded").mkdir(exist_ok=True)
        os.rename(remains, run / "superseded" / f"{os.urandom(4).hex()}-{ledger.FREED}-{unit}")
    jobs.append(run, "reset", unit=str(unit), note=reason)
