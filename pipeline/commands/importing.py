"""The command that makes shards of demonstrations that others recorded: `import`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import ConfigArgument, Overrides


def import_demonstrations(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The demonstrations: a directory, or one HDF5 file.")],
    config: ConfigArgument,
    overrides: Overrides = None,
    episodes: Annotated[
        str | None,
        typer.Option(metavar="10,40-90", help="Numbers of episodes; left out: demonstrate.episodes, the first ones."),
    ] = None,
    turn: Annotated[
        bool | None,
        typer.Option(
            "--turn/--no-turn", help="Turn LIBERO's pictures by 180 degrees; left out: those of HDF5 files alone."
        ),
    ] = None,
    shard: Annotated[list[int] | None, typer.Option("--shard", min=0, help="Only this one; may be repeated.")] = None,
) -> None:
    """Make demonstration shards of what others recorded.

    For libero: the original release's HDF5, OpenVLA's RLDS files, LeRobot data sets. For omnigibson: the LeRobot v2.1
    data set of the BEHAVIOR challenge. demonstrate.imported names where the shards go; `baton run` with the same config
    trains on them. What is there already stays, so the same command goes on from an interruption.
    """
    from pipeline.compose import compose

    composed = compose(config, overrides or [])
    only = ["--episodes", episodes] if episodes else []
    only += [] if turn is None else ["--turn" if turn else "--no-turn"]
    only += [word for index in shard or [] for word in ("--shard", str(index))]
    command = [sys.executable, "-m", "stages.imports", str(path), composed.model_dump_json(), *only]
    os.execv(sys.executable, command)
