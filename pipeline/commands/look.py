"""Commands that show something and change nothing: `status`, `logs`, `report`, `ui`, `track`, `config`, `tasks`."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import (
    RUNS,
    EpochOption,
    Overrides,
    RunArgument,
    ShardOption,
    console,
    find_run,
)
from pipeline.errors import UserError


def status(
    run: RunArgument,
    every: Annotated[bool, typer.Option("--all", help="Every epoch and every unit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a record for every unit.")] = False,
) -> None:
    """Show what of a run is published, running, queued, failed.

    With the jobs, what open units wait for, and who drives it.
    """
    # All that is read stays to the end: looking for garbage would take a fifth of the time of a long run.
    gc.disable()
    try:
        from pipeline.report.standing import look
        from pipeline.report.status import show, status_json

        seen = look(find_run(run))
        if as_json:
            print(json.dumps(status_json(seen)))
        else:
            show(seen, console(), every=every)
    finally:
        gc.enable()


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
) -> None:
    """Print the log of a unit.

    Without STAGE of the one that matters now: one that failed, else one that runs, else the newest.
    """
    from pipeline import logs as printing

    printing.print_logs(find_run(run), what, epoch, shard, attempt, lines=lines, follow=follow)


def report(
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: what result.json holds.")] = False,
) -> None:
    """Show what a run came to so far, and write its result.json."""
    from pipeline.report.results import RESULT
    from pipeline.report.tables import TABLE, write_report

    directory = find_run(run)
    write_report(directory)
    print((directory / (RESULT if as_json else TABLE)).read_text(), end="")


def ui(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Its store; without it that of runs/.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the pages are served.")] = 5000,
) -> None:
    """Open MLflow's pages on the store of a run."""
    from pipeline import rundir

    runs, uri = RUNS, None
    if run is not None:
        directory = find_run(run)
        runs, uri = directory.parent, rundir.load(directory).trainer.logger.mlflow.uri
    if uri is not None and uri.startswith(("http://", "https://")):
        print(f"this run is tracked by a server that runs already: {uri}")
        return
    if uri is None:
        store = runs.resolve() / "mlflow.db"
        if not store.exists():
            raise UserError(f"{store} does not exist yet: nothing under {runs} has been tracked; start with baton run")
        uri = f"sqlite:///{store}"
    print(f"MLflow: http://127.0.0.1:{port} shows {uri}; Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    os.execv(sys.executable, command)


def track(run: RunArgument) -> None:
    """Write what a run has published to MLflow.

    What is there already stays as it is.
    """
    command = [sys.executable, "-m", "pipeline.tracking", str(find_run(run))]
    os.execv(sys.executable, command)


def show_config(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file to resolve.")] = None,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Every field: type, default, what it does.")] = False,
) -> None:
    """Print a resolved config, or every field there is."""
    if explain:
        from pipeline.explain import explain as explained

        console().print(explained())
        return
    if config is None:
        raise UserError("config needs a CONFIG, e.g. configs/quickstart.yaml, or --explain")
    from pipeline.compose import compose
    from pipeline.validation import dump

    print(dump(compose(config, overrides or [])), end="")


def tasks(
    simulator: Annotated[
        str | None, typer.Argument(metavar="[SIMULATOR]", help="Default: every simulator that lists its tasks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a record for every task.")] = False,
) -> None:
    """List suites and tasks, with their instructions.

    `simulator.tasks` of a config takes names of both.
    """
    from pipeline import tasks as listing
    from pipeline.report.tables import task_table

    there = listing.catalogues()
    if simulator is not None and simulator not in there:
        raise UserError(f"{simulator!r} lists no tasks; simulators that do: {', '.join(there)}")
    for name in there if simulator is None else [simulator]:
        listed = listing.catalogue(name) or ()
        if as_json:
            for task in listed:
                print(json.dumps({"simulator": name, **task.model_dump()}))
        else:
            console().print(task_table(name, listed))
