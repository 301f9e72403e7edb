"""Commands about the machine and the cluster: `doctor`, `dev-cluster`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import ConfigArgument, Overrides
from pipeline.errors import UserError


def doctor(
    config: ConfigArgument,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: every check.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds a probe's job may wait in the queue; 0: look at no node.")
    ] = 60,
    simulator: Annotated[
        str | None,
        typer.Option(
            "--simulator",
            metavar="NAME",
            help="Start it and check it instead: household, libero, maniskill or omnigibson.",
        ),
    ] = None,
) -> None:
    """Tell whether a config will run on this cluster.

    Nothing of the run is submitted; one tiny job in each partition looks around there. With --simulator one job starts
    the real simulator and holds it to what Baton takes for granted.
    """
    from pipeline.doctor import doctor_command

    doctor_command(config, overrides, as_json, wait, simulator)


def dev_cluster(
    action: Annotated[str, typer.Argument(metavar="up|down|status", help="What to do.")],
    root: Annotated[Path | None, typer.Option("--root", help="Directory that holds all of it.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="With down: delete its directory too.")] = False,
) -> None:
    """A real Slurm of four nodes on your own machine."""
    from slurm.cluster import ClusterError, default_root, down, status, up

    place = root or default_root()
    try:
        match action:
            case "up":
                cluster = up(place)
                print(f"it runs; to use it: export SLURM_CONF={cluster.environment['SLURM_CONF']}")
            case "down":
                down(place, purge=purge)
                print("nothing of it runs any more")
            case "status":
                found = status(place)
                for daemon in found.daemons:
                    print(f"{daemon.name:<12}{f'process {daemon.pid}' if daemon.alive else f'gone, see {daemon.log}'}")
                for node, state in found.nodes.items():
                    print(f"{node:<12}{state}")
                if not found.daemons:
                    print(f"there is no cluster in {place}; to start one: baton dev-cluster up")
            case _:
                raise UserError(f"dev-cluster {action!r}: say up, down or status")
    except ClusterError as error:
        raise UserError(str(error)) from None
