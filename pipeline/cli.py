"""The `baton` command. Heavy imports happen inside the commands, so that help answers at once on a login node."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import Config
    from pipeline.ledger import Snapshot

INTERRUPTED = 130
RUNS = Path("runs")

app = typer.Typer(
    help="Fine-tune vision-language-action robot policies with reinforcement learning, as a relay of jobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or the name of a run under runs/.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="E.g. sft.steps=500.")]


def main() -> None:
    """Run the command; a user's mistake ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            # An indented line is quoted from a log.
            print(line if line.startswith(" ") else f"baton: {line}", file=sys.stderr)
        sys.exit(UserError.EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, e.g. configs/quickstart.yaml.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
) -> None:
    """Carry a run out, or continue it.

    The same command continues a run that was stopped, wherever it was. Ctrl-C detaches: units that run go on.
    """
    from pipeline import orchestrator, rundir
    from pipeline.compose import compose
    from pipeline.report.live import View
    from pipeline.report.tables import TABLE, write_report

    composed = compose(config, overrides or [])
    if dry_run:
        _show_plan(composed)
        return
    directory = _shorten(rundir.create_or_resume(composed))
    console = _console()
    try:
        with View(console) as view:
            orchestrator.drive(directory, view, conclude=lambda _: write_report(directory))
    except KeyboardInterrupt:
        again = shlex.join(["baton", "run", str(config), *(overrides or [])])
        print(f"\ndetached: the units that run go on; no new ones start until you reattach: {again}", file=sys.stderr)
        print(f"to look: baton status {directory}; to stop them: baton cancel {directory}", file=sys.stderr)
        raise
    console.print((directory / TABLE).read_text(), end="", markup=False, highlight=False, soft_wrap=True)


@app.command()
def status(
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a record for every unit.")] = False,
) -> None:
    """Show what of a run is published, running, failed."""
    from pipeline.report.tables import status_json, status_table

    snapshot = _snapshot(run)
    if as_json:
        print(json.dumps(status_json(snapshot), indent=1))
    else:
        _console().print(status_table(snapshot), soft_wrap=True)


@app.command()
def report(run: RunArgument) -> None:
    """Show what a run came to so far, and write its result.json."""
    from pipeline.report.tables import TABLE, write_report

    directory = find_run(run)
    write_report(directory)
    print((directory / TABLE).read_text(), end="")


@app.command()
def rerun(
    run: RunArgument,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="demonstrate, sft, rollout, update or evaluate.")],
    epoch: Annotated[int | None, typer.Option("--epoch", min=0, help="Needed where the stage has several.")] = None,
    shard: Annotated[int | None, typer.Option("--shard", min=0, help="Only this shard; without it, all.")] = None,
) -> None:
    """Have an artifact made again, and all made from it.

    They are moved to superseded/; the `baton run` command that started the run makes them again.
    """
    from pipeline import rerun as again
    from pipeline.artifacts import SHARDED_STAGES, STAGES

    if stage not in STAGES:
        raise UserError(f"STAGE {stage!r} is not a stage; stages are {', '.join(STAGES)}")
    if shard is not None and stage not in SHARDED_STAGES:
        raise UserError(f"--shard {shard}: {stage} has no shards; leave --shard out")
    if epoch is None and stage not in ("demonstrate", "sft"):
        raise UserError(f"rerun {stage} needs --epoch, e.g. --epoch 1")
    units = again.rerun(find_run(run), stage, epoch or 0, shard)
    print(f"to be done again: {', '.join(map(str, units))}")
    print("the `baton run` command that started this run does them; what they replace is kept under superseded/")


@app.command()
def cancel(run: RunArgument) -> None:
    """Stop every job of a run.

    What is published stays, and `baton run` continues from it.
    """
    from pipeline import cancel as stop

    units = stop.cancel(find_run(run))
    print(f"cancelled: {', '.join(units)}" if units else "nothing of this run was running")


@app.command()
def ui(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Its store; without it that of runs/.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the pages are served.")] = 5000,
) -> None:
    """Open MLflow's pages on the store of a run."""
    runs, uri = RUNS, None
    if run is not None:
        directory = find_run(run)
        runs, uri = directory.parent, _load(directory).trainer.logger.mlflow.uri
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


@app.command()
def track(run: RunArgument) -> None:
    """Write what a run has published to MLflow.

    What is there already stays as it is.
    """
    command = [sys.executable, "-m", "pipeline.tracking", str(find_run(run))]
    os.execv(sys.executable, command)


@app.command(name="config")
def show_config(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file to resolve.")] = None,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Every field: type, default, what it does.")] = False,
) -> None:
    """Print a resolved config, or every field there is."""
    if explain:
        from pipeline.explain import explain as explained

        _console().print(explained())
        return
    if config is None:
        raise UserError("config needs a CONFIG, e.g. configs/quickstart.yaml, or --explain")
    from pipeline.compose import compose, dump

    print(dump(compose(config, overrides or [])), end="")


def find_run(run: str) -> Path:
    """The directory of a run given by path or name.

    Raises:
        UserError: there is none; names those there are.
    """
    for directory in (Path(run), RUNS / run):
        if (directory / "config.yaml").is_file():
            return directory
    known = sorted(path.parent.name for path in RUNS.glob("*/config.yaml"))
    there = f"runs in {RUNS}: {', '.join(known)}" if known else f"{RUNS.resolve()} holds none; start one with baton run"
    raise UserError(f"{run!r} is neither a run directory nor the name of a run; {there}")


def _snapshot(run: str) -> Snapshot:
    from pipeline import ledger

    return ledger.read(find_run(run))


def _load(directory: Path) -> Config:
    from pipeline import rundir

    return rundir.load(directory)


def _shorten(path: Path) -> Path:
    """Relative to here where it lies below, as one would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _show_plan(config: Config) -> None:
    from pipeline.plan import check_cores, check_placement, machine_cores, make_plan
    from pipeline.report.tables import plan_table

    plans = make_plan(config)
    check_placement(config)
    check_cores(config, plans, machine_cores())
    _console().print(plan_table(config, plans, machine_cores()))
