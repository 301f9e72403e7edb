"""Commands that set a run right: `retry`, `rerun`, `cancel`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from pipeline.commands.arguments import EpochOption, JsonOption, RunArgument, ShardOption, check_stage, find_run
from pipeline.errors import UserError


def retry(
    run: RunArgument,
    stage: Annotated[str | None, typer.Argument(metavar="[STAGE]", help="Only units of this stage.")] = None,
    epoch: EpochOption = None,
    shard: ShardOption = None,
    mem: Annotated[str | None, typer.Option("--mem", help="Memory a node from now on, e.g. 64G.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Time limit from now on, e.g. 8:00:00.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let failed units be tried again, with more memory or time.

    Without STAGE all that have failed; the `baton run` command that started the run tries them.
    """
    from pipeline import retry as again
    from pipeline.report import records

    check_stage(stage, shard)
    directory = find_run(run)
    units = again.retry(directory, stage, epoch, shard, mem=mem, time=time)
    if as_json:
        records.write({"run": str(directory), "units": [dataclasses.asdict(unit) for unit in units]})
        return
    for unit in units:
        print(unit)
    print("the `baton run` command that started this run tries again")


def rerun(
    run: RunArgument,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="demonstrate, sft, rollout, update or evaluate.")],
    epoch: Annotated[int | None, typer.Option("--epoch", min=0, help="Needed where the stage has several.")] = None,
    shard: Annotated[int | None, typer.Option("--shard", min=0, help="Only this shard; without it, all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Have an artifact made again, and all made from it.

    They are moved to superseded/; the `baton run` command that started the run makes them again.
    """
    from pipeline import rerun as again
    from pipeline.report import records

    check_stage(stage, shard)
    if epoch is None and stage not in ("demonstrate", "sft"):
        raise UserError(f"rerun {stage} needs --epoch, e.g. --epoch 1")
    directory = find_run(run)
    units = again.rerun(directory, stage, epoch or 0, shard)
    if as_json:
        records.write({"run": str(directory), "units": [str(unit) for unit in units]})
        return
    print(f"to be done again: {', '.join(map(str, units))}")
    print("the `baton run` command that started this run does them; what they replace is kept under superseded/")


def cancel(run: RunArgument, as_json: JsonOption = False) -> None:
    """Stop every job of a run.

    What is published stays, and `baton run` continues from it.
    """
    from pipeline import cancel as stop
    from pipeline.report import records

    directory = find_run(run)
    units = stop.cancel(directory)
    if as_json:
        records.write({"run": str(directory), "units": list(units)})
        return
    print(f"cancelled: {', '.join(units)}" if units else "nothing of this run was running")
