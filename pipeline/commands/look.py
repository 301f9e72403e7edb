"""Commands that show something and change nothing: `status`, `logs`, `config`, `tasks`."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import (
    RUNS,
    EpochOption,
    JsonOption,
    Overrides,
    RunArgument,
    ShardOption,
    console,
    find_run,
    named_run,
)
from pipeline.errors import UserError


def status(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run, or a directory of runs; default: all under runs/.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every epoch and every unit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a run is, or which runs there are.

    With curves of success and loss, the jobs, what open units wait for and why, and who drives it.
    """
    # All that is read stays to the end: looking for garbage would take a fifth of the time of a long run.
    gc.disable()
    try:
        from pipeline.report.runs import runs_of

        if run is None or (named_run(run) is None and runs_of(Path(run))):
            _list_runs(RUNS if run is None else Path(run), as_json)
            return
        from pipeline.report import records
        from pipeline.report.standing import look
        from pipeline.report.status import show

        seen = look(find_run(run))
        if as_json:
            records.write(records.status_record(seen))
        else:
            show(seen, console(), every=every)
    finally:
        gc.enable()


def _list_runs(folder: Path, as_json: bool) -> None:
    from pipeline.report import records
    from pipeline.report.runs import glance, runs_of, runs_table

    glances = [glance(run) for run in runs_of(folder)]
    if as_json:
        records.write(records.runs_record(folder, glances))
    elif glances:
        runs_table(glances, console())
    else:
        print(f"{folder.resolve()} holds no run; start one with baton run")


def logs(
    run: RunArgument,
    what: Annotated[
        str | None, typer.Argument(metavar="[STAGE]", help="A stage; or orchestrator, pilot, chain, tracking.")
    ] = None,
    epoch: EpochOption = None,
    shard: ShardOption = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Default: the newest.")] = None,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last N lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the unit has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: where the logs lie.")] = False,
) -> None:
    """Print the log of a unit.

    Without STAGE of the one that matters now: one that failed, else one that runs, else the newest.
    """
    from pipeline import logs as printing

    if not as_json:
        printing.print_logs(find_run(run), what, epoch, shard, attempt, lines=lines, follow=follow)
        return
    if follow or lines is not None:
        raise UserError("--json names the files of the logs: leave --follow and --lines out")
    from pipeline.report import records

    found = printing.find_logs(find_run(run), what, epoch, shard, attempt)
    records.write({"run": run, "logs": [dataclasses.asdict(log) for log in found]})


def show_config(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file to resolve.")] = None,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Every field: type, default, what it does.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a resolved config, or every field there is."""
    from pipeline.report import records

    if explain:
        from pipeline.explain import explain as explained
        from pipeline.explain import explained_fields
        from pipeline.report.terminal import READABLE

        if as_json:
            records.write({"fields": explained_fields()})
        else:
            terminal = console()
            terminal.print(explained(), width=min(terminal.width, READABLE))
        return
    if config is None:
        raise UserError("config needs a CONFIG, e.g. configs/quickstart.yaml, or --explain")
    from pipeline.compose import compose
    from pipeline.validation import dump

    composed = compose(config, overrides or [])
    if as_json:
        records.write(composed.model_dump(mode="json"))
    else:
        print(dump(composed), end="")


def tasks(
    simulator: Annotated[
        str | None, typer.Argument(metavar="[SIMULATOR]", help="Default: every simulator that lists its tasks.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List suites and tasks, with their instructions.

    `simulator.tasks` of a config takes names of both.
    """
    from pipeline import tasks as listing
    from pipeline.report import records
    from pipeline.report.tables import task_table

    there = listing.catalogues()
    if simulator is not None and simulator not in there:
        raise UserError(f"{simulator!r} lists no tasks; simulators that do: {', '.join(there)}")
    listed = {name: listing.catalogue(name) or () for name in (there if simulator is None else [simulator])}
    if as_json:
        records.write(
            {"tasks": [{"simulator": name, **one.model_dump()} for name, each in listed.items() for one in each]}
        )
        return
    for name, each in listed.items():
        console().print(task_table(name, each))
