"""What commands share: their arguments, the run that a name means, and the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

RUNS = Path("runs")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or the name of a run under runs/.")]
ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, e.g. configs/quickstart.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="E.g. sft.steps=500.")]
EpochOption = Annotated[int | None, typer.Option("--epoch", min=0, help="Only units of this epoch.")]
ShardOption = Annotated[int | None, typer.Option("--shard", min=0, help="Only this shard.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: one JSON document, see docs/json.md.")]


def named_run(run: str) -> Path | None:
    """The directory of a run given by path or name; None where there is none."""
    return next((path for path in (Path(run), RUNS / run) if (path / "config.yaml").is_file()), None)


def find_run(run: str) -> Path:
    """The directory of a run given by path or name.

    Raises:
        UserError: there is none; names those there are.
    """
    if directory := named_run(run):
        return directory
    known = sorted(path.parent.name for path in RUNS.glob("*/config.yaml"))
    there = f"runs in {RUNS}: {', '.join(known)}" if known else f"{RUNS.resolve()} holds none; start one with baton run"
    raise UserError(f"{run!r} is neither a run directory nor the name of a run; {there}")


def check_stage(stage: str | None, shard: int | None) -> None:
    """Refuse a stage that is none, and a shard of a stage that has none.

    Args:
        stage: as given; None: any.
        shard: as given.

    Raises:
        UserError: with the stages there are.
    """
    from pipeline.artifacts import SHARDED_STAGES, STAGES

    if stage is not None and stage not in STAGES:
        raise UserError(f"STAGE {stage!r} is not a stage; stages are {', '.join(STAGES)}")
    if stage is not None and shard is not None and stage not in SHARDED_STAGES:
        raise UserError(f"--shard {shard}: {stage} has no shards; leave --shard out")


def shorten(path: Path) -> Path:
    """Relative to here where it lies below, as one would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def console() -> Console:
    """The terminal, or whatever stdout is."""
    from pipeline.report.terminal import console_on

    return console_on(sys.stdout)


def aside() -> Console:
    """The terminal, or whatever stderr is: for what people watch while stdout is a program's."""
    from pipeline.report.terminal import console_on

    return console_on(sys.stderr)
