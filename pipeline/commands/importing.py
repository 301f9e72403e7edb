"""The command that imports demonstrations: `import-lerobot`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import ConfigArgument, Overrides


def import_lerobot(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The data set: it holds meta, data and videos.")],
    config: ConfigArgument,
    overrides: Overrides = None,
    episodes: Annotated[
        str | None,
        typer.Option(metavar="10,40-90", help="Numbers of episodes; left out: demonstrate.episodes, the first ones."),
    ] = None,
    shard: Annotated[list[int] | None, typer.Option("--shard", min=0, help="Only this one; may be repeated.")] = None,
) -> None:
    """Make demonstration shards of a LeRobot v2.1 data set.

    demonstrate.imported names where they go; `baton run` with the same config trains on them. What is there already
    stays, so the same command goes on from an interruption.
    """
    from pipeline.compose import compose

    composed = compose(config, overrides or [])
    only = ["--episodes", episodes] if episodes else []
    only += [word for index in shard or [] for word in ("--shard", str(index))]
    command = [sys.executable, "-m", "stages.imports", str(path), composed.model_dump_json(), *only]
    os.execv(sys.executable, command)
