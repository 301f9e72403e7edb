"""Commands around the trackers of a run: `ui` opens MLflow's pages, `track` writes to them what is missing."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipeline.commands.arguments import RUNS, RunArgument, find_run
from pipeline.errors import UserError


def ui(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Its store; without it that of runs/.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the pages are served.")] = 5000,
) -> None:
    """Open MLflow's pages on the store of a run."""
    from pipeline import rundir
    from pipeline.tracking.mlflow_pages import SQLITE, address

    runs, uri, run_id = RUNS, None, None
    if run is not None:
        directory = find_run(run)
        runs, uri = directory.parent, rundir.load(directory).trainer.logger.mlflow.uri
        run_id = rundir.identity(directory)["id"]
    if uri is not None and uri.startswith(("http://", "https://")):
        print(f"this run is tracked by a server that runs already: {address(uri.rstrip('/'), uri, run_id)}")
        return
    if uri is None:
        store = runs.resolve() / "mlflow.db"
        if not store.exists():
            raise UserError(f"{store} does not exist yet: nothing under {runs} has been tracked; start with baton run")
        uri = f"{SQLITE}{store}"
    print(f"MLflow shows {uri}; Ctrl-C ends it\nopen {address(f'http://127.0.0.1:{port}', uri, run_id)}", flush=True)
    # One process for one who looks: MLflow itself starts fifteen (2.4 GB), ten of them for jobs that Baton has none of.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    place = ["--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *place])


def track(
    run: RunArgument,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Remove what they have of the run first.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, for a run that goes on.")] = False,
) -> None:
    """Write what a run has published to its trackers.

    What is there already stays as it is.
    """
    options = ["--rebuild"] * rebuild + ["--follow"] * follow
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.tracking", str(find_run(run)), *options])
